"""The endpoints of the API, in the order of the documentation: each is a method of ``trailsift.Lake``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args

from trailsift.analysis.activity import STACKS
from trailsift.analysis.explain import Against
from trailsift.analysis.summary import GROUPS
from trailsift.api import Lake
from trailsift.errors import UsageError
from trailsift.query.json_objects import plain
from trailsift.query.relations import described, functions
from trailsift.safe_text import safe
from trailsift.serve.answers import FORMATS, Answer, Body, of_query, table_of
from trailsift.serve.options import ServeOptions
from trailsift.serve.params import FILTERS, LANG, SINCE, UNTIL, ZONE, Param, filters_in
from trailsift.serve.redact import mask_text

if TYPE_CHECKING:
    from trailsift.api.query import Group

#: Values of the request's parameters by name.
Values = Mapping[str, Any]


#: Seconds for which an answer holds that depends on the lake's commit alone, on verdicts too, and on the clock.
ALWAYS, A_MOMENT, NOW = inf, 15.0, 2.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. ``run`` works in a thread.

    ``keeps``: for how many seconds the same request on the same commit has the same answer; 0: it is always run again.
    """

    path: str
    says: str
    run: Callable[[Lake, ServeOptions, Values], Answer | Body]
    params: tuple[Param, ...] = ()
    method: Literal["GET", "POST"] = "GET"
    keeps: float = ALWAYS
    is_table: bool = False

    @property
    def all_params(self) -> tuple[Param, ...]:
        """The parameters, with those that every endpoint has."""
        formats = tuple(FORMATS) if self.is_table else ("json",)
        says = "Format of the answer."
        return (*self.params, LANG, Param("format", says, choices=formats, default="json"))


def _limit(says: str, default: int, most: int = 1_000) -> Param:
    return Param("limit", says, "integer", default=default, most=most)


_PERIOD = (SINCE, UNTIL, ZONE)


