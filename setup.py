"""The parts of the build that pyproject.toml cannot express: the C modules, and what npm brings for the dashboard.

Both are optional: if the modules cannot be compiled, Python gives the same rows, more slowly; without npm, `serve` says
what is missing. `TRAILSIFT_REQUIRE_C=1` and `TRAILSIFT_REQUIRE_ASSETS=1` in the environment make the build fail
instead; builds of wheels set both.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

NATIVE = Path("src/trailsift/_native")
SOURCES = {
    "groups": ["groups"],
    "keys": ["keys"],
    "scan": ["scan", "record", "naming", "values", "columns", "json", "names", "crc32"],
}

#: Without these the build fails.
REQUIRED = ["-O3", "-std=c11", "-fvisibility=hidden", "-Wformat", "-Werror=format-security"]
#: Hardening, each if compiler and linker take it: which depends on their age, the processor and the object format.
HARDENING = ["-fstack-protector-strong", "-fstack-clash-protection", "-fcf-protection"]
LINKED = ["-Wl,-z,relro", "-Wl,-z,now"]
# AddressSanitizer does not see into the functions that this puts in the place of memcpy.
FORTIFY = [] if "-fsanitize" in os.environ.get("CFLAGS", "") else ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]


class BuildHardened(build_ext):
    """Compile the C modules with those of the hardening flags that the compiler takes."""

    def build_extensions(self) -> None:
        """Try each flag once, on a file that is empty but for a function."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "try.c"
            source.write_text("int tried(void);\nint tried(void) { return 0; }\n", "utf-8")
            compiled = [flag for flag in HARDENING if self._takes(source, compile_with=flag)]
            linked = [flag for flag in LINKED if self._takes(source, link_with=flag)]
        for module in self.extensions:
            module.extra_compile_args = [*REQUIRED, *FORTIFY, *compiled]
            module.extra_link_args = linked
        super().build_extensions()

    def _takes(self, source: Path, *, compile_with: str | None = None, link_with: str | None = None) -> bool:
        """Return whether the source can be built with a flag; -Werror makes an error of one that is ignored."""
        built = source.with_suffix(".so")
        command = [*self.compiler.compiler_so, "-Werror", *([compile_with] if compile_with else []), "-c", source]
        link = [*self.compiler.linker_so, source.with_suffix(".o"), *([link_with] if link_with else []), "-o", built]
        try:
            subprocess.run([*command, "-o", source.with_suffix(".o")], check=True, capture_output=True)
            if link_with:
                subprocess.run(link, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


class BuildWithPage(build_py):
    """Have npm bring what the dashboard's page needs, so that a wheel holds it."""

    def run(self) -> None:
        """Fetch it if it is not there. Without npm, the package lacks the dashboard's page, which `serve` says."""
        vendor = Path("src/trailsift/serve/static/vendor")
        if not self.editable_mode and not (vendor / "uPlot.iife.min.js").exists():
            done = subprocess.run([sys.executable, "scripts/assets.py"], check=False)
            if done.returncode and os.environ.get("TRAILSIFT_REQUIRE_ASSETS") == "1":
                raise SystemExit("setup.py: the dashboard's page could not be completed, see above")
        super().run()


setup(
    cmdclass={"build_ext": BuildHardened, "build_py": BuildWithPage},
    ext_modules=[
        Extension(
            f"trailsift._native._{module}",
            [str(NATIVE / f"{name}.c") for name in names],
            depends=[str(path) for path in sorted(NATIVE.glob("*.h"))],
            optional=os.environ.get("TRAILSIFT_REQUIRE_C") != "1",
        )
        for module, names in SOURCES.items()
    ],
)
