"""The shape of the package: no import cycle, few modules at the root, few layers, a true picture of the errors."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import trailsift
from trailsift import errors

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(trailsift.__file__).parent
MOST_ROOT_MODULES = 8
MOST_LAYERS = 13

Graph = Mapping[str, set[str]]


def module_name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, module: str, *, is_package: bool, modules: set[str]) -> Iterator[str]:
    """Yield the modules of the package that a module imports anywhere: in functions and for typing as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from [alias.name] if alias.name in modules else []
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                # ``from package import name``: the module of that name, else what the package's own module exports.
                yield from [name for name in (f"{base}.{alias.name}", base) if name in modules][:1]


def imports(package: Path) -> Graph:
    """Return each module's imports of others of the same package."""
    paths = {module_name(path, package): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text("utf-8"))
        found = imported(tree, name, is_package=path.name == "__init__.py", modules=set(paths))
        graph[name] = set(found) - {name}
    return graph


def cycles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            at = stack.index(name)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                components.append(sorted(component))

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return components


def test_no_import_cycle() -> None:
    """Imports inside functions and under TYPE_CHECKING count too."""
    graph = imports(PACKAGE)
    assert len(graph) > 150 and sum(map(len, graph.values())) > 400
    assert cycles(graph) == []


def test_a_cycle_is_noticed(tmp_path: Path) -> None:
    """Through a lazy import, one for typing, and a relative one."""
    package = tmp_path / "sample"
    files = {
        "__init__.py": "",
        "a.py": "from sample import b\n",
        "b.py": "def f():\n    import sample.part.c\n",
        "part/__init__.py": "from .d import NAME\n",
        "part/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sample.a import f\n",
        "part/d.py": "from . import e\nNAME = 1\n",
        "part/e.py": "from .. import part\n",
        "alone.py": "import sample.a, json\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert cycles(imports(package)) == [
        ["sample.a", "sample.b", "sample.part.c"],
        ["sample.part", "sample.part.d", "sample.part.e"],
    ]


def test_few_modules_at_the_root() -> None:
    """A module belongs into a package; ``__init__`` and ``__main__`` are not counted."""
    names = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__"))
    assert len(names) <= MOST_ROOT_MODULES, names


def test_few_layers() -> None:
    """As the import contract orders them; every package and module at the root has its place there."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    layers = config["importlinter:contract:one-way"]["layers"].split("\n")
    ordered = [re.findall(r"\w+", layer) for layer in layers if layer.strip()]
    assert len(ordered) <= MOST_LAYERS
    named = [name for layer in ordered for name in layer]
    present = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    present |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(set(named)) == len(named) and present <= set(named)


def test_errors_are_as_drawn() -> None:
    """The tree in the docstring of ``errors`` is that of its classes."""
    lines = re.findall(r"^    ([ |`-]*)(\w+)", errors.__doc__ or "", re.MULTILINE)
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for lead, name in lines:
        depth = len(lead) // 4
        above[depth] = name
        drawn[name] = above[depth - 1] if depth else "Exception"
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn == {name: value.__base__.__name__ for name, value in classes.items()}
