"""Errors as JSON: a code, what failed, and what to do, in the reader's language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Scope

from trailsift.errors import (
    EngineError,
    GlueError,
    LakeError,
    QueryError,
    QueryMemoryError,
    QueryTimeoutError,
    RulesError,
    S3Error,
    SnapshotGoneError,
    SourceError,
    TrailsiftError,
    UsageError,
)
from trailsift.runtime import shortage
from trailsift.safe_text import safe_lines
from trailsift.serve.options import LANGUAGES
from trailsift.serve.texts import text

#: Class of an error -> (HTTP status, code). The first that fits counts.
_CODES: tuple[tuple[type[TrailsiftError], int, str], ...] = (
    (QueryError, 400, "bad_query"),
    (RulesError, 400, "bad_rules"),
    (UsageError, 400, "bad_request"),
    (QueryTimeoutError, 504, "too_slow"),
    (QueryMemoryError, 503, "too_large"),
    (EngineError, 500, "engine_failed"),
    (SnapshotGoneError, 503, "lake_moved_on"),
    (S3Error, 502, "s3_failed"),
    (GlueError, 502, "glue_failed"),
    (SourceError, 404, "not_found"),
    (LakeError, 503, "lake_failed"),
    (TrailsiftError, 500, "failed"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the API gives it. ``detail``: what failed, on what; in English, as on the command line."""

    status: int
    code: str
    detail: str

    def as_dict(self, language: str) -> dict[str, dict[str, str]]:
        """Return the JSON object."""
        return {
            "error": {
                "code": self.code,
                "title": text(language, f"error.{self.code}"),
                "message": safe_lines(self.detail),
                "to_do": text(language, f"error.{self.code}.to_do"),
            }
        }


def problem_of(error: BaseException) -> Problem:
    """Return what is said about an error: of one that is not ours, nothing but its type and its first line."""
    if isinstance(error, TrailsiftError):
        status, code = next((status, code) for kind, status, code in _CODES if isinstance(error, kind))
        return Problem(status, code, str(error))
    if advice := shortage(error):
        return Problem(503, "too_large", advice)
    line = str(error).split("\n", 1)[0][:300]
    return Problem(500, "defect", f"unexpected {type(error).__name__}: {line}")


def problem_response(problem: Problem, scope: Scope) -> JSONResponse:
    """Return the answer to a request that failed."""
    headers = {"www-authenticate": "Bearer"} if problem.status == 401 else None
    return JSONResponse(problem.as_dict(language_of(scope)), problem.status, headers)


def language_of(scope: Scope) -> str:
    """Return the language of a request: its parameter ``lang``, else what the browser prefers, else English."""
    query: bytes = scope.get("query_string", b"")
    wanted = parse_qs(query.decode("latin-1")).get("lang", [""])[0]
    if wanted in LANGUAGES:
        return wanted
    preferred = re.split(r"[,;]", Headers(scope=scope).get("accept-language", ""))
    return next((tag[:2].lower() for tag in map(str.strip, preferred) if tag[:2].lower() in LANGUAGES), "en")
