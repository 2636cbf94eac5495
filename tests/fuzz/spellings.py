"""One record in every spelling of JSON: blanks, escapes, repeated members, numbers, depth, in every form of a text.

The three ways to read it (the scanner, the fast path in Python, the slow path) must agree, and what is stored must give
back what was read.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
from typing import Any, NamedTuple

from fuzz.mutate import Mutator, corpus, refuse
from support.records import JSON_COLUMNS
from trailsift import _native
from trailsift.decode import record
from trailsift.decode.envelope import find_records
from trailsift.decode.json_text import INVALID, is_too_deep, parse
from trailsift.decode.outcome import NotARecord
from trailsift.decode.tabular import opened
from trailsift.decode.unwrap import looks_like_record
from trailsift.ingest.chunk_builder import ChunkBuilder

#: What may stand between two tokens.
_BLANKS = [" ", "  ", "\n", "\r\n", "\t", " \n\t", "\n" + " " * 40]
_NUMBERS = re.findall(
    r"\S+",
    "0 -0 -0.0 0.0 1 1.0 1.00 10.0 1e0 1E5 1e5 1E+2 1e-2 5e-1 0.5 0E0 -1 1e15 1e16 9007199254740993 2.0e1 "
    "9223372036854775807 9223372036854775808 18446744073709551616 123456789012345 1234567890123456 1e400 -1e400 "
    "1e-400 123456789012345.0 1234567890123456.0 100000000000000000000000",
)
_LONG_NUMBERS = ["1" * 4300, "1" * 4301, "-" + "1" * 4301, "1" * 5000 + ".5", "0." + "1" * 5000, "1e" + "0" * 5000]
_TEXTS = [
    *(
        "",
        " ",
        ", ",
        ": ",
        "a, b",
        "{ }",
        "[ ]",
        '", "',
        '\\", \\"',
        "\\",
        "\\\\",
        "/",
        "{",
        "}",
        "{}",
        "[]",
        "{ }",
        "{a",
    ),
    *("null", "1", "5.0", '{"a":"b"}', '{"a": "b"}', '{"a":1}', '{"a":"b","a":"c"}', '{"\\u0061":"b"}', '"', "'", "''"),
    *(
        "\x7f",
        "\0",
        "\n",
        "\t",
        "é",
        "한글",
        "\U0001f600",
        "\u2028",
        "\ufeff",
        "\ud800",
        "\udfff",
        "\ud83d\ude00",
        "\u202e",
    ),
    *(
        "key",
        '"key":"x"',
        '"key":{"a":1}',
        "bytesTransferredIn",
        '"bytesTransferredOut":5',
        "data/x",
        "a/b",
        "/",
        "//x",
    ),
    *("(absent)", "(float)", "\u2e28trailsift key\u2e29", "arn:aws:s3:::data/a/b", "%20", "{n}", "x" * 40, "é" * 20),
]
_NAMES = [
    *("key", "keys", "prefix", "Key", "bucketName", "tableName", "uploadId", "versionId", "statement", "shardIterator"),
    *(
        "x-amz-copy-source",
        "segment",
        "roleSessionName",
        "marker",
        "bytesTransferredIn",
        "bytesTransferredOut",
        "a",
        "",
    ),
]
_ACTIONS = {
    "s3.amazonaws.com": ["GetObject", "PutObject", "ListObjects", "UploadPart", "CopyObject", "ListObjectVersions"],
    "dynamodb.amazonaws.com": ["GetItem", "PutItem", "BatchGetItem", "TransactWriteItems", "ExecuteStatement", "Scan"],
    "lambda.amazonaws.com": ["Invoke"],
    "sts.amazonaws.com": ["AssumeRole"],
}


class Text(str):
    """The text of a value that is not to be spelled again."""


#: An object with its members in order, which may repeat.
class Members(NamedTuple):
    items: list[tuple[str, Any]]


class Speller:
    """Draws records, and spells each in a way of its own."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        #: The chance of blanks: after an opening bracket, around a colon, around a comma, before a closing bracket.
        self.blanks = [0.0] * 6
        self.escapes = rng.choice([0, 0, 0, 0.02, 0.5, 1.0])
        self.name_escapes = rng.choice([0, 0, 0, 0, 0.01, 0.1])
        self.blank = rng.choice(_BLANKS)
        draw = rng.random()
        if draw < 0.5:
            for place in rng.sample(range(6), rng.choice([1, 1, 1, 2, 6])):
                self.blanks[place] = rng.choice([0.01, 0.1, 1.0, 1.0])

    # -- values --

    def record(self) -> Members:
        rng = self.rng
        members = [(name, _tree(json.loads(text))) for name, text in rng.choice(corpus())]
        _put(members, "eventID", f"11111111-2222-4333-8444-{rng.getrandbits(48):012x}")
        draw = rng.random()
        if draw < 0.5:
            source = rng.choice([*_ACTIONS])
            _put(members, "eventSource", source)
            _put(members, "eventName", rng.choice(_ACTIONS[source]))
            _put(members, "requestParameters", self.parameters())
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            self._change(members)
        if rng.random() < 0.08:
            self._print(members)
        return Members(members)

    def _print(self, members: list[tuple[str, Any]]) -> None:
        """Put texts where objects belong, as exports print them."""
        for at, (name, value) in enumerate(members):
            if isinstance(value, Members | list) and self.rng.random() < 0.5:
                text = self.spell(value)
                with contextlib.suppress(ValueError, RecursionError):
                    members[at] = name, text if self.rng.random() < 0.6 else repr(json.loads(text))

    def parameters(self) -> Members:
        rng = self.rng
        key = self.text()
        items: list[tuple[str, Any]] = [("bucketName", "data"), ("tableName", "t")]
        items.append(("key", rng.choice([key, key, self.item(), self.value(1)])))
        if rng.random() < 0.3:
            items.append((rng.choice(_NAMES), self.value(1)))
        if rng.random() < 0.2:
            items.append(("prefix", self.text()))
        if rng.random() < 0.1:
            items.append(("requestItems", Members([("t", Members([("keys", [self.item(), self.item()])]))])))
        rng.shuffle(items)
        return Members(items)

    def item(self) -> Members:
        names = [self.rng.choice(["pk", "sk", "id", "a"]) for _ in range(self.rng.randint(0, 3))]
        return Members([(name, self.text() if self.rng.random() < 0.9 else self.value(2)) for name in names])

    def text(self) -> str:
        texts = [self.rng.choice(_TEXTS) for _ in range(self.rng.choice([1, 1, 1, 2]))]
        return "".join(texts) if self.rng.random() < 0.9 else "in/2026/" + texts[0]

    def number(self) -> Text:
        return Text(self.rng.choice(_NUMBERS if self.rng.random() < 0.98 else _LONG_NUMBERS))

    def value(self, depth: int = 0) -> Any:
        rng = self.rng
        draw = rng.random()
        if draw < 0.4 or depth > 3:
            return self.text()
        if draw < 0.6:
            return self.number()
        if draw < 0.65:
            return rng.choice([None, True, False])
        if draw < 0.85:
            return Members([(rng.choice(_NAMES), self.value(depth + 1)) for _ in range(rng.randint(0, 4))])
        if draw < 0.99:
            return [self.value(depth + 1) for _ in range(rng.randint(0, 3))]
        levels = rng.choice([40, 46, 47, 48, 49, 100, 300, 900, 1100, 3000])
        return Text('{"a":' * levels + "1" + "}" * levels if rng.random() < 0.5 else "[" * levels + "]" * levels)

    def counts(self) -> Members:
        rng = self.rng
        items: list[tuple[str, Any]] = [("SignatureVersion", "SigV4"), ("x-amz-id-2", self.text())]
        for name in ("bytesTransferredIn", "bytesTransferredOut"):
            if rng.random() < 0.8:
                items.insert(
                    rng.randrange(len(items) + 1), (name, self.number() if rng.random() < 0.9 else self.value(1))
                )
        return Members(items)

    def _change(self, members: list[tuple[str, Any]]) -> None:
        rng = self.rng
        draw = rng.random()
        if draw < 0.25:
            _put(members, "additionalEventData", self.counts())
        elif draw < 0.4:
            key = next((value for name, value in members if name == "requestParameters"), None)
            keys = [value for name, value in key.items if name == "key"] if isinstance(key, Members) else []
            text = keys[0] if keys and isinstance(keys[0], str) else self.text()
            arns = [("type", "AWS::S3::Object"), (rng.choice(["ARN", "ARN", "ARNPrefix"]), "arn:aws:s3:::data/" + text)]
            bucket = [("accountId", "111122223333"), ("type", "AWS::S3::Bucket"), ("ARN", "arn:aws:s3:::data")]
            _put(members, "resources", [Members(arns), Members(bucket)])
        elif draw < 0.65:
            # A member twice, at any depth, with the same value or another one.
            objects = [found for found in _objects(Members(members)) if found.items]
            chosen = rng.choice(objects)
            name, value = rng.choice(chosen.items)
            value = value if rng.random() < 0.3 else self.value(1) if rng.random() < 0.5 else self.text()
            chosen.items.insert(rng.randrange(len(chosen.items) + 1), (name, value))
        elif draw < 0.85:
            place = rng.randrange(len(members))
            members[place] = members[place][0], self.value()
        elif draw < 0.95:
            members.insert(
                rng.randrange(len(members) + 1), (rng.choice(["new", "(absent)", "(float)", ""]), self.value())
            )
        else:
            del members[rng.randrange(len(members))]

    # -- spelling --

    def spell(self, value: Any) -> str:
        if isinstance(value, Text):
            return value
        if isinstance(value, str):
            return self._string(value, self.escapes)
        if isinstance(value, Members):
            return self._list("{", [(name, inner) for name, inner in value.items], "}")
        if isinstance(value, list):
            return self._list("[", value, "]")
        return json.dumps(value)

    def _list(self, opening: str, items: list[Any], closing: str) -> str:
        parts = [opening, self._blank(0)]
        for number, item in enumerate(items):
            if number:
                parts += [self._blank(3), ",", self._blank(4)]
            if opening == "{":
                name, item = item
                parts += [self._string(name, self.name_escapes), self._blank(1), ":", self._blank(2)]
            parts.append(self.spell(item))
        return "".join([*parts, self._blank(5), closing])

    def _blank(self, place: int) -> str:
        chance = self.blanks[place]
        return self.blank if chance and self.rng.random() < chance else ""

    def _string(self, text: str, chance: float) -> str:
        return '"' + "".join(self._sign(sign, chance) for sign in text) + '"'

    def _sign(self, sign: str, chance: float) -> str:
        rng, code = self.rng, ord(sign)
        forced = code < 0x20 or sign in '"\\' or 0xD800 <= code < 0xE000
        if not forced and (not chance or rng.random() > chance):
            return sign
        short = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t", "\b": "\\b"}.get(sign)
        if short is not None and (not chance or rng.random() < 0.5):
            return short
        units = sign.encode("utf-16-be", "surrogatepass")
        form = rng.choice(["\\u%04x", "\\u%04X"])
        return "".join(form % int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))

    def text_of(self, records: list[str]) -> bytes:
        """Records in one of the forms of a text."""
        rng, outer = self.rng, [self._blank(place) for place in range(6)]
        joined = (outer[3] + "," + outer[4]).join(records)
        form = rng.random()
        if form < 0.4:
            text = f'{{{outer[0]}"Records"{outer[1]}:{outer[2]}[{joined}]{outer[5]}}}'
        elif form < 0.6:
            text = f"[{outer[0]}{joined}{outer[5]}]"
        elif form < 0.8:
            text = "\n".join(record.replace("\n", " ").replace("\r", " ") for record in records)
        elif form < 0.9:
            text = "".join(records)
        else:
            text = json.dumps({"Message": json.dumps({"Records": [0]}).replace("[0]", f"[{joined}]")})
        data = text.encode("utf-8", "surrogatepass")
        draw = rng.random()
        if draw < 0.03:
            data = b"\xef\xbb\xbf" + data
        elif draw < 0.05:
            data = text.encode("utf-16", "surrogatepass")
        elif draw < 0.1:
            data = Mutator(rng).damaged(data)
        return data


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return Members([(name, _tree(inner)) for name, inner in value.items()])
    return [_tree(inner) for inner in value] if isinstance(value, list) else value


