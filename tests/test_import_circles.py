"""No module of gpu_nn or benchmarks imports itself through others. Imports in functions and for type checkers count."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their names, wherever it is installed."""
    folder, found = Path(next(iter(find_spec(package).submodule_search_locations))), {}
    for path in folder.rglob("*.py"):
        parts = (package, *path.relative_to(folder).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The known modules that a file imports, wherever in it. A package counts where a name of its own is imported."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in known else node.module)
    return names & known.keys()


def imports_of(package: str) -> dict[str, set[str]]:
    """What each module of a package imports of it."""
    known = modules(package)
    return {name: imported(path, known) - {name} for name, path in known.items()}


def by_room(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same between rooms: a package directly below gpu_nn, with all that it holds, or a module there."""
    rooms: dict[str, set[str]] = {}
    for name, others in imports.items():
        rooms.setdefault(room(name), set()).update(map(room, others))
    return {name: others - {name} for name, others in rooms.items()}


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A circle of imports, its first module at the end again; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(imports[name]):
                if found := walk(other, [*path, name]):
                    return found
            done.add(name)
        return []

    return next(filter(None, (walk(name, []) for name in sorted(imports))), [])


@pytest.mark.parametrize("package", ["gpu_nn", "benchmarks"])
def test_no_imports_go_in_a_circle(package):
    imports = imports_of(package)
    assert imports
    assert circle(imports) == []
    assert circle(by_room(imports)) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle(by_room({"p.a.x": {"p.b.y"}, "p.b.y": set(), "p.b.z": {"p.a.v"}, "p.a.v": set()})) != []


def test_communication_imports_nothing_of_training():
    imports = imports_of("gpu_nn")
    below, waiting = set(), [name for name in imports if room(name) == "gpu_nn.distributed"]
    while waiting:
        name = waiting.pop()
        if name not in below:
            below.add(name)
            waiting += imports[name]
    assert "gpu_nn.device" in below
    assert not [name for name in below if room(name) in ("gpu_nn.training", "gpu_nn.data", "gpu_nn.network")]
