"""What a call does with the resource that it names: reads, writes, deletes, lists.

The kind is a key of the table ``access``, which answers "who reads this bucket". It is derived from the service, the
action's name and ``readOnly``; nothing else of the event counts, so it can be computed again from any summary.
"""

from __future__ import annotations

from functools import lru_cache

READ, WRITE, DELETE, DELETE_BATCH, LIST, OTHER = KINDS = ("read", "write", "delete", "delete-batch", "list", "other")

#: Actions whose names say something else than what they do with content. By service, in the words of ``service``.
_ACTIONS: dict[str, dict[str, str]] = {
    "s3": {
        # Metadata: neither the content nor a list of objects.
        **dict.fromkeys(
            (
                "HeadObject", "HeadBucket", "GetObjectAcl", "GetObjectTagging", "GetObjectAttributes",
                "GetObjectRetention", "GetObjectLegalHold", "PutObjectAcl", "PutObjectTagging", "DeleteObjectTagging",
                "PutObjectRetention", "PutObjectLegalHold", "RestoreObject", "AbortMultipartUpload", "ListParts",
                "ListMultipartUploads",
            ),
            OTHER,
        ),
        "PostObject": WRITE,
        "RenameObject": WRITE,
        "CompleteMultipartUpload": WRITE,
        # The answer that an Object Lambda gives to the reader.
        "WriteGetObjectResponse": OTHER,
        "DeleteObjects": DELETE_BATCH,
    },
    "dynamodb": {
        **dict.fromkeys(("Query", "Scan", "BatchGetItem", "TransactGetItems", "GetRecords"), READ),
        **dict.fromkeys(("BatchWriteItem", "TransactWriteItems"), WRITE),
        "GetShardIterator": OTHER,
    },
    "lambda": dict.fromkeys(("Invoke", "InvokeAsync", "InvokeWithResponseStream", "InvokeExecution"), OTHER),
    "sqs": {"ReceiveMessage": READ, "PurgeQueue": DELETE_BATCH, "DeleteMessageBatch": DELETE_BATCH},
    "kms": {"Decrypt": READ},
}  # fmt: skip
#: The first words of an action's name.
_VERBS = {
    **dict.fromkeys(("Get", "Read", "Select", "Download", "Retrieve", "Receive", "Query", "Scan"), READ),
    **dict.fromkeys(("Put", "Write", "Update", "Create", "Upload", "Copy", "Publish", "Send", "Insert"), WRITE),
    **dict.fromkeys(("Delete", "Remove", "Purge", "Terminate"), DELETE),
    **dict.fromkeys(("List", "Describe", "Search"), LIST),
}
_BATCH = ("BatchDelete", "DeleteBatch", "BatchRemove")


@lru_cache(maxsize=16_384)
def call_kind(service: str | None, event_name: str | None, read_only: bool | None) -> str:
    """Return one of ``KINDS``.

    ``read`` and ``write`` are of content: a call that asks for metadata only, or that has no name that says more, is
    ``other``.
    """
    name = event_name or ""
    # The relatives of S3: s3-object-lambda, s3-outposts, s3express.
    known = _ACTIONS.get("s3" if (service or "").startswith("s3") else service or "", {}).get(name)
    if known is not None:
        return known
    if name.startswith(_BATCH):
        return DELETE_BATCH
    bare = name.removeprefix("Batch").removeprefix("Transact")
    for verb, kind in _VERBS.items():
        if bare.startswith(verb) and not bare[len(verb) : len(verb) + 1].islower():
            return kind
    if name.startswith("Execute") and read_only is not None:
        # PartiQL: only the statement, which is not a summary's, says more.
        return READ if read_only else WRITE
    return OTHER
