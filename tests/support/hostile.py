"""Texts that try to steer a terminal, a reader or a shell; records full of them; and what a terminal was sent."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.records import sample

#: No style of ours blinks or is reversed, so these sequences cannot be taken for one.
EVIL = (
    "\x1b[5;7mEVIL\x1b[2J\x1b]8;;http://evil.example\x07click\x1b]8;;\x07\x1b]0;title\x07\x1bP1$r\x1b\\"
    "\u202egpj.exe\u2066\u200f\x9b5;7m\x9d0;t\x9c\x85\u2028\u2029\x08\x08\r\nFAKE LINE: all ok\ttab\x7f"
    "\u061c\u2060\u2064\ufff9\U000e0041\u00ad\u3164\u115f\u034f\ufe0f\ufeff\ue000\uffff"
)
#: What a shell would run.
SHELL = "a'b\"c`touch PWNED`d$(touch PWNED)\\ ; touch PWNED #&|<>*?[x]{n} !! ~"
#: Text that must stay as it is.
READABLE = "한국어 🙂 👩\u200d💻 ❤\ufe0f 1\ufe0f\u20e3 café 日本語"

_STYLES = re.compile(
    # Bold, dim, the sixteen colours; cursor moves of a progress bar.
    r"\x1b\[(?:0|1|2|3|4|3[0-79]|4[0-79]|9[0-7]|[;]|38;5;\d+)*m|\x1b\[\?25[lh]|\r?\x1b\[(?:2K|1A)|\r(?=\x1b\[2K)"
)
_BLANKS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef]")


def unsafe(seen: str) -> list[str]:
    """Return what a terminal was sent that it should not be, each with what is around it."""
    plain = _STYLES.sub("", seen.replace("\r\n", "\n"))
    found = []
    for place, sign in enumerate(plain):
        joins = sign in "\u200d\ufe0f" and unicodedata.category(plain[place - 1]) in ("So", "Mn", "Nd", "Sk")
        bad = unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or _BLANKS.match(sign)
        if bad and sign != "\n" and not joins:
            found.append(repr(plain[max(place - 40, 0) : place + 20]))
    found += [repr(line) for line in plain.split("\n") if line.startswith("FAKE LINE")]
    return found


def records(text: str = EVIL, count: int = 40) -> Iterator[dict[str, Any]]:
    """Yield records with a text in every field that a caller or a file can fill."""
    for number in range(count):
        yield _record(number, "evil", lambda field: f"{field}{text}")
        # Names that AWS would accept, with hostile content in what the caller chooses freely.
        yield _record(number, "plain", lambda field: text if field in ("agent", "key", "message", "session") else None)
        yield _management(number, text)


def _record(number: int, name: str, of: Callable[[str], str | None]) -> dict[str, Any]:
    role = of("role") or "app"
    bucket, key = of("bucket") or "data", of("key") or "in/part"
    record = sample(
        eventID=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name} {number}")),
        eventTime=f"2026-03-0{2 + number % 5}T03:{number % 60:02d}:00Z",
        userAgent=f"kali {of('agent') or 'Boto3'}",
        eventName=f"Get{of('event') or 'Object'}",
        awsRegion=of("region") or "us-east-1",
        sourceIPAddress=of("address") or "198.51.100.7",
        vpcEndpointId=of("endpoint") or "vpce-1",
        recipientAccountId=of("account") or "111122223333",
        requestParameters={"bucketName": bucket, "key": f"{key}/{number % 3}"},
        resources=[{"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::{bucket}/{key}"}],
        tlsDetails={"tlsVersion": of("tls") or "TLSv1.3", "cipherSuite": of("cipher") or "x"},
    )
    session = of("session") or "job"
    record["userIdentity"] = {
        **record["userIdentity"],
        "arn": f"arn:aws:sts::111122223333:assumed-role/{role}/{session}",
        "principalId": f"AROA:{session}",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": f"arn:aws:iam::111122223333:role/{role}"}},
    }
    if number % 2:
        record |= {"errorCode": of("error") or "AccessDenied", "errorMessage": of("message") or "no"}
    return record


def _management(number: int, text: str) -> dict[str, Any]:
    record = _record(number, "management", lambda field: f"{field}{text}" if field in ("role", "agent") else None)
    record |= {"eventSource": "kms.amazonaws.com", "eventName": "Decrypt", "eventCategory": "Management"}
    return record | {"managementEvent": True, "eventID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"kms {number}"))}


@contextmanager
def terminal() -> Iterator[tuple[io.TextIOWrapper, Callable[[], str]]]:
    """Yield a stream on a terminal, and a function that returns what it has been sent."""
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                block = os.read(master, 1 << 16)
            except OSError:
                return
            if not block:
                return
            seen.append(block)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    stream = open(slave, "w", encoding="utf-8", newline="\n")  # noqa: PTH123, SIM115

    def finish() -> str:
        stream.close()
        reader.join(20)
        return b"".join(seen).decode("utf-8", "backslashreplace")

    try:
        yield stream, finish
    finally:
        if not stream.closed:
            stream.close()
        os.close(master)
