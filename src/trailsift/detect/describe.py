"""A finding in words, in English or Korean: sentences as data, filled from its signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal
from zoneinfo import ZoneInfo

from trailsift.detect.finding import DRIPS, Finding, Signal
from trailsift.times import UTC_ZONE, moment

Language = Literal["en", "ko"]

#: Kind -> sentence about a role. {n} is a number of calls, {times} says how often what was usual.
_SENTENCES: dict[Language, dict[str, str]] = {
    "en": {
        "first_service": "used {value} for the first time ({n} calls)",
        "first_action": "called {value} for the first time, {n} times{on}",
        "first_resource": "touched {value} for the first time ({n} calls)",
        "first_pattern": "{did} {n} objects of a new kind, {value}{on}",
        "first_network": "came from {value} for the first time ({n} calls)",
        "first_agent": "used the client {value} for the first time ({n} calls)",
        "first_endpoint": "came through the VPC endpoint {value} for the first time ({n} calls)",
        "first_account": "acted for the account {value} for the first time ({n} calls)",
        "first_hour": "made {n} calls at a time of the day at which it never worked",
        "more_calls": "called {value} {n} times, {times}",
        "more_reads": "called {value} {n} times, {times}",
        "more_deletes": "called {value} {n} times, {times}",
        "more_bytes": "took out {size}, {times}",
        "more_denied": "was refused {n} times, {times}",
        "many_resources": "tried {n} combinations of call and resource, {times}",
        "detection": "- {value}: {n} calls such as {name}{on}",
        "over_threshold": "called {value} {n} times within the hour, where {usual} is the limit",
        "unlike_itself": "was unlike itself in many ways at once, each of them small ({n} calls): {parts}",
        "drip_bytes": "read {over_size} more of {drip} than its habit over {days} days ({habit}, {every})",
        "drip_reads": "called {name} {over} times more on {drip} than its habit over {days} days ({habit}, {every})",
    },
    "ko": {
        "first_service": "{value} 서비스를 처음 사용함 ({n}회)",
        "first_action": "{value}을(를) 처음 호출함, {n}회{on}",
        "first_resource": "{value}에 처음 접근함 ({n}회)",
        "first_pattern": "새로운 종류의 객체 {value}{on} {n}개를 {did}",
        "first_network": "{value} 네트워크에서 처음 접속함 ({n}회)",
        "first_agent": "클라이언트 {value}을(를) 처음 사용함 ({n}회)",
        "first_endpoint": "VPC 엔드포인트 {value}을(를) 처음 사용함 ({n}회)",
        "first_account": "계정 {value}(으)로 처음 활동함 ({n}회)",
        "first_hour": "한 번도 활동한 적 없는 시간대에 {n}회 호출함",
        "more_calls": "{value} {n}회 호출, {times}",
        "more_reads": "{value} {n}회 호출, {times}",
        "more_deletes": "{value} {n}회 호출, {times}",
        "more_bytes": "{size}를 내보냄, {times}",
        "more_denied": "{n}회 거부됨, {times}",
        "many_resources": "호출과 리소스의 조합 {n}가지를 시도함, {times}",
        "detection": "{value}: {name} 등 {n}회{on}",
        "over_threshold": "한 시간에 {value} {n}회 호출, 한도는 {usual}회",
        "unlike_itself": "하나하나는 작지만 여러 면에서 한꺼번에 평소와 다름 (호출 {n}회): {parts}",
        "drip_bytes": "{days}일 동안 {drip}에서 평소보다 {over_size} 더 읽음 ({habit}, {every})",
        "drip_reads": "{days}일 동안 {drip}에 {name}을(를) 평소보다 {over}회 더 호출함 ({habit}, {every})",
    },
}
#: Features of an odd hour -> how much of it there was and how much is usual.
_FEATURES: dict[Language, dict[str, str]] = {
    "en": {
        "calls": "{much} calls in an hour ({usual} usual, {share} of it)",
        "kinds": "{much} kinds of calls ({usual} usual, {share} of it)",
        "resources": "{much} combinations of call and resource ({usual} usual, {share} of it)",
        "keys": "{much} different keys ({usual} usual, {share} of it)",
        "addresses": "{much} source addresses ({usual} usual, {share} of it)",
        "refused": "{much} refusals ({usual} usual, {share} of it)",
        "failed": "{much} other errors ({usual} usual, {share} of it)",
        "bytes_in": "{much} brought in ({usual} usual, {share} of it)",
        "bytes_out": "{much} taken out ({usual} usual, {share} of it)",
        "writes": "{much} calls that change something ({usual} usual, {share} of it)",
        "seldom": "{much} calls that it seldom makes ({usual} usual, {share} of it)",
        "mix": "an unusual mix of calls ({share} of it)",
    },
    "ko": {
        "calls": "한 시간에 호출 {much}회 (평소 {usual}, 비중 {share})",
        "kinds": "호출 종류 {much}가지 (평소 {usual}, 비중 {share})",
        "resources": "호출과 리소스의 조합 {much}가지 (평소 {usual}, 비중 {share})",
        "keys": "서로 다른 키 {much}개 (평소 {usual}, 비중 {share})",
        "addresses": "출발지 주소 {much}개 (평소 {usual}, 비중 {share})",
        "refused": "거부 {much}회 (평소 {usual}, 비중 {share})",
        "failed": "그 밖의 오류 {much}회 (평소 {usual}, 비중 {share})",
        "bytes_in": "들여온 양 {much} (평소 {usual}, 비중 {share})",
        "bytes_out": "내보낸 양 {much} (평소 {usual}, 비중 {share})",
        "writes": "변경하는 호출 {much}회 (평소 {usual}, 비중 {share})",
        "seldom": "드물게 하던 호출 {much}회 (평소 {usual}, 비중 {share})",
        "mix": "평소와 다른 호출 구성 (비중 {share})",
    },
}
_TIMES = {
    "en": ("{ratio} times its most so far at this time of the day", "where none is usual at this time of the day"),
    "ko": ("같은 시간대 최대치의 {ratio}배", "같은 시간대에는 없던 일"),
}
#: Of a drip: how often its habit it was, and on how many of its days.
_HABIT = {"en": ("{ratio} times", "where none is usual"), "ko": ("평소의 {ratio}배", "평소에는 없던 일")}
_EVERY = {"en": ("every day", "on {n} of them"), "ko": ("매일", "그중 {n}일")}
_BETWEEN = {"en": "{role} {what}, between {first} and {last} ({zone})", "ko": "{role}: {first}~{last} ({zone}), {what}"}
_AND = {"en": "; it also {more}", "ko": "; 또한 {more}"}
_ON = {"en": " of {resource}", "ko": " ({resource})"}
_DID = {
    "en": {"Get": "read", "Put": "wrote", "Delete": "deleted", "Upload": "wrote", "Copy": "copied", "": "touched"},
    "ko": {"Get": "읽음", "Put": "씀", "Delete": "삭제함", "Upload": "씀", "Copy": "복사함", "": "접근함"},
}
_ANONYMOUS = {"en": "someone without a role", "ko": "역할 없는 호출자"}
_WITH = {"en": "{role} and {last}", "ko": "{role}, {last}"}
_MANY = {"en": "{role} and {n} other roles", "ko": "{role} 외 역할 {n}개"}
_NAMED = 3  # other roles that are named; more of them are counted
_REASONS = 6
_NONE = 1_000  # times the habit from which on there was none
#: What says more to a person than its rarity does comes first in a sentence.
_TELLING = {"first_network": 1.6, "first_service": 1.6, "first_account": 1.6, "first_hour": 1.6, "first_action": 1.3}


def describe(
    finding: Finding, language: Language = "en", zone: ZoneInfo = UTC_ZONE, clean: Callable[[str], str] = str
) -> Finding:
    """The finding with its title and reasons. ``clean`` is put over every text of a log."""
    role = _company(finding.role_arns or (finding.role_arn,), language, clean)
    best: dict[str, Signal] = {}
    for signal in finding.signals:
        best.setdefault(signal.rule or signal.kind, signal)
    order = sorted(best.values(), key=lambda signal: -signal.decades * _TELLING.get(signal.kind, 1.0))
    told = [_sentence(signal, language, clean) for signal in order]
    first, last = (moment(time).astimezone(zone) for time in (finding.first_time, finding.last_time))
    same_day = first.date() == last.date()
    title = _BETWEEN[language].format(
        role=role,
        what=told[0],
        first=f"{first:%Y-%m-%d %H:%M}",
        last=f"{last:%H:%M}" if same_day else f"{last:%Y-%m-%d %H:%M}",
        zone=zone.key,
    )
    if len(told) > 1:
        title += _AND[language].format(more=told[1])
    return replace(finding, title=title, reasons=tuple(told[:_REASONS]))


def _company(roles: Sequence[str | None], language: Language, clean: Callable[[str], str]) -> str:
    """The leading role, and the others by name or number."""
    leading, *others = (clean(_short(role)) if role else _ANONYMOUS[language] for role in roles)
    if not others:
        return leading
    if len(others) > _NAMED:
        return _MANY[language].format(role=leading, n=len(others))
    last = others.pop()
    return _WITH[language].format(role=", ".join([leading, *others]), last=last)


def _sentence(signal: Signal, language: Language, clean: Callable[[str], str]) -> str:
    value, resource = signal.value, signal.resource_arn
    if language == "ko":
        value = signal.value_ko or value
    on = ""
    if signal.kind == "first_pattern" and resource:
        value = value.removeprefix(resource + "/")
    if signal.kind == "first_resource":
        value = _resource(value)
    if signal.kind in ("first_pattern", "first_action", "detection") and resource:
        on = _ON[language].format(resource=clean(_resource(resource)))
    verbs = _DID[language]
    did = next(verbs[start] for start in verbs if (signal.event_name or "").startswith(start))
    ratio, never = _TIMES[language]
    times = never if not signal.usual else ratio.format(ratio=_ratio(signal.events / signal.usual))
    _, over, days, above = signal.parts[0] if signal.kind in DRIPS and signal.parts else ("over", signal.events, 1, 1)
    multiple, none = _HABIT[language]
    whole = not signal.usual or signal.events >= _NONE * signal.usual
    always, sometimes = _EVERY[language]
    return _SENTENCES[language][signal.kind].format(
        value=clean(value),
        n=f"{signal.events:,}",
        size=_size(signal.events),
        times=times,
        usual=f"{signal.usual or 0:,.0f}",
        on=on,
        name=clean(signal.event_name or ""),
        did=did,
        parts=", ".join(_part(part, language) for part in signal.parts) if signal.kind == "unlike_itself" else "",
        drip=clean(_resource(resource or value) + value.removeprefix(resource or value)),
        over=f"{over:,.0f}",
        over_size=_size(over),
        days=f"{days:.0f}",
        habit=none if whole else multiple.format(ratio=_ratio(signal.events / (signal.usual or 1))),
        every=always if above >= days else sometimes.format(n=f"{above:.0f}"),
    )


def _part(part: tuple[str, float, float, float], language: Language) -> str:
    """One feature of an odd hour, with its part in the whole."""
    feature, much, usual, share = part
    told = _size if feature.startswith("bytes") else _count
    return _FEATURES[language][feature].format(much=told(much), usual=told(usual), share=f"{share:.0%}")


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
