from collections.abc import Callable
from typing import Any

def patterns(
    offsets: Any, bytes: Any, word: Callable[[str], str], fallback: Callable[[str], str], /
) -> tuple[bytes, list[str]]: ...
def hashes(offsets: Any, bytes: Any, /) -> bytes: ...
