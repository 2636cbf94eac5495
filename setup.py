"""The parts of the build that pyproject.toml cannot express: the C modules.

They are optional: if they cannot be compiled, Python gives the same rows, more slowly. `TRAILSIFT_REQUIRE_C=1` in the
environment makes the build fail instead; builds of wheels set it.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/trailsift/_native")
SOURCES = {
    "groups": ["groups"],
    "keys": ["keys"],
    "scan": ["scan", "record", "naming", "values", "columns", "json", "names", "crc32"],
}

flags = ["-O3", "-std=c11", "-fvisibility=hidden", "-fstack-protector-strong"]
if "-fsanitize" not in os.environ.get("CFLAGS", ""):
    # AddressSanitizer does not see into the functions that this puts in the place of memcpy.
    flags += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]

setup(
    ext_modules=[
        Extension(
            f"trailsift._native._{module}",
            [str(NATIVE / f"{name}.c") for name in names],
            depends=[str(path) for path in sorted(NATIVE.glob("*.h"))],
            extra_compile_args=flags,
            optional=os.environ.get("TRAILSIFT_REQUIRE_C") != "1",
        )
        for module, names in SOURCES.items()
    ]
)
