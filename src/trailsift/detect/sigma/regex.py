"""Regular expressions of rules: checked by RE2, as DuckDB runs them, and quietly.

pySigma's own engine lets RE2 write what it refuses on standard error, as it is.
"""

from __future__ import annotations

import re
from typing import Any

from sigma.policy import SigmaPolicy
from sigma.policy.regex_engine import RE2RegexEngine

_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s"}


class RefusedRegexError(Exception):
    """An expression that RE2 does not compile, with its reason."""


class QuietEngine(RE2RegexEngine):
    """RE2 without its log."""

    def compile(self, pattern: str, flags: int = 0) -> Any:
        """Return the compiled expression. Raise RefusedRegexError if it is not one of RE2's."""
        options = self._re2.Options()
        options.log_errors = False
        prefix = "".join(sign for flag, sign in _FLAGS.items() if int(flags) & int(flag))
        try:
            return self._re2.compile(f"(?{prefix}){pattern}" if prefix else pattern, options)
        except self._re2.error as error:
            reason = error.args[0] if error.args else ""
            text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            raise RefusedRegexError(text) from None

    @property
    def error(self) -> type[Exception]:
        """The error that `compile` raises."""
        return RefusedRegexError


POLICY = SigmaPolicy(regex_engine=QuietEngine())
