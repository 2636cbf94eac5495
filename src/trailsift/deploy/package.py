"""Build the zip of the Lambda function: the modules that the handler imports, and the wheels that they need.

The wheels are for Lambda's platform, not this machine's, in the versions that are installed here. They come from pip's
package index, or from a folder of wheels if there is no network. The same inputs give the same bytes.
"""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import trailsift
from trailsift.errors import TrailsiftError
from trailsift.storage.output_file import new_file

Arch = Literal["x86_64", "arm64"]

#: What the function runs on, unless said otherwise: `aws package` and the template agree.
ARCH: Arch = "arm64"
PYTHON = "3.13"
HANDLER = "trailsift.aws.handler.firehose"
#: Packages that our modules need; tzdata because Lambda's images have no time zone data.
REQUIREMENTS = ("isal", "msgspec", "tzdata")
#: Wheels that run on Amazon Linux 2023, which has glibc 2.34.
_MACHINES: dict[Arch, str] = {"x86_64": "x86_64", "arm64": "aarch64"}
_GLIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
#: Lambda accepts 50 MB; ours is a fiftieth of that.
LIMIT = 10_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Package(NamedTuple):
    """A zip file that was written."""

    path: Path
    arch: Arch
    python: str
    size: int
    sha256: str

    @property
    def key(self) -> str:
        """The key to upload it under: CloudFormation updates a function if the key is another."""
        return f"firehose-{self.sha256[:16]}.zip"


def build(
    out: Path, *, arch: Arch = ARCH, python: str = PYTHON, rules: Path | None = None, wheels: Path | None = None
) -> Package:
    """Write the zip. ``rules`` is checked and packed; ``wheels`` is a folder of wheels to use instead of pip's index.

    Raise RulesError if the rules are wrong, TrailsiftError if a wheel cannot be downloaded.
    """
    entries = dict(_our_modules())
    if rules is not None:
        from trailsift.rules import load

        load(rules)
        entries["rules.toml"] = rules.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        for wheel in _wheels(Path(folder), arch, python, wheels):
            entries |= _contents(wheel)
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(out, entries)
    data = out.read_bytes()
    if len(data) > LIMIT:
        raise TrailsiftError(f"{out} has {len(data):,} bytes, more than the limit of {LIMIT:,}")
    return Package(out, arch, python, len(data), hashlib.sha256(data).hexdigest())


def _our_modules() -> dict[str, bytes]:
    """Return the handler and every trailsift module that it can import, at module level or inside a function."""
    root = Path(trailsift.__file__).parent
    modules: dict[str, bytes] = {}
    pending = ["trailsift.aws.handler"]
    while pending:
        name = pending.pop()
        base = root.joinpath(*name.split(".")[1:])
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        entry = Path("trailsift", path.relative_to(root)).as_posix()
        if entry in modules or not path.is_file():
            continue
        modules[entry] = path.read_bytes()
        # Importing a module imports its packages.
        pending += [name.rpartition(".")[0]] if "." in name else []
        pending += _imported(modules[entry])
    return modules


def _imported(source: bytes) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == "trailsift"]


def _wheels(folder: Path, arch: Arch, python: str, source: Path | None) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--retries=1", "--timeout=30", "--only-binary=:all:"]
    command += ["--implementation=cp", f"--python-version={python}", f"--dest={folder}"]
    platforms = [f"--platform={glibc}_{_MACHINES[arch]}" for glibc in _GLIBC]
    command += platforms
    if source is not None:
        command += ["--no-index", f"--find-links={source}"]
    requirements = [f"{name}=={metadata.version(name)}" for name in REQUIREMENTS]
    # Names and versions are those of installed packages that we list; there is no shell.
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        by_hand = f"pip download --no-deps --only-binary=:all: --python-version={python} {' '.join(platforms)}"
        raise TrailsiftError(
            f"cannot download wheels of {', '.join(requirements)} for Python {python} on {arch}: {reason}. Without a "
            f"network, run `{by_hand} {' '.join(requirements)}` elsewhere and pass the folder with --wheels"
        )
    return sorted(folder.glob("*.whl"))


def _contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel that are needed at run time or by its licence."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if not name.endswith(("/", ".pyi", ".pyx", ".pxd", ".c", ".h", "/RECORD", "/WHEEL"))
        }


def _write(out: Path, entries: dict[str, bytes]) -> None:
    with (
        new_file(out, "wb", private=False) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            archive.writestr(entry, entries[name])