def _objects(value: Any) -> list[Members]:
    if isinstance(value, Members):
        return [value, *(found for _, inner in value.items for found in _objects(inner))]
    return [found for inner in value for found in _objects(inner)] if isinstance(value, list) else []


def _put(members: list[tuple[str, Any]], name: str, value: Any) -> None:
    places = [at for at, (other, _) in enumerate(members) if other == name]
    if places:
        members[places[0]] = name, value
    else:
        members.append((name, value))


def drawn_texts(rng: random.Random) -> list[bytes]:
    """Log objects, so that what one reader remembers of the first ones meets the others."""
    speller = Speller(rng)
    texts = []
    for _ in range(rng.choice([1, 1, 2])):
        records = [speller.spell(speller.record()) for _ in range(rng.choice([1, 2, 4]))]
        if rng.random() < 0.3:
            # The same calls with other blanks and escapes.
            records += [Speller(rng).spell(speller.record()), records[0]]
        texts.append(speller.text_of(records))
    return texts


def check_spellings(data: list[bytes]) -> str | None:
    """Read texts in every way; return what differs, or what is stored and does not give back what was read."""
    slow = _read(data, "slow")
    for way in ("fast", "scanned") if _native.available() else ("fast",):
        found = _read(data, way)
        for part, mine, other in zip(("tallies", "rows"), found[:2], slow[:2], strict=True):
            if mine != other:
                only = (
                    [item for item in mine if item not in other][:1],
                    [item for item in other if item not in mine][:1],
                )
                return f"{part} differ: {_difference(*only)} ({way} and slow)"
        if found[2] is not None:
            return f"{found[2]} ({way})"
    wanted, restored = sorted(_wanted(data)), slow[3]
    # A text is too deep even if the deep member is one that does not count, since another one has its name.
    if wanted != restored and not any("too deep" in tally for tally in slow[0]):
        only = (
            [item for item in restored if item not in wanted][:1],
            [item for item in wanted if item not in restored][:1],
        )
        return f"what is restored differs from what was read: {_difference(*only)}"
    return slow[2]


