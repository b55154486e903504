"""Benchmarks import no tests, tests no benchmarks but those of the benchmarks."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, at its top or within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:  # a relative import stays in its package
            found.add(node.module)
    return found


def importers(of: str, folder: str) -> list[str]:
    """The files below the folder that import from the package."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / folder).rglob("*.py"))
        if any(name.partition(".")[0] == of for name in imported(path))
    ]


def test_no_benchmark_imports_a_test():
    assert importers("tests", "benchmarks") == []


def test_only_tests_of_benchmarks_import_benchmarks():
    found = importers("benchmarks", "tests")
    assert [path for path in found if not path.startswith("tests/benchmarks/")] == []
    assert "tests/benchmarks/test_benchmarks.py" in found


def test_the_package_imports_neither():
    assert importers("tests", "gpu_nn") == importers("benchmarks", "gpu_nn") == []
