"""What of the API writes, or says how writing goes, for the description of the API (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

_TEXT, _NUMBER, _MAP = {"type": "string"}, {"type": "integer"}, {"type": ["object", "null"]}
_WATCHER = {
    "type": "object",
    "required": ["kind", "place", "state", "says", "starts", "trouble", "totals", "last_commit"],
    "properties": {
        "kind": {"enum": ["firehose", "watch"]},
        "place": {"type": ["string", "null"], "description": "What is watched; null for the Firehose endpoint."},
        "state": {"enum": ["starting", "running", "failed", "stopped"]},
        "says": _TEXT,
        "starts": {**_NUMBER, "description": "How often the process was started: more than once if it ended early."},
        "trouble": {
            "type": ["object", "null"],
            "required": ["at", "message"],
            "properties": {"at": {"type": "string", "format": "date-time"}, "message": _TEXT},
        },
        "totals": {**_MAP, "description": "received = stored + duplicates + dropped + malformed, and the delay."},
        "last_commit": {**_MAP, "description": "As a line of `trailsift watch --json`."},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["requestId", "timestamp"],
    "properties": {
        "requestId": _TEXT,
        "timestamp": {**_NUMBER, "description": "Milliseconds since 1970."},
        "errorMessage": _TEXT,
    },
}
_REQUEST = {
    "type": "object",
    "required": ["records"],
    "properties": {
        "requestId": {**_TEXT, "description": "As in the header."},
        "timestamp": _NUMBER,
        "records": {
            "type": "array",
            "maxItems": 10_000,
            "items": {
                "type": "object",
                "required": ["data"],
                "properties": {"data": {"type": "string", "contentEncoding": "base64"}},
            },
        },
    },
}


def describe_watchers() -> dict[str, Any]:
    """Return the path of the states."""
    schema = {"type": "object", "required": ["watchers"]}
    schema["properties"] = {"watchers": {"type": "array", "items": _WATCHER}}  # type: ignore[assignment]
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "get": {
            "operationId": "watchers",
            "summary": "The processes that write to the lake beside this server.",
            "responses": {
                "200": {"description": "Their states.", "content": {"application/json": {"schema": schema}}},
                "401": {"description": "The token is missing.", "content": problem},
                "405": {"description": "Another method is needed.", "content": problem},
            },
            "security": [{}, {"bearer": []}, {"cookie": []}],
        }
    }


def describe_endpoint() -> dict[str, Any]:
    """Return the path of the Firehose endpoint."""
    content = {"application/json": {"schema": _ANSWER}}
    says = {
        "200": "The request is committed.",
        "400": "It is not a request of Firehose.",
        "401": "The access key is missing or wrong.",
        "408": "The body took too long.",
        "413": "The body is larger than that of any stream.",
        "503": "It is not committed: send it again.",
    }
    header = {"name": "X-Amz-Firehose-Request-Id", "in": "header", "required": True}
    return {
        "post": {
            "operationId": "firehose",
            "summary": "What Firehose delivers; docs/firehose-endpoint.md.",
            "parameters": [{**header, "schema": {"type": "string", "pattern": "^[!-~]{1,256}$"}}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
            "responses": {status: {"description": text, "content": content} for status, text in says.items()},
            "security": [{"firehose": []}],
        }
    }
