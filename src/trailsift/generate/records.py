"""Records as CloudTrail writes them: a group of similar events at once, one column of text per placeholder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import mod

import numpy as np

from trailsift.generate import object_keys
from trailsift.generate.actors import Actor, resource_arn
from trailsift.generate.archetypes import Op
from trailsift.generate.bulk_text import BASE64, UPPER, Bytes, Ints, iso_times, strings, uuid_rows
from trailsift.generate.record_templates import ERRORS, RECORD_TEMPLATES, CompiledTemplate, RecordTemplate, denial
from trailsift.generate.sessions import Sessions

_SPREAD = 0.9  # sigma of the log-normal payload sizes
_EVENT_ID = np.frombuffer(b'","eventID":"', np.uint8)


@dataclass
class RecordGroup:
    """Events of one op, of any actors: the actor's index, the session and the time (seconds) of each."""

    op: Op
    actors: tuple[Actor, ...]
    actor: list[int]
    session: list[int]
    seconds: Ints
    sessions: Sessions
    rng: np.random.Generator
    copies: int = 0  # the last `copies` events are the partner account's view of the first `copies`

    def __len__(self) -> int:
        return len(self.actor)

    @property
    def template(self) -> RecordTemplate:
        """The template of these events."""
        return RECORD_TEMPLATES[self.op.event]


@dataclass(frozen=True)
class Rendered:
    """Records (JSON bytes) with their event ids."""

    records: list[bytes]
    event_ids: list[bytes]


def render(group: RecordGroup) -> Rendered:
    """Write the group's events."""
    pattern = group.op.key
    salts = np.array([r.salt for r in group.actors], np.uint64)[group.actor]
    draw = object_keys.Draw(group.rng, group.seconds, salts)
    key = _own_keys(group, draw) if "$" in pattern else object_keys.make(pattern, draw)
    _mirror(group, key)
    failed, errors, error_bytes = _errors(group, key)
    ids = _ids(group)
    compiled_templates = _compiled_templates(group, failed)
    columns: dict[str, list[bytes] | list[int]] = {"key": key, "err": errors, "ids": ids}
    columns |= _payload(group, failed, error_bytes)
    for placeholder in dict.fromkeys(compiled_templates[0].placeholders):
        if placeholder not in columns:
            columns[placeholder] = PLACEHOLDERS[placeholder](group)
    rows = zip(*(columns[placeholder] for placeholder in compiled_templates[0].placeholders), strict=True)
    records: list[bytes] = list(map(mod, [compiled.template for compiled in compiled_templates], rows))
    return Rendered(records, [text[-36:] for text in ids])


def _own_keys(group: RecordGroup, all_of: object_keys.Draw) -> list[bytes]:
    """Return keys whose pattern names the actor's account or region, actor by actor."""
    out: list[bytes] = [b""] * len(group)
    actor = np.array(group.actor)
    for index in np.unique(actor).tolist():
        places = np.flatnonzero(actor == index)
        draw = object_keys.Draw(group.rng, group.seconds[places], all_of.salts[places])
        keys = object_keys.make(group.actors[index].fill(group.op.key), draw)
        for place, text in zip(places.tolist(), keys, strict=True):
            out[place] = text
    return out


def _mirror(group: RecordGroup, column: list[bytes]) -> None:
    """Copy the column to the partner's records: both records of a cross-account call have the same value."""
    if group.copies:
        column[-group.copies :] = column[: group.copies]


def _compiled_templates(group: RecordGroup, failed: list[bool]) -> list[CompiledTemplate]:
    cache: dict[tuple[int, bool, bool], CompiledTemplate] = {}
    ours = len(group) - group.copies
    out = []
    for place, (actor, fail) in enumerate(zip(group.actor, failed, strict=True)):
        code = (actor, fail, place >= ours)
        compiled = cache.get(code)
        if compiled is None:
            compiled = cache[code] = group.actors[actor].compiled(group.op, fail, place >= ours)
        out.append(compiled)
    return out


def _errors(group: RecordGroup, key: list[bytes]) -> tuple[list[bool], list[bytes], list[int]]:
    """Draw per event: whether it failed, the error fields, and the bytes of the error document."""
    n = len(group)
    failed, errors, sizes = [False] * n, [b""] * n, [0] * n
    if not group.op.errors:
        return failed, errors, sizes
    u = group.rng.random(n)
    if group.copies:
        u[-group.copies :] = u[: group.copies]
    floor = 0.0
    for chance, code in group.op.errors:
        for place in np.flatnonzero((u >= floor) & (u < floor + chance)).tolist():
            failed[place] = True
            message = ERRORS[code][0] or _denied(group, place, key[place])
            errors[place] = f',"errorCode":"{code}","errorMessage":{json.dumps(message, ensure_ascii=False)}'.encode()
            sizes[place] = ERRORS[code][1]
        floor += chance
    return failed, errors, sizes


def _denied(group: RecordGroup, place: int, key: bytes) -> str:
    actor, template = group.actors[group.actor[place]], group.template
    if actor.arn is None or template.caller == "service":
        return "Access Denied"
    arn = group.sessions.arn[group.session[place]].decode()
    action = template.action or f"{template.service}:{template.event}"
    resource = resource_arn(actor, group.op) or "*"
    if "<key>" in template.params and template.service == "s3" and action != "s3:ListBucket":
        resource += "/" + str(json.loads(b'"' + key + b'"'))
    return denial(arn, action, resource)


