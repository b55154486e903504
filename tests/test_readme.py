"""README says what is so: its Python runs and prints what stands there, its tables are those of the JSON files."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from benchmarks.readme import TABLES, filled

TEXT = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_what_readme_says():
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == output


@pytest.mark.parametrize("path", TABLES, ids=["README", "benchmarks"])
def test_the_tables_are_those_of_the_result_files(path):
    assert filled(path) == path.read_text(encoding="utf-8")


def test_every_function_of_the_formula_table_exists():
    import gpu_nn
    from gpu_nn import functional as F

    names = re.findall(r"\| `(F|gpu_nn|net)\.(\w+)", TEXT)
    assert len(names) >= 9
    owners = {"F": F, "gpu_nn": gpu_nn, "net": gpu_nn.Network}
    assert all(hasattr(owners[owner], name) for owner, name in names)