def _difference(mine: list[str], other: list[str]) -> str:
    if not mine or not other:
        return f"{'more' if mine else 'less'}: {mine or other}"[:1500]
    first, second = mine[0], other[0]
    at = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(map(len, (first, second)))
    )
    return f"...{first[max(at - 150, 0) : at + 150]!r} and ...{second[max(at - 150, 0) : at + 150]!r}"


def _read(data: list[bytes], way: str) -> tuple[list[str], list[str], str | None, list[str]]:
    """Return tallies, rows, what is wrong with a row, and the records that the rows give back."""
    builder = ChunkBuilder(scan=way == "scanned")
    if way == "slow":
        builder._shared.take = lambda raw: None  # type: ignore[method-assign]
    tallies = []
    for number, text in enumerate(data):
        stats = builder.add(f"object-{number}", text)
        reasons = [part.reason for part in stats.malformed if part.reason.startswith("unforeseen")]
        if reasons:
            return reasons, [], None, []
        reasons = sorted(part.reason for part in stats.malformed)
        tallies.append(f"{stats.records} records, {stats.malformed.parts} malformed {reasons}, {stats.foreign}")
    chunk = builder.finish()
    # NaN, which Python's json reads, has no other spelling.
    strict = not any(b"NaN" in text or b"Infinity" in text for text in data)
    rows, wrong, restored = [], None, []
    for row, id in zip(chunk.table.to_pylist(), map(bytes, chunk.ids), strict=True):
        row["event_time"] = round(row["event_time"].timestamp()) * 1_000_000
        for name in JSON_COLUMNS:
            if row[name] is not None and wrong is None and not _is_json(row[name], strict):
                wrong = f"{name} is not JSON: {row[name][:500]!r}"
        rows.append(repr((sorted(_comparable(row).items()), id.hex())))
        if wrong is None:
            restored.append(json.dumps(record.restore(row), sort_keys=True))
    return tallies, sorted(rows), wrong, sorted(restored)


