"""Object keys with their variable parts replaced, so that a million keys become a few patterns.

``logs/2024/01/15/part-0007.gz`` becomes ``logs/{date}/part-{n}.gz``.

The placeholders (``PLACEHOLDERS``) are ``{date} {time} {uuid} {hex} {n} {id} {email} {ip}``. A key that contains such
a text, e.g. ``report-{n}.csv``, keeps it and shares its pattern with ``report-7.csv``. Therefore
``key_pattern(key_pattern(k)) == key_pattern(k)``; all other braces are ordinary characters.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

#: Longest pattern, in characters. S3 keys have up to 1,024 bytes; a pattern is a grouping key and a label.
LIMIT = 512

# A longer pattern is cut at a boundary between these two lengths. A text of such a length that ends in the mark was cut
# before and is returned as it is (the cut may be inside a word whose beginning has another pattern).
_CUT_FLOOR = 384
_CUT_MARK = "…"

# DynamoDB item keys reach 3 KB; no service accepts a longer key, so the rest is not worth the time.
_INPUT_LIMIT = 4096

#: The placeholders of variable parts, without the braces.
PLACEHOLDERS = ("date", "time", "uuid", "hex", "n", "id", "email", "ip")

#: Words whose digits are part of the name (lower case). Digits in any other word are a number: ``page7`` is
#: ``page{n}``. Kept as a list, not as "short digits stay", because ``page1`` .. ``page9`` would be nine patterns.
WORDS_WITH_DIGITS = frozenset(
    word
    for line in (
        "s3 s3a s3n ec2 r53 route53 k8s db2 log4j log4j2 slf4j neo4j oauth2 saml2 http2 http3 ipv4 ipv6 p2p b2b",
        "b2c e2e i18n l10n a11y a2a web2 web3 auth0 n8n d3js es5 es6 es2015 py2 py3 python2 python3 lua5 vue2",
        "vue3 angular2 utf8 utf16 utf32 latin1 cp949 cp1252 euckr ksc5601 iso8859 base16 base32 base58 base64",
        "base85 ascii85 md4 md5 sha1 sha2 sha3 sha224 sha256 sha384 sha512 crc32 crc32c crc64 crc64nvme xxh3",
        "xxh64 xxhash64 murmur3 blake2 blake2b blake2s blake3 aes128 aes192 aes256 rsa2048 rsa4096 ed25519",
        "x25519 secp256k1 p256 p384 rs256 hs256 es256 x509 pkcs7 pkcs8 pkcs12 p7b p7s p12 x86 x64 x32 i386 i686",
        "amd64 arm64 aarch64 armv7 armv8 win32 win64 linux32 linux64 mips64 ppc64 ppc64le s390x riscv64 int8",
        "int16 int32 int64 uint8 uint16 uint32 uint64 fp8 fp16 fp32 bf16 float16 float32 float64 int4 mp2 mp3",
        "mp4 m2ts m3u m3u8 m4a m4b m4v h264 h265 x264 x265 vp8 vp9 av1 ac3 f4v 3gp 3g2 3gpp 3gpp2 h261 h263 jp2",
        "j2k bz2 bzip2 lz4 7z b64 h5 hdf5 hdf4 nc4 netcdf4 sqlite3 db3 grib1 grib2 las2 e57 x3d 3ds 3mf 3d 2d 4k",
        "8k id3 c3p0 gpt2 gpt3 gpt4 bert2 llama2 llama3 word2vec seq2seq doc2vec yolov5 yolov8 postgres9 mysql5",
        "mysql8 el6 el7 el8 el9 amzn1 amzn2 amzn2023 al2 al2023 rhel7 rhel8 rhel9 httplib2 psycopg2 cloud9",
        "office365 o365 m365",
    )
    for word in line.split()
)

# Pairs of letters that are common in English, and a few from technical names.
_COMMON_PAIRS = frozenset(
    pair
    for line in (
        "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de",
        "hi ri ro ic ne ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr",
        "ly nc et ut ss so rs un lo wa ge ie wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su",
        "id os iv ia am fi ci vi pl ig tu ev ld ry mp fe bl ab gh ty op wo sa ay ex ke fr oo av ag if ap gr od",
        "bo sp rd do uc bu ei ov by rm ep tt oc fa ef cu rn sc gi da cr cl du ga qu ue ba ls va um pp up lu go",
        "ru ck br bi pt bs ku ub ip ob ks db",
    )
    for pair in line.split()
)

# Number formats. A date must be a possible one: ``99999999`` is a number.
_YEAR = r"(?:19|20)[0-9]{2}"
_MONTH = r"(?:0[1-9]|1[0-2])"
_DAY = r"(?:0[1-9]|[12][0-9]|3[01])"
_HOUR = r"(?:[01][0-9]|2[0-3])"
_SIXTY = r"(?:[0-5][0-9]|60)"
_ZONE = r"(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IP = rf"{_OCTET}(?:\.{_OCTET}){{3}}"

# Every alternative starts and ends at the edge of a run of ASCII letters and digits, so the text around a match reads
# the same in a second pass: idempotence depends on this. Ordered from the most to the least specific. The lookaheads
# only repeat what the alternatives after them require, so that most positions fail at once.
_TOKEN = re.compile(
    rf"""(?<![0-9A-Za-z])(?:
    (?=(?:19|20)[0-9]|[0-9]{{1,3}}[.:]) (?:
        # Log deliveries of AWS (CloudTrail, load balancers, flow logs): the last part is random but may read as a word
        (?P<delivery>{_YEAR}{_MONTH}{_DAY}T{_HOUR}{_SIXTY}Z_(?:(?P<node>{_IP})_)?[0-9A-Za-z]{{8,16}}(?=\.))
      | (?P<time>
          {_YEAR}(?P<t1>[-_.]){_MONTH}(?P=t1){_DAY}
            (?:[Tt\ ]{_HOUR}(?:[:._-]?{_SIXTY}(?:[:._-]?{_SIXTY}(?:[.,][0-9]{{1,9}})?)?)?
             | [-_]{_HOUR}[:._-]?{_SIXTY}[:._-]?{_SIXTY}(?:[.,][0-9]{{1,9}})?){_ZONE}
        | {_YEAR}{_MONTH}{_DAY}[Tt]{_HOUR}{_SIXTY}(?:{_SIXTY}(?:\.?[0-9]{{1,9}})?)?{_ZONE}
        | {_YEAR}{_MONTH}{_DAY}[-_]{_HOUR}{_SIXTY}{_SIXTY}
        | {_HOUR}:{_SIXTY}(?::{_SIXTY}(?:[.,][0-9]{{1,9}})?)?{_ZONE}
        )
      | (?P<date>{_YEAR}(?P<d1>[-_./]){_MONTH}(?:(?P=d1){_DAY})?)
      | (?<![0-9]\.)(?P<ip>{_IP})(?!\.[0-9])
      ) (?![0-9A-Za-z])
  | (?=[0-9A-Fa-f]{{8}}-)
      (?P<uuid>[0-9A-Fa-f]{{8}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{12}}) (?![0-9A-Za-z])
  | (?=[aceimsu][a-z]{{1,3}}-) (?:
        ip-(?P<host>{_OCTET}(?:-{_OCTET}){{3}})
      | (?P<region>(?:af|ap|ca|cn|eu|eusc|il|me|mx|sa|us)-(?:gov-|iso[a-z]?-|de-)?
          (?:central|(?:north|south)(?:east|west)?|east|west)-[0-9][a-f]?)
      ) (?![0-9A-Za-z])
  | (?P<mixed>[A-Za-z]*+[0-9][0-9A-Za-z]*+)
  | (?P<letters>[A-Za-z]{{16,}}+)
    )""",
    re.VERBOSE,
)

# Parts that are not examined: existing placeholders, and percent-encoded bytes.
_FIXED = re.compile(r"(\{(?:" + "|".join(PLACEHOLDERS) + r")\}|(?:%[0-9A-Fa-f]{2})+)")

_EMAIL = re.compile(r"(?<![0-9A-Za-z._+-])[0-9A-Za-z._+-]++@(?:[0-9A-Za-z-]+\.)+[A-Za-z]{2,}")
_EXTENSION = re.compile(r"avro|csv|db|eml|gz|html?|jpe?g|jsonl?|log|mbox|orc|parquet|pdf|png|txt|xml|zip", re.I)

# Strings of a JSON text (one before a colon is an attribute's name and stays) and its bare numbers.
_JSON_PART = re.compile(
    r'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))(\s*:)?'
    r"|(?<![0-9A-Za-z.{])-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z.])",
    re.DOTALL,
)
# Escapes stand for characters, not for numbers.
_JSON_ESCAPE = re.compile(r"(\\u[0-9A-Fa-f]{4}|\\.)", re.DOTALL)

_DIGITS = re.compile(r"[0-9]+")
_RUNS = re.compile(r"[0-9]+|[A-Za-z]{16,}")
_VERSION = re.compile(r"[vV][0-9]{1,3}(?:p[0-9]{1,2})?(?:(?:alpha|beta|rc)[0-9]{1,2})?")
_SIZE = re.compile(r"[0-9]+x[0-9]+")
_HEX = re.compile(r"[0-9a-f]{8,}|[0-9A-F]{8,}|[0-9][0-9a-f]{3,6}")
_SHORT_HEX = re.compile(r"[0-9a-f]{4,7}")
_CHUNK = re.compile(r"[A-Z]+[a-z]*|[a-z]+|[0-9]+")
_COMPACT_DATE = re.compile(rf"{_YEAR}{_MONTH}{_DAY}")
_COMPACT_TIME = re.compile(rf"{_YEAR}{_MONTH}{_DAY}{_HOUR}{_SIXTY}{_SIXTY}(?:[0-9]{{3}})?")

# A folder that ends like the start of a date, and the file name that would continue it. Percent-encoded bytes are
# fixed, so a date may follow one directly.
_DATE_OPEN = re.compile(rf"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{{2}})){_YEAR}(?:/{_MONTH})?\Z")
_DATE_REST = re.compile(rf"(?:{_MONTH}|{_DAY})(?![0-9A-Za-z])")


def key_pattern(key: str) -> str:
    """Return the pattern of an object key: at most ``LIMIT`` characters, the same for all keys of one kind.

    Pure, total and idempotent. A longer pattern is cut at a folder or placeholder and ends in ``…``.
    Item keys of DynamoDB (JSON text that starts with ``{"``) keep their attribute names.
    """
    if len(key) > _CUT_FLOOR:
        return _long(key)
    if key.startswith('{"'):
        return _bounded(_json(key))
    folder, slash, name = key.rpartition("/")
    if not slash:
        return _text(name)
    pattern, date_open = _folder(folder)
    # The folder is cached without its file name, so a date that spans both needs the complete key.
    if date_open and _DATE_REST.match(name):
        return _bounded(_text(key))
    pattern = f"{pattern}/{_text(name)}"
    return pattern if len(pattern) <= LIMIT else _bounded(pattern)


def _long(key: str) -> str:
    """Return the pattern of a long key, uncached: long keys would fill the cache with text."""
    if len(key) <= LIMIT and key.endswith(_CUT_MARK):
        return key
    cut = key[:_INPUT_LIMIT]
    pattern = _json(cut) if cut.startswith('{"') else _text(cut)
    return _bounded(pattern if len(cut) == len(key) else pattern + _CUT_MARK)


@lru_cache(maxsize=8192)
def _folder(folder: str) -> tuple[str, bool]:
    """Return the pattern of all but the last segment, and whether a date may continue in the last one."""
    return _text(folder), _DATE_OPEN.search(folder) is not None


def _text(text: str) -> str:
    """Return the pattern of a text of any number of segments."""
    if not text:
        return text
    if "@" in text:
        text = _EMAIL.sub(_email, text)
    if "{" in text or "%" in text:
        # re.split with one group: the fixed parts are at the odd positions.
        parts = _FIXED.split(text)
        parts[::2] = [_TOKEN.sub(_replace, part) for part in parts[::2]]
        return "".join(parts)
    return _TOKEN.sub(_replace, text)


def _replace(match: re.Match[str]) -> str:
    """Return the replacement of one token, by the alternative that matched."""
    kind = match.lastgroup
    text = match[0]
    if kind == "mixed":
        return _number(text) if text.isdigit() else _mixed(text)
    if kind == "region":
        return text
    if kind == "letters":
        return _letters(text)
    if kind == "delivery":
        return "{time}_{ip}_{id}" if match["node"] else "{time}_{id}"
    if kind == "host":
        return "ip-{ip}"
    return f"{{{kind}}}"


def _number(digits: str) -> str:
    """Replace a run of digits: a date (8 digits), a time (14 or 17), else a number, such as an AWS account."""
    length = len(digits)
    if length == 8 and _COMPACT_DATE.fullmatch(digits):
        return "{date}"
    if length in (14, 17) and _COMPACT_TIME.fullmatch(digits):
        return "{time}"
    return "{n}"


def word_pattern(word: str) -> str:
    """Replace a run of letters and digits that does not have the form of a date, number or hash."""
    return _letters(word) if word.isalpha() else _mixed(word)


@lru_cache(maxsize=8192)
def _mixed(word: str) -> str:
    """Replace a run of letters and digits: a known word, a hash, a random id, else a word with numbers in it."""
    if word.lower() in WORDS_WITH_DIGITS or _VERSION.fullmatch(word):
        return word
    if _SIZE.fullmatch(word):  # of an image
        return "{n}x{n}"
    if _HEX.fullmatch(word):
        return "{hex}"
    if _random(word):
        return "{hex}" if _SHORT_HEX.fullmatch(word) else "{id}"
    return _RUNS.sub(lambda run: _number(run[0]) if run[0].isdigit() else _letters(run[0]), word)


def _random(word: str) -> bool:
    """Return whether a run of letters and digits looks random, not chosen by a person.

    In random characters (0-9, a-z, A-Z) a chunk (capitals with the small letters after them, small letters, digits) has
    2.2 characters on average; in names such as ``AmazonLinux2023`` more than four. In doubtful cases the letter pairs
    decide.
    """
    length = len(word)
    if length < 4:
        return False
    chunks = len(_CHUNK.findall(word))
    if length <= 2 * chunks and len(_DIGITS.findall(word)) >= 2:
        return True
    return (length >= 12 and length <= 3 * chunks) or (length >= 8 and _unpronounceable(word))


def _letters(word: str) -> str:
    """Replace 16 and more letters whose case changes at random by ``{id}``; names (``CustomerOrderHistory``) stay."""
    changes = sum(a.isupper() != b.isupper() for a, b in pairwise(word))
    return "{id}" if changes * 10 > len(word) * 2 and _unpronounceable(word) else word


def _unpronounceable(word: str) -> bool:
    """Return whether at most half of the pairs of adjacent letters are common; False for fewer than four pairs.

    27 % of random pairs are common, and 79 % of the pairs in 6,138 words of file names on a Debian system (measured).
    """
    pairs = [a + b for a, b in pairwise(word.lower()) if a.isalpha() and b.isalpha()]
    return len(pairs) >= 4 and 2 * sum(pair in _COMMON_PAIRS for pair in pairs) <= len(pairs)


def _email(match: re.Match[str]) -> str:
    """Return ``{email}``, plus the file extension, which has the form of a part of the domain."""
    head, _, last = match[0].rpartition(".")
    return "{email}." + last if _EXTENSION.fullmatch(last) and "." in head.partition("@")[2] else "{email}"


def _json(text: str) -> str:
    """Return the pattern of a JSON text. It is read by its strings, not parsed: it may already contain placeholders."""
    return _JSON_PART.sub(_json_part, text)


def _json_part(match: re.Match[str]) -> str:
    text = match[1]
    if text is None:
        return "{n}"
    if match[2]:
        return match[0]
    if "\\" not in text:
        return _text(text)
    parts = _JSON_ESCAPE.split(text)
    parts[::2] = [_text(part) for part in parts[::2]]
    return "".join(parts)


def _bounded(pattern: str) -> str:
    """Cut a pattern that is longer than ``LIMIT``, after a folder or placeholder if possible."""
    if len(pattern) <= LIMIT:
        return pattern
    head = pattern[: LIMIT - len(_CUT_MARK)]
    edge = max(head.rfind("/"), head.rfind("}"), head.rfind(",")) + 1
    return head[: edge if edge >= _CUT_FLOOR else len(head)] + _CUT_MARK
