"""Describe findings in sentences, in English or Korean: templates as data, filled from the signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from zoneinfo import ZoneInfo

from trailsift.analysis.caller_names import has_no_arn
from trailsift.analysis.time_range import UTC_ZONE
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, is_arn
from trailsift.detect.callers import network_of
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.particles import Word
from trailsift.times import moment

Language = Literal["en", "ko"]
Clean = Callable[[str], str]

#: Kind -> sentence about a caller; ``_FIELDS`` fills it. In Korean, ``{value:을/를}`` appends the particle that fits.
_SENTENCES: dict[Language, dict[str, str]] = {
    "en": {
        "first_service": "used {value} for the first time ({calls})",
        "first_action": "called {value} for the first time ({calls}{on})",
        "first_resource": "accessed {value} for the first time ({calls})",
        "first_pattern": "{did} {objects} with a new key pattern, {value}{inside}",
        "first_network": "called from {value} for the first time ({calls})",
        "first_agent": "used the client {value} for the first time ({calls})",
        "first_endpoint": "called through the VPC endpoint {value} for the first time ({calls})",
        "first_account": "acted for the account {value} for the first time ({calls})",
        "first_hour": "was active at a time of day when it never was before ({calls})",
        "more_calls": "called {value} {times}, {peak}",
        "more_reads": "called {value} {times}, {peak}",
        "more_deletes": "called {value} {times}, {peak}",
        "more_bytes": "downloaded {size}, {peak}",
        "more_denied": "was denied {times}, {peak}",
        "many_resources": "tried {n} combinations of call and resource, {peak}",
        "detection": "{value} ({calls}{example})",
        "over_threshold": "called {value} {times} within an hour (threshold: {usual})",
        "unlike_itself": "behaved unusually in many small ways at once ({calls}): {parts}",
        "drip_bytes": "read {excess_size} more than usual from {target} over {days} days ({ratio}, {every})",
        "drip_reads": "called {name} {excess} times more than usual on {target} over {days} days ({ratio}, {every})",
        "burst": "did much at once: {parts}",
        "unlike_peers": "did more than the callers of its kind: {parts}",
        "split_session": "had one session, {value}, in two places: {parts}",
    },
    "ko": {
        "first_service": "{value} 서비스를 처음 사용함 ({calls})",
        "first_action": "{value:을/를} 처음 호출함, {calls}{on}",
        "first_resource": "{value}에 처음 접근함 ({calls})",
        "first_pattern": "새로운 종류의 객체 {value}{inside} {objects}를 {did}",
        "first_network": "{value} 네트워크에서 처음 접속함 ({calls})",
        "first_agent": "클라이언트 {value:을/를} 처음 사용함 ({calls})",
        "first_endpoint": "VPC 엔드포인트 {value:을/를} 처음 사용함 ({calls})",
        "first_account": "계정 {value:으로/로} 처음 활동함 ({calls})",
        "first_hour": "한 번도 활동한 적 없는 시간대에 {calls} 호출함",
        "more_calls": "{value} {times} 호출, {peak}",
        "more_reads": "{value} {times} 호출, {peak}",
        "more_deletes": "{value} {times} 호출, {peak}",
        "more_bytes": "{size}를 다운로드함, {peak}",
        "more_denied": "{times} 거부됨, {peak}",
        "many_resources": "호출과 리소스의 조합 {n}가지를 시도함, {peak}",
        "detection": "{value}: {example}",
        "over_threshold": "한 시간에 {value} {times} 호출 (기준 {usual}회)",
        "unlike_itself": "하나하나는 작지만 여러 면에서 한꺼번에 평소와 다름 (호출 {calls}): {parts}",
        "drip_bytes": "{days}일 동안 {target}에서 평소보다 {excess_size} 더 읽음 ({ratio}, {every})",
        "drip_reads": "{days}일 동안 {target}에 {name:을/를} 평소보다 {excess}회 더 호출함 ({ratio}, {every})",
        "burst": "짧은 시간에 많은 일을 함: {parts}",
        "unlike_peers": "같은 종류의 다른 호출자보다 많은 일을 함: {parts}",
        "split_session": "세션 {value}이(가) 두 곳에서 사용됨: {parts}",
    },
}
#: Feature of an outlier -> its amount, the expected amount, and its share of the deviation.
_FEATURES: dict[Language, dict[str, str]] = {
    "en": {
        "calls": "{amount} calls in an hour (usually {usual}; weight {share})",
        "kinds": "{amount} kinds of calls (usually {usual}; weight {share})",
        "resources": "{amount} combinations of call and resource (usually {usual}; weight {share})",
        "keys": "{amount} distinct keys (usually {usual}; weight {share})",
        "addresses": "{amount} source addresses (usually {usual}; weight {share})",
        "refused": "{amount} denied calls (usually {usual}; weight {share})",
        "failed": "{amount} other errors (usually {usual}; weight {share})",
        "bytes_in": "{amount} uploaded (usually {usual}; weight {share})",
        "bytes_out": "{amount} downloaded (usually {usual}; weight {share})",
        "writes": "{amount} mutating calls (usually {usual}; weight {share})",
        "rare": "{amount} calls that are rare for it (usually {usual}; weight {share})",
        "mix": "an unusual mix of calls (weight {share})",
    },
    "ko": {
        "calls": "한 시간에 호출 {amount}회 (평소 {usual}, 비중 {share})",
        "kinds": "호출 종류 {amount}가지 (평소 {usual}, 비중 {share})",
        "resources": "호출과 리소스의 조합 {amount}가지 (평소 {usual}, 비중 {share})",
        "keys": "서로 다른 키 {amount}개 (평소 {usual}, 비중 {share})",
        "addresses": "출발지 주소 {amount}개 (평소 {usual}, 비중 {share})",
        "refused": "거부 {amount}회 (평소 {usual}, 비중 {share})",
        "failed": "그 밖의 오류 {amount}회 (평소 {usual}, 비중 {share})",
        "bytes_in": "업로드 {amount} (평소 {usual}, 비중 {share})",
        "bytes_out": "다운로드 {amount} (평소 {usual}, 비중 {share})",
        "writes": "변경하는 호출 {amount}회 (평소 {usual}, 비중 {share})",
        "rare": "드물게 하던 호출 {amount}회 (평소 {usual}, 비중 {share})",
        "mix": "평소와 다른 호출 구성 (비중 {share})",
    },
}
#: Measure of a burst -> its amount and the usual one; ``_PLACE`` is where a session was used.
_MEASURES: dict[Language, dict[str, str]] = {
    "en": {
        "calls": "{amount} calls in an hour (usually at most {usual})",
        "kinds": "{amount} kinds of calls in an hour (usually at most {usual})",
        "resources": "{amount} resources in an hour (usually at most {usual})",
        "keys": "{amount} distinct keys in an hour (usually at most {usual})",
        "refused": "{amount} denied calls in an hour (usually at most {usual})",
        "bytes_in": "{amount} uploaded in an hour (usually at most {usual})",
        "bytes_out": "{amount} downloaded in an hour (usually at most {usual})",
        "writes": "{amount} mutating calls in an hour (usually at most {usual})",
        "deletes": "{amount} deletes in an hour (usually at most {usual})",
    },
    "ko": {
        "calls": "한 시간에 호출 {amount}회 (평소 {usual} 이하)",
        "kinds": "한 시간에 호출 종류 {amount}가지 (평소 {usual} 이하)",
        "resources": "한 시간에 리소스 {amount}개 (평소 {usual} 이하)",
        "keys": "한 시간에 서로 다른 키 {amount}개 (평소 {usual} 이하)",
        "refused": "한 시간에 거부 {amount}회 (평소 {usual} 이하)",
        "bytes_in": "한 시간에 업로드 {amount} (평소 {usual} 이하)",
        "bytes_out": "한 시간에 다운로드 {amount} (평소 {usual} 이하)",
        "writes": "한 시간에 변경하는 호출 {amount}회 (평소 {usual} 이하)",
        "deletes": "한 시간에 삭제 {amount}회 (평소 {usual} 이하)",
    },
}
_PLACE: dict[Language, str] = {"en": "{place} ({n} calls)", "ko": "{place} ({n}회)"}
_PHRASES: dict[Language, dict[str, str]] = {
    "en": {
        "title": "{caller} {what}, {when} ({zone})",
        "title of a detection": "{caller}: {what}, {when} ({zone})",
        "between": "between {first} and {last}",
        "at": "at {first}",
        "also": "; also {more}",
        "call": "1 call",
        "calls": "{n} calls",
        "object": "1 object",
        "objects": "{n} objects",
        "once": "once",
        "times": "{n} times",
        "peak": "{ratio}x its previous peak for this hour",
        "no peak": "normally none at this hour",
        "ratio": "{ratio}x the usual amount",
        "no ratio": "normally none",
        "every day": "every day",
        "some days": "on {n} of them",
        "on": " on {resource}",
        "inside": " in {resource}",
        "one example": ": {name}{on}",
        "example": ", e.g. {name}{on}",
        "no example": "",
        "anonymous": "anonymous caller",
        "anonymous of": "anonymous caller in {network}",
        "foreign": "caller from another account",
        "nobody": "unknown caller",
        "account": "account {account}",
        "of account": "{name} of account {account}",
        "identity-center": "Identity Center user {name}",
        "federated": "federated user {name}",
        "access-key": "access key {name}",
        "and": "{caller} and {last}",
        "others": "{caller} and {n} other callers",
    },
    "ko": {
        "title": "{caller}: {when} ({zone}), {what}",
        "title of a detection": "{caller}: {when} ({zone}), {what}",
        "between": "{first}~{last}",
        "at": "{first}",
        "also": "; 그리고 {more}",
        "call": "1회",
        "calls": "{n}회",
        "object": "1개",
        "objects": "{n}개",
        "once": "1회",
        "times": "{n}회",
        "peak": "같은 시간대 최대치의 {ratio}배",
        "no peak": "같은 시간대에는 없던 일",
        "ratio": "평소의 {ratio}배",
        "no ratio": "평소에는 없던 일",
        "every day": "매일",
        "some days": "그중 {n}일",
        "on": " ({resource})",
        "inside": " ({resource})",
        "one example": "{name} 1회{on}",
        "example": "{name} 등 {n}회{on}",
        "no example": "{n}회",
        "anonymous": "익명 호출자",
        "anonymous of": "{network} 네트워크의 익명 호출자",
        "foreign": "다른 계정의 호출자",
        "nobody": "신원을 알 수 없는 호출자",
        "account": "계정 {account}",
        "of account": "계정 {account}의 {name}",
        "identity-center": "Identity Center 사용자 {name}",
        "federated": "페더레이션 사용자 {name}",
        "access-key": "액세스 키 {name}",
        "and": "{caller}, {last}",
        "others": "{caller} 외 호출자 {n}명",
    },
}
_VERBS: dict[Language, dict[str, str]] = {
    "en": {"Get": "read", "Put": "wrote", "Delete": "deleted", "Upload": "wrote", "Copy": "copied", "": "touched"},
    "ko": {"Get": "읽음", "Put": "씀", "Delete": "삭제함", "Upload": "씀", "Copy": "복사함", "": "접근함"},
}
_NAMED = 3  # other callers that are named; more of them are counted
_REASONS = 6
_NO_RATIO = 1_000  # times the expected amount from which on the ratio says nothing
#: Kinds that are more informative than their rarity suggests come first.
_PROMINENCE = {"first_network": 1.6, "first_service": 1.6, "first_account": 1.6, "first_hour": 1.6, "first_action": 1.3}


def describe(finding: Finding, language: Language = "en", zone: ZoneInfo = UTC_ZONE, clean: Clean = str) -> Finding:
    """Return the finding with its title and reasons. ``clean`` sanitizes every string taken from a log."""
    writer = _Writer(language, clean)
    best: dict[str, Signal] = {}
    for signal in finding.signals:
        best.setdefault(signal.rule or signal.kind, signal)
    order = sorted(best.values(), key=lambda signal: -signal.rarity * _PROMINENCE.get(signal.kind, 1.0))
    reasons = [writer.sentence(signal) for signal in order]
    first, last = (
        f"{moment(time).astimezone(zone):%Y-%m-%d %H:%M}" for time in (finding.first_time, finding.last_time)
    )
    same_day = first[:10] == last[:10]
    title = writer.phrase(
        "title of a detection" if order[0].kind == "detection" else "title",
        caller=writer.callers(finding.callers or (finding.caller,), order[0]),
        what=reasons[0],
        when=writer.phrase("at" if first == last else "between", first=first, last=last[11:] if same_day else last),
        zone=zone.key,
    )
    if len(reasons) > 1:
        title += writer.phrase("also", more=_continued(reasons[1]))
    return replace(finding, title=title, reasons=tuple(reasons[:_REASONS]))


def _continued(sentence: str) -> str:
    """Return a sentence as the second part of another one: its first word in lower case, unless it is a name."""
    return sentence[:1].lower() + sentence[1:] if sentence.split(" ")[0][1:].islower() else sentence


@dataclass(frozen=True)
class _Writer:
    """Fills the templates of one language."""

    language: Language
    clean: Clean

    def phrase(self, name: str, /, **fields: str) -> str:
        return _PHRASES[self.language][name].format(**fields)

    def count(self, singular: str, plural: str, count: int) -> str:
        return self.phrase(singular if count == 1 else plural, n=f"{count:,}")

    def word(self, text: str) -> str:
        return Word(self.clean(text))

    def callers(self, callers: Sequence[str | None], leading_signal: Signal) -> str:
        """Return the leading caller, and the others by name or number."""
        leading, *others = (self.caller(caller, leading_signal) for caller in callers)
        if not others:
            return leading
        if len(others) > _NAMED:
            return self.phrase("others", caller=leading, n=str(len(others)))
        last = others.pop()
        return self.phrase("and", caller=", ".join([leading, *others]), last=last)

    def caller(self, caller: str | None, leading_signal: Signal) -> str:
        """Return the name of a caller; None is any without an ARN, in a lake of format version 1."""
        if caller is None:
            return self.phrase("foreign" if leading_signal.rule == "foreign-account" else "anonymous")
        if caller in (ANONYMOUS, NONE):
            return self.phrase("anonymous" if caller == ANONYMOUS else "nobody")
        if (network := network_of(caller)) is not None:
            return self.phrase("anonymous of", network=self.clean(network))
        if is_arn(caller) or not has_no_arn(caller):
            return self.clean(_short(caller))
        form, _, rest = caller.partition(":")
        if form == "account":
            account, _, name = rest.partition("/")
            kind = "of account" if name else "account"
            return self.phrase(kind, name=self.clean(name), account=self.clean(account))
        name = self.clean(_short(rest) or rest)
        return self.phrase(form, name=name) if form in _PHRASES[self.language] else name

    def sentence(self, signal: Signal) -> str:
        fields = {
            "value": self.word(signal.value),
            "n": f"{signal.events:,}",
            "calls": self.count("call", "calls", signal.events),
            "times": self.count("once", "times", signal.events),
        }
        return _SENTENCES[self.language][signal.kind].format(**fields | _FIELDS[signal.kind](signal, self))


_Fields = Callable[[Signal, _Writer], dict[str, str]]


def _plain(signal: Signal, writer: _Writer) -> dict[str, str]:
    return {}


def _first_action(signal: Signal, writer: _Writer) -> dict[str, str]:
    return {"on": _on(signal, writer, "on")}


def _first_resource(signal: Signal, writer: _Writer) -> dict[str, str]:
    return {"value": writer.word(_resource(signal.value))}


def _first_pattern(signal: Signal, writer: _Writer) -> dict[str, str]:
    verbs = _VERBS[writer.language]
    return {
        "value": writer.word(signal.value.removeprefix(f"{signal.resource_arn}/")),
        "objects": writer.count("object", "objects", signal.events),
        "did": next(verb for start, verb in verbs.items() if (signal.event_name or "").startswith(start)),
        "inside": _on(signal, writer, "inside"),
    }


def _surge(signal: Signal, writer: _Writer) -> dict[str, str]:
    usual = signal.usual
    ratio = writer.phrase("peak", ratio=_ratio(signal.events / usual)) if usual else writer.phrase("no peak")
    return {"size": _size(signal.events), "peak": ratio}


def _detection(signal: Signal, writer: _Writer) -> dict[str, str]:
    title = signal.value_ko if writer.language == "ko" else None
    example = "no example" if not signal.event_name else "one example" if signal.events == 1 else "example"
    name, on = writer.clean(signal.event_name or ""), _on(signal, writer, "on")
    return {
        "value": writer.word(title or signal.value),
        "example": writer.phrase(example, name=name, on=on, n=f"{signal.events:,}"),
    }


def _threshold(signal: Signal, writer: _Writer) -> dict[str, str]:
    return {"usual": f"{signal.usual or 0:,.0f}"}


def _outlier(signal: Signal, writer: _Writer) -> dict[str, str]:
    return {"parts": ", ".join(_part(part, writer.language) for part in signal.parts)}


def _measures(signal: Signal, writer: _Writer) -> dict[str, str]:
    texts = [
        _MEASURES[writer.language][name].format(amount=_sized(name, amount), usual=_sized(name, usual))
        for name, amount, usual, _ in signal.parts
        if name in _MEASURES[writer.language]
    ]
    return {"parts": ", ".join(texts)}


def _places(signal: Signal, writer: _Writer) -> dict[str, str]:
    places = [(writer.clean(place), f"{calls:,.0f}") for place, calls, *_ in signal.parts]
    return {"parts": ", ".join(_PLACE[writer.language].format(place=place, n=calls) for place, calls in places)}


def _sized(name: str, amount: float) -> str:
    return _size(amount) if name.startswith("bytes") else _count(amount)


def _low_and_slow(signal: Signal, writer: _Writer) -> dict[str, str]:
    _, excess, days, above = signal.parts[0] if signal.parts else ("over", signal.events, 1, 1)
    resource, usual = signal.resource_arn or signal.value, signal.usual
    ratio = "ratio" if usual and signal.events < _NO_RATIO * usual else "no ratio"
    return {
        "name": writer.word(signal.event_name or ""),
        "target": writer.word(_resource(resource) + signal.value.removeprefix(resource)),
        "excess": f"{excess:,.0f}",
        "excess_size": _size(excess),
        "days": f"{days:.0f}",
        "ratio": writer.phrase(ratio, ratio=_ratio(signal.events / (usual or 1))),
        "every": writer.phrase("every day" if above >= days else "some days", n=f"{above:.0f}"),
    }


#: Kind -> what its sentence needs besides ``value``, ``n``, ``calls`` and ``times``.
_FIELDS: dict[str, _Fields] = {
    "first_service": _plain,
    "first_action": _first_action,
    "first_resource": _first_resource,
    "first_pattern": _first_pattern,
    "first_network": _plain,
    "first_agent": _plain,
    "first_endpoint": _plain,
    "first_account": _plain,
    "first_hour": _plain,
    "more_calls": _surge,
    "more_reads": _surge,
    "more_deletes": _surge,
    "more_bytes": _surge,
    "more_denied": _surge,
    "many_resources": _surge,
    "detection": _detection,
    "over_threshold": _threshold,
    "unlike_itself": _outlier,
    "drip_bytes": _low_and_slow,
    "drip_reads": _low_and_slow,
    "burst": _measures,
    "unlike_peers": _measures,
    "split_session": _places,
}


def _on(signal: Signal, writer: _Writer, phrase: str) -> str:
    resource = signal.resource_arn
    return writer.phrase(phrase, resource=writer.clean(_resource(resource))) if resource else ""


def _part(part: tuple[str, float, float, float], language: Language) -> str:
    """Describe one feature of an outlier."""
    feature, amount, usual, share = part
    form = _size if feature.startswith("bytes") else _count
    return _FEATURES[language][feature].format(amount=form(amount), usual=form(usual), share=f"{share:.0%}")


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _short(arn: str) -> str:
    return arn.rpartition("/")[2] if "/" in arn else arn


def _resource(arn: str) -> str:
    return arn.rpartition(":")[2] or arn


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