def _ids(group: RecordGroup) -> list[bytes]:
    """Draw `REQUEST","eventID":"EVENT`: adjacent in every record, so one column."""
    n = len(group)
    raw = group.rng.integers(0, 256, (n, 68), np.uint8)
    width = {"s3": 16, "dynamodb": 52}.get(group.template.service, 0)
    request = UPPER[raw[:, 16 : 16 + width]] if width else uuid_rows(raw[:, 16:32])
    if group.copies:
        request[-group.copies :] = request[: group.copies]
    middle = np.broadcast_to(_EVENT_ID, (n, len(_EVENT_ID)))
    return strings(np.concatenate([request, middle, uuid_rows(raw[:, :16])], axis=1))


def _payload(group: RecordGroup, failed: list[bool], error_bytes: list[int]) -> dict[str, list[int]]:
    """Draw bytes in and out, as S3 counts them: a log-normal payload one way, or an error document back."""
    template, n = group.template, len(group)
    if template.service != "s3":
        return {}
    nothing = [0] * n
    out = list(error_bytes) if not template.event.startswith("Head") else nothing
    into = nothing
    if template.flow:
        median = group.op.size or 300
        size = np.maximum(1, np.exp(group.rng.normal(np.log(median), _SPREAD, n))).astype(np.int64)
        if group.copies:
            size[-group.copies :] = size[: group.copies]
        sizes: list[int] = size.tolist()
        if template.flow == "in":
            into = sizes
        else:
            out = [b if f else s for s, f, b in zip(sizes, failed, out, strict=True)]
    return {"in": into, "out": out}


def _base64(group: RecordGroup, width: int, end: bytes = b"") -> list[bytes]:
    rows: Bytes = BASE64[group.rng.integers(0, 64, (len(group), width), np.uint8)]
    if end:
        rows[:, -len(end) :] = np.frombuffer(end, np.uint8)
    out = strings(rows)
    _mirror(group, out)
    return out


def _head(group: RecordGroup) -> list[bytes]:
    if group.template.caller == "service" and group.actors[group.actor[0]].kind.identity != "service":
        identity = f'{{"type":"AWSService","invokedBy":"{group.op.on}.amazonaws.com"}}'
        return [f'{{"eventVersion":"1.11","userIdentity":{identity},"eventTime":"'.encode()] * len(group)
    head, partner = group.sessions.head, group.sessions.partner_head
    ours = len(group) - group.copies
    return [head[s] for s in group.session[:ours]] + [partner[s] for s in group.session[ours:]]


def _net(group: RecordGroup) -> list[bytes]:
    if group.template.caller == "service" and group.actors[group.actor[0]].kind.identity != "service":
        return [f'{group.op.on}.amazonaws.com","userAgent":"{group.op.on}.amazonaws.com'.encode()] * len(group)
    nets = group.sessions.net_s3 if group.template.service == "s3" else group.sessions.net
    return [nets[s] for s in group.session]


def _number(group: RecordGroup) -> list[int]:
    top = {"UploadPart": 240, "Query": 100, "Scan": 64}.get(group.template.event, 90_000)
    out: list[int] = group.rng.integers(1, top, len(group)).tolist()
    return out


def _items(group: RecordGroup) -> list[bytes]:
    """Draw the keys of a batch read: 2 to 12 items, sometimes 40."""
    counts = group.rng.integers(2, 13, len(group))
    counts[group.rng.random(len(group)) < 0.05] = 40
    salts = np.array([r.salt for r in group.actors], np.uint64)[group.actor]
    draw = object_keys.Draw(group.rng, np.repeat(group.seconds, counts), np.repeat(salts, counts))
    flat = [b'{"pk":"%b","sk":"v0"}' % key for key in object_keys.make(group.op.key, draw)]
    ends = np.cumsum(counts).tolist()
    return [b",".join(flat[end - count : end]) for end, count in zip(ends, counts.tolist(), strict=True)]


def _expiry(group: RecordGroup) -> list[bytes]:
    """Return expiry times such as `Mar 2, 2026, 6:05:07 AM`, as STS writes them."""
    out = []
    for session in group.session:
        moment = datetime.fromtimestamp(group.sessions.expires[session], UTC)
        clock = f"{moment.hour % 12 or 12}:{moment:%M:%S} {'AM' if moment.hour < 12 else 'PM'}"
        out.append(f"{moment:%b} {moment.day}, {moment.year}, {clock}".encode())
    return out


def _shared(group: RecordGroup) -> list[bytes]:
    out = strings(uuid_rows(group.rng.integers(0, 256, (len(group), 16), np.uint8)))
    _mirror(group, out)
    return out


PLACEHOLDERS: dict[str, Callable[[RecordGroup], list[bytes] | list[int]]] = {
    "head": _head,
    "time": lambda group: iso_times(group.seconds),
    "net": _net,
    "xid": lambda group: _base64(group, 76, b"="),
    "shared": _shared,
    "num": _number,
    "items": _items,
    "token": lambda group: _base64(group, 520),
    "upload": lambda group: _base64(group, 96, b"--"),
    "arn": lambda group: [group.sessions.arn[s] for s in group.session],
    "akid": lambda group: [group.sessions.akid[s] for s in group.session],
    "name": lambda group: [group.sessions.name[s] for s in group.session],
    "expiry": _expiry,
}
"""Placeholder -> its column; key, err, ids, in and out are drawn together in `render`."""
