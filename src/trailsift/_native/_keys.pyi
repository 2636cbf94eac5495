from collections.abc import Callable

from typing_extensions import Buffer

def patterns(
    offsets: Buffer, text: Buffer, word: Callable[[str], str], fallback: Callable[[str], str], /
) -> tuple[bytes, list[str]]: ...
def hashes(offsets: Buffer, text: Buffer, /) -> bytes: ...
