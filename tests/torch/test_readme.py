"""The example for users of PyTorch in README prints the output that README shows."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_example_prints_what_readme_says():
    passage = README.read_text().partition("## From PyTorch\n")[2]
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", passage, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == output
