"""The READMEs say what is so: their Python prints what stands there. Their tables: tests/benchmarks."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PLACES = ("README.md", "[!.]*/README.md", "gpu_nn/*/README.md")
FILES = [path.relative_to(ROOT) for place in PLACES for path in sorted(ROOT.glob(place))]

# A block and what it prints, as a pair; any other block has no such output.
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def blocks() -> list:
    """Every block of Python but those of PyTorch, Ray and Dask, which run where these are installed: in tests/torch and
    tests/distributed/gloo."""
    found = []
    for file in FILES:
        for match in BLOCK.finditer((ROOT / file).read_text()):
            if not re.search("^(import|from) (torch|ray|dask)", match[1], re.MULTILINE):
                section = re.findall(r"^## (.*)$", match.string[: match.start()], re.MULTILINE)[-1]
                found.append(pytest.param(*match.groups(), id=f"{file}: {section}"))
    return found


@pytest.mark.parametrize(("code", "output"), blocks())
def test_an_example_prints_what_stands_below_it(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == output


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_block_is_of_a_kind_that_is_looked_at(file):
    """A block of Python that is opened otherwise would not be run."""
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", (ROOT / file).read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= {"python", "text", "sh", ""}
    assert set(fences[1::2]) <= {""}


def test_the_examples_are_found():
    assert len(blocks()) >= 2
    assert len(FILES) >= 3 or not (ROOT / "cuda_src").exists()


def test_every_function_of_the_formula_table_exists():
    import gpu_nn
    from gpu_nn import functional as F

    names = re.findall(r"\| `(F|gpu_nn|net)\.(\w+)", TEXT)
    assert len(names) >= 9
    owners = {"F": F, "gpu_nn": gpu_nn, "net": gpu_nn.Network}
    assert all(hasattr(owners[owner], name) for owner, name in names)


def test_what_is_said_of_scikit_learn_is_so():
    """All its parameters but one, with their defaults."""
    from inspect import signature

    from sklearn.neural_network import MLPClassifier as Theirs

    from gpu_nn import MLPClassifier

    theirs, ours = (signature(kind).parameters for kind in (Theirs, MLPClassifier))
    assert set(theirs) - set(ours) == {"max_fun"}
    assert all(theirs[name].default == ours[name].default for name in set(theirs) & set(ours))