def _activity(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.activity(
        values["by"],
        since=values["since"],
        until=values["until"],
        filters=filters_in(values),
        limit=values["limit"],
    )
    return Answer(found, lambda: found.table)


def _explain(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.explain_change(
        since=values["since"],
        until=values["until"],
        against=values["against"],
        filters=filters_in(values),
        limit=values["limit"],
    )
    return Answer(found, lambda: found.table)


def _arrivals(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.arrivals(values["after"], limit=values["limit"])
    return Answer(found, table_of(found.rows))


def _summary(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    by: Group = values["by"]
    found = lake.summary(by, since=values["since"], until=values["until"], limit=values["limit"])
    return Answer(found, table_of(found.records))


def _callers(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.roles(since=values["since"], until=values["until"])
    return Answer({"total": len(found), "callers": found[: options.max_rows]}, table_of(found))


def _caller(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    return Answer(lake.role(values["name"], since=values["since"], until=values["until"]))


def _resource(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    return Answer(lake.resource(values["name"], since=values["since"], until=values["until"]))


def _object(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.object(values["name"], since=values["since"], until=values["until"], limit=values["limit"])
    return Answer(found, table_of(found.touches))


def _search(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    return Answer(lake.search(values["term"], since=values["since"], until=values["until"], limit=values["limit"]))


def _compare(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.compare(since=values["since"], until=values["until"], limit=values["limit"])
    return Answer(found, lambda: found.table)


def _cost(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    return Answer(lake.cost(since=values["since"], until=values["until"], limit=values["limit"]))


def _suggestions(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.suggest(values["limit"])
    return Answer({**found.as_dict(), "toml": found.toml}, table_of(found.lines))


def _clean(options: ServeOptions) -> Callable[[str], str]:
    return (lambda text: safe(mask_text(text))) if options.redact else safe


def _findings(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.detect(
        since=values["since"],
        until=values["until"],
        budget=values["budget"],
        muted=values["muted"],
        language=values["lang"] or "en",
        clean=_clean(options),
    )
    problems = [plain(problem) for problem in found.problems]
    listed = [finding.as_dict() for finding in found.findings]
    return Answer(
        {"findings": listed, "problems": problems, "not_judged": list(found.not_judged), "days_read": found.days},
        table_of(listed),
    )


def _finding(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    detail = lake.finding(values["id"], limit=values["limit"], language=values["lang"] or "en", clean=_clean(options))
    return Answer(detail.as_dict())


def _judge(word: Literal["mute", "confirm"]) -> Callable[[Lake, ServeOptions, Values], Answer]:
    def run(lake: Lake, options: ServeOptions, values: Values) -> Answer:
        verdict = (lake.mute if word == "mute" else lake.confirm)(values["id"], values["reason"])
        return Answer({"id": verdict.id, "word": verdict.word, "reason": verdict.reason})

    return run


def _status(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    found = lake.status()
    return Answer(found, table_of(found.tables))


def _rejects(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    return Answer(lake.rejects(values["limit"]))


def _query(lake: Lake, options: ServeOptions, values: Values) -> Answer | Body:
    if options.redact:
        raise UsageError("this server masks what it serves (--redact): statements of one's own cannot be masked")
    most = min(values["limit"], options.max_rows)
    result = lake.query(values["sql"], arrow=values["format"] in ("arrow", "parquet"))
    return of_query(result, values["format"], most)


def _tables(lake: Lake, options: ServeOptions, values: Values) -> Answer:
    tables = [
        {
            "name": table.name,
            "says": table.meaning,
            "columns": [{"name": c.name, "type": c.type, "says": c.meaning} for c in table.columns],
        }
        for table in described()
    ]
    return Answer({"tables": tables, "functions": functions()})


_NAME = Param("name", "A whole name or ARN, or a part that no other has.", required=True)
_ID = Param("id", "Id of a finding, or a prefix of it that no other has.", required=True)
_REASON = Param("reason", "Why; it is kept in the lake.", required=True)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "activity",
        "Events over time by one column, the same hours a week before, totals, and the largest of each kind.",
        _activity,
        (
            *_PERIOD,
            Param("by", "What the events are split by.", choices=tuple(STACKS), default="service"),
            _limit("Lines of each list.", 8),
            *FILTERS,
        ),
        is_table=True,
    ),
    Endpoint(
        "explain",
        "What is different in a stretch of time: the values that explain the difference, ranked.",
        _explain,
        (
            Param("since", "Start of the stretch.", required=True),
            Param("until", "End of the stretch, not included.", required=True),
            ZONE,
            Param(
                "against",
                "The time before, or the same hours of the weeks before.",
                choices=get_args(Against),
                default="before",
            ),
            _limit("Differences at most; 0 is all.", 20),
            *FILTERS,
        ),
        is_table=True,
    ),
    Endpoint(
        "arrivals",
        "The newest events among what commits have brought.",
        _arrivals,
        (
            Param(
                "after",
                "Number of the last commit seen. Default: only the newest commit.",
                "integer",
                most=2**53,
                least=0,
            ),
            _limit("Events at most.", 50),
        ),
        is_table=True,
    ),
    Endpoint(
        "summary",
        "Totals of one kind of group, the largest first.",
        _summary,
        (*_PERIOD, Param("by", "The groups.", choices=tuple(GROUPS), default="event"), _limit("Groups at most.", 100)),
        is_table=True,
    ),
    Endpoint("callers", "All callers with their totals, the busiest first.", _callers, _PERIOD, is_table=True),
    Endpoint("caller", "One caller: actions, resources, origins, hours, denied calls.", _caller, (_NAME, *_PERIOD)),
    Endpoint("resource", "One resource: who uses it, how, and from where.", _resource, (_NAME, *_PERIOD)),
    Endpoint(
        "object",
        "Every call that touched an object, the last one first.",
        _object,
        (
            Param("name", "BUCKET/KEY; * in the key stands for any text.", required=True),
            *_PERIOD,
            _limit("Calls at most.", 100),
        ),
        is_table=True,
    ),
    Endpoint(
        "search",
        "A term wherever it can be: an address, key, ARN, id, or a part of a name.",
        _search,
        (Param("term", "What to look for.", required=True), *_PERIOD, _limit("Lines of each kind.", 10)),
    ),
    Endpoint(
        "compare",
        "What is new, gone, more or less in a period than in as many days before.",
        _compare,
        (Param("since", "Start of the period.", required=True), UNTIL, ZONE, _limit("Differences at most.", 20)),
        is_table=True,
    ),
    Endpoint(
        "cost",
        "What a trail charges for the events, by group, in dollars a month.",
        _cost,
        (*_PERIOD, _limit("Lines of each group.", 8)),
    ),
    Endpoint(
        "suggestions", "Rules for large, steady volume.", _suggestions, (_limit("Suggestions.", 10),), is_table=True
    ),
    Endpoint(
        "findings",
        "What is unusual, the most important first.",
        _findings,
        (
            *_PERIOD,
            Param("budget", "Findings per day at most; 0 is all.", "integer", default=10, most=1_000),
            Param("muted", "Muted findings too.", "flag", default=False),
        ),
        keeps=A_MOMENT,
        is_table=True,
    ),
    Endpoint(
        "finding",
        "One finding with its evidence and its events.",
        _finding,
        (_ID, ZONE, _limit("Events at most, the first ones.", 20)),
        keeps=A_MOMENT,
    ),
    Endpoint(
        "finding/mute",
        "Mark a finding as benign: it is hidden until it grows by half.",
        _judge("mute"),
        (_ID, _REASON),
        "POST",
        keeps=0,
    ),
    Endpoint(
        "finding/confirm", "Mark a finding as a real incident.", _judge("confirm"), (_ID, _REASON), "POST", keeps=0
    ),
    Endpoint(
        "status",
        "The lake: tables, counts that add up, how far it is behind, gaps, what to do.",
        _status,
        keeps=NOW,
        is_table=True,
    ),
    Endpoint("rejects", "What could not be stored, and why.", _rejects, (_limit("Records at most, the newest.", 50),)),
    Endpoint(
        "query",
        "One read-only statement of SQL.",
        _query,
        (
            Param("sql", "The statement.", required=True, example="SELECT service, count(*) FROM events GROUP BY 1"),
            ZONE,
            _limit("Rows of JSON at most.", 1_000, 1_000_000),
        ),
        keeps=0,
        is_table=True,
    ),
    Endpoint("tables", "The tables, their columns, and the functions of a statement.", _tables),
)
