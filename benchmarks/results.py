"""Results as JSON files with the machine they were measured on, and as Markdown tables."""

import ast
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from gpu_nn.errors import one_line

# What is measured, the figure (None where it is absent), and the goal.
Goal = tuple[str, float | None, float]

FOLDER = Path(__file__).parent / "results"
_ROOT = Path(__file__).parent.parent
# The code that a result depends on most: the NumPy kernels, unless another is named.
_CPU_CODE = ("gpu_nn/kernels/numpy_kernels/*.py",)
# Modules that are not benchmarks/NAME.py.
_MODULES = {"gpu": "gpu.program", "scaling": "distributed.scaling", "sums": "distributed.sums"}
_CODE = {"gpu": ("gpu_nn/kernels/cuda_kernels/*.py", "cuda_src/*.cu*"), "sums": ("gpu_nn/distributed/*.py",)}


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, and versions of Python and the packages."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def write(name: str, result: dict[str, Any]) -> None:
    """Write NAME.json, with the digest of the measured code."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(result | {"code": digest(name)}, indent=1) + "\n")


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def digest(name: str) -> str:
    """Digest of the code that NAME.json depends on; Python's comments and docstrings do not count."""
    found = hashlib.sha256()
    for pattern in _CODE.get(name, _CPU_CODE):
        for path in sorted(_ROOT.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            found.update(f"{path.name}\n{_code(text) if path.suffix == '.py' else text}\n".encode())
    return found.hexdigest()[:16]


def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def older(names: list[str]) -> list[str]:
    """A line for each of these results that was measured on other code."""
    lines = []
    for name in names:
        code = read(name).get("code")
        if code is None:
            lines.append(f"{name}.json does not say on which code it was measured")
        elif code != digest(name):
            lines.append(f"{name}.json was measured on other code than {', '.join(_CODE.get(name, _CPU_CODE))} is now")
    return lines


def module(name: str) -> ModuleType:
    """The module that measures NAME and renders its result."""
    return import_module(f"benchmarks.{_MODULES.get(name, name)}")


@contextmanager
def named(what: str, reasons: list[str]) -> Iterator[None]:
    """A part that may fail: its name and the error are then appended to `reasons`, and the program goes on."""
    try:
        yield
    except Exception as error:  # any: one failure must not end hours of other measurements
        reasons.append(f"{what} ({type(error).__name__}: {one_line(error)})")


def shown(table: str, result: dict[str, Any]) -> str:
    """The table of a result, and what is missing from it, with the reasons."""
    for key, said in (("absent", "Not measured"), ("failed", "Failed")):
        if result.get(key):
            table += f"\n\n{said}: {'; '.join(result[key])}."
    return table


def against_goals(goals: Iterable[Goal], upper_bounds: bool = False) -> list[str]:
    """A line for each goal: the figure, the goal, and whether it is reached."""
    lines = []
    for what, figure, goal in goals:
        if figure is None:
            lines.append(f"{what}: absent, goal {goal:g}")
        else:
            said = "reached" if (figure <= goal if upper_bounds else figure >= goal) else "MISSED"
            lines.append(f"{what}: {figure:.2f}, goal {'≤' if upper_bounds else '≥'} {goal:g}, {said}")
    return lines


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
