"""The optional C modules, and the only place that asks whether they were built.

`scan`, `keys` and `groups` are the modules, or None if they were not built (no C compiler at installation) or if the
environment has `TRAILSIFT_PURE=1`. Each has a Python twin that gives the same rows, more slowly; the Python twin is the
reference. Users read the attribute when they need it (`_native.groups`), so that a test can switch it off.
"""

from __future__ import annotations

import os
from types import ModuleType

#: Set to 1, this environment variable makes every caller use the Python twin.
PURE = "TRAILSIFT_PURE"

scan: ModuleType | None = None
keys: ModuleType | None = None
groups: ModuleType | None = None

if os.environ.get(PURE, "") in ("", "0"):
    try:
        from trailsift._native import _groups, _keys, _scan
    except ImportError:
        pass
    else:
        scan, keys, groups = _scan, _keys, _groups


def available() -> bool:
    """Return whether the C modules are in use."""
    return scan is not None
