"""Quoting for commands that a person can copy into a shell."""

from trailsift.safe_text import double_quoted, quoted

__all__ = ["double_quoted", "quoted"]