def _list_of(text: bytes) -> list[Any] | None:
    """Return the records of a list that is valid as a whole, read by nothing of ours; None for other forms."""
    if text[:1] not in (b"{", b"["):
        return None
    try:
        # Of bytes, Python's json takes halves of surrogate pairs in UTF-8, which is not UTF-8.
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    values = value.get("Records") if isinstance(value, dict) and "Records" in value and len(value) == 1 else value
    if not isinstance(values, list) or not all(isinstance(each, dict) and looks_like_record(each) for each in values):
        return None
    return values


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(parse(value), sort_keys=True, default=str) if name in JSON_COLUMNS and value else value
        for name, value in row.items()
    }


def _is_json(text: str, strict: bool) -> bool:
    try:
        json.loads(text, parse_constant=refuse if strict else None)
    except (ValueError, RecursionError):
        return False
    return True


def _wanted(data: list[bytes]) -> list[str]:
    """Return the records that can be read, in the spelling of ``json``."""
    wanted = []
    for text in data:
        values = _list_of(text)
        if values is None:
            values = [parse(bytes(raw)) for raw in find_records(text, cut=False).records]
        for value in values:
            if value is INVALID or is_too_deep(json.dumps(value).encode()):
                continue
            try:
                record.row(value, "")
            except NotARecord:
                continue
            wanted.append(json.dumps(opened(value), sort_keys=True))
    return wanted
