"""Names for the types of numpy arrays that columns are worked on with."""

from __future__ import annotations

from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
#: 16 bytes per event id.
Ids = np.ndarray[Any, np.dtype[np.void]]
#: CRC-32 of a record's text.
Checksums = np.ndarray[Any, np.dtype[np.uint32]]
