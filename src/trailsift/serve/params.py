"""Parameters of requests: declared once, read with errors in words, and described to OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trailsift.analysis.filters import NAMES
from trailsift.errors import UsageError
from trailsift.serve.options import LANGUAGES

#: Characters of a value: a statement of SQL is the longest.
LONGEST = 20_000


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. ``most``: of an integer, the largest value; the smallest is ``least``."""

    name: str
    says: str
    kind: Literal["text", "integer", "flag"] = "text"
    choices: tuple[str, ...] = ()
    default: Any = None
    required: bool = False
    repeated: bool = False
    least: int = 0
    most: int = 10_000
    example: Any = None

    def read(self, values: Sequence[str]) -> Any:
        """Return the value of a request. Raise UsageError if it is not one."""
        if not values:
            if self.required:
                raise UsageError(f"the parameter {self.name} is missing: {self.says}")
            return () if self.repeated else self.default
        if any(len(value) > LONGEST or "\0" in value for value in values):
            raise UsageError(f"the parameter {self.name} has more than {LONGEST:,} characters, or a null character")
        if self.repeated:
            return tuple(values)
        if len(values) > 1:
            raise UsageError(f"the parameter {self.name} is given {len(values)} times: give it once")
        return self._one(values[0])

    def _one(self, value: str) -> Any:
        if self.kind == "flag":
            if value.lower() not in ("true", "false", "1", "0"):
                raise UsageError(f"{self.name}={value!r}: use true or false")
            return value.lower() in ("true", "1")
        if self.kind == "integer":
            number = int(value) if value.isascii() and value.isdigit() and len(value) < 17 else -1
            if not self.least <= number <= self.most:
                raise UsageError(f"{self.name}={value!r}: use a whole number from {self.least} to {self.most:,}")
            return number
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name}={value!r}: choose from {', '.join(self.choices)}")
        return value

    def described(self) -> dict[str, Any]:
        """Return the parameter for OpenAPI."""
        schema: dict[str, Any] = {"type": {"text": "string", "integer": "integer", "flag": "boolean"}[self.kind]}
        if self.kind == "integer":
            schema |= {"minimum": self.least, "maximum": self.most}
        if self.kind == "text":
            schema["maxLength"] = LONGEST
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.default is not None:
            schema["default"] = self.default
        if self.repeated:
            schema = {"type": "array", "items": schema}
        described = {"name": self.name, "in": "query", "description": self.says, "required": self.required}
        return {**described, "schema": schema, **({} if self.example is None else {"example": self.example})}


SINCE = Param("since", "Start of the period: ISO 8601, or relative such as -7d. Default: the lake's first hour.")
UNTIL = Param("until", "End of the period, not included. Default: the lake's last hour.")
ZONE = Param("timezone", "IANA name of the zone in which times without an offset are read.", example="Asia/Seoul")
LANG = Param("lang", "Language of sentences and errors. Default: what the browser prefers.", choices=LANGUAGES)
FILTERS = tuple(
    Param(name, f"Only this {name}; repeat it for any of several. An empty value: events without one.", repeated=True)
    if name != "outcome"
    else Param(name, "Only calls that were ok, denied or failed for another reason.", repeated=True)
    for name in NAMES
)


def read(params: Iterable[Param], given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the values of all parameters. Raise UsageError for one that is unknown, missing or wrong."""
    known = {param.name: param for param in params}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"there is no parameter {unknown[0]!r} here: there are {', '.join(known)}")
    return {name: param.read(given.get(name, ())) for name, param in known.items()}


def filters_in(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the filters among the values of a request."""
    return {name: values[name] for name in NAMES if values.get(name)}
