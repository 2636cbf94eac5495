"""Foreign text for a terminal, a shell and a chat: without the characters that would steer it.

Whoever calls AWS writes user agents, object keys and error messages; whoever made a lake or a log file writes the rest.
Everything that is printed therefore passes ``safe`` (one line), ``safe_lines`` (text whose line ends are ours) or
``safe_json`` (JSON, which stays the same document). A command to copy passes ``quoted`` word by word.

Escaped are, by their Unicode category: control characters (Cc: ESC, CR, BEL, and C1 such as U+009B, which xterm takes
for ESC [), format characters (Cf: directions, zero-width characters, tags, soft hyphens), line and paragraph separators
(Zl, Zp), lone surrogates (Cs), private and unassigned characters (Co, Cn: nobody knows how a terminal shows them); and
the invisible letters and marks in ``_BLANKS``. A zero-width joiner or a variation selector stays within an emoji, which
it belongs to, and nowhere else: the price is that Persian or Hindi text shows an escape for its joiners. A blank of any
width is a blank; letters of any script, Korean ones above all, stay as they are.
"""

from __future__ import annotations

import unicodedata

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import: a command that prints one line does not wait for it
if TYPE_CHECKING:
    from collections.abc import Callable

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Invisible, although their categories are those of letters and marks: Hangul fillers, the combining grapheme joiner,
#: Khmer inherent vowels, Mongolian and other variation selectors, the blank braille pattern.
_BLANKS = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
_JOINER, _EMOJI_STYLE, _KEYCAP = "\u200d", "\ufe0f", "\u20e3"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str) -> str:
    r"""Return foreign text as one harmless line: ``\n``, ``\u001b``, ``\U000e0041`` stand for what was escaped."""
    return _escaped(text, _escape)


def safe_lines(text: str) -> str:
    r"""Return text of several lines, each made harmless. Its ``\n`` stay: they must not come from a log."""
    return "\n".join(map(safe, text.split("\n")))


def safe_json(text: str) -> str:
    r"""Return a JSON text that parses to the same value, without unsafe characters; line ends between values stay."""
    return "\n".join(_escaped(line, _json_escape) for line in text.split("\n"))


def safe_toml(text: str) -> str:
    r"""Return text as a TOML string: what is shown, and copied from a terminal, is what is parsed."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{safe(escaped)}"'


def is_safe(text: str) -> bool:
    """Return whether ``safe`` leaves a text as it is."""
    return safe(text) == text


def quoted(value: object) -> str:
    """Return a value as one word of a shell command."""
    import shlex

    text = str(value)
    return shlex.quote(text) if is_safe(text) else _ansi_c(text)


def double_quoted(sql: str) -> str:
    """Return SQL as one word of a shell command, in double quotes, because SQL itself uses single ones."""
    if not is_safe(sql) or "!" in sql:
        # An exclamation mark in double quotes recalls an earlier command in an interactive shell.
        return quoted(sql)
    for sign in ("\\", '"', "$", "`"):
        sql = sql.replace(sign, "\\" + sign)
    return f'"{sql}"'


def _ansi_c(text: str) -> str:
    r"""Return text in the form ``$'...'``, which bash, zsh and ksh read: a line end becomes ``\012``, not a line."""
    parts = []
    for sign in text:
        if sign in "\\'":
            parts.append("\\" + sign)
        elif is_safe(sign):
            parts.append(sign)
        else:
            # Octal with three digits: a hexadecimal escape would take in digits that follow.
            # Half a pair of surrogates is a byte of a name that is not UTF-8, or nothing that a shell could pass on.
            errors = "surrogateescape" if "\udc80" <= sign <= "\udcff" else "surrogatepass"
            raw = sign.encode("utf-8", errors)
            parts.append("".join(f"\\{byte:03o}" for byte in raw))
    return f"$'{''.join(parts)}'"


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    # Most texts are harmless, which is asked in C: ``isprintable`` refuses all the categories above.
    if text.isprintable() and (text.isascii() or _BLANKS.isdisjoint(text)):
        return text
    return "".join(
        escape(sign) if _is_unsafe(sign) and not _is_part_of_emoji(text, place) else sign
        for place, sign in enumerate(text)
    )


def _is_unsafe(sign: str) -> bool:
    return unicodedata.category(sign) in _UNSAFE_CATEGORIES or sign in _BLANKS


def _is_part_of_emoji(text: str, place: int) -> bool:
    """Return whether a joiner stands between two emoji, or the emoji style behind one or inside a keycap."""
    before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
    if text[place] == _JOINER:
        return (before == _EMOJI_STYLE or _is_emoji(before)) and _is_emoji(after)
    return text[place] == _EMOJI_STYLE and (_is_emoji(before) or after == _KEYCAP)


def _is_emoji(sign: str) -> bool:
    # Skin tones are modifiers, not symbols of their own.
    return sign != "" and (unicodedata.category(sign) == "So" or "\U0001f3fb" <= sign <= "\U0001f3ff")


def _escape(sign: str) -> str:
    code = ord(sign)
    return _SHORT.get(sign) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _json_escape(sign: str) -> str:
    code = ord(sign)
    if code < 0x10000:
        return f"\\u{code:04x}"
    # JSON has no escape for these: two halves stand for one character (RFC 8259, section 7).
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
