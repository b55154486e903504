"""python -m benchmarks readme: puts the tables of benchmarks/results/*.json into the READMEs.

README.md gets the short tables, benchmarks/README.md all of them, between the marks <!-- NAME --> and <!-- /NAME -->.
Prints which results were measured on other code.
"""

from pathlib import Path

from benchmarks.results import FOLDER, module, older, read, shown

README = Path(__file__).parent.parent / "README.md"
DETAILS = Path(__file__).parent / "README.md"
# The tables of each file: `summary` in README.md, `markdown` in benchmarks/README.md.
_ALL = (
    "accuracy",
    "step",
    "loss",
    "memory",
    "optimizer",
    "predict",
    "growth",
    "start",
    "torch",
    "gpu",
    "scaling",
    "sums",
)
TABLES = {README: ("accuracy", "step"), DETAILS: _ALL}


def rendered(path: Path, name: str) -> str:
    """The table NAME of a file of TABLES."""
    if not (FOLDER / f"{name}.json").exists():
        return f"Not measured yet; made by `python -m benchmarks {name}`."
    result = read(name)
    return module(name).summary(result) if path == README else shown(module(name).markdown(result), result)


def filled(path: Path) -> str:
    """The text of a file of TABLES with every table as the JSON files have it."""
    text = path.read_text(encoding="utf-8")
    for name in TABLES[path]:
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        if not closing:
            expected = f"<!-- {name} --> … <!-- /{name} -->"
            raise SystemExit(f"{path.name} has no place for the table {name}; expected {expected}")
        text = f"{before}{opening}{rendered(path, name)}\n{closing}{after}"
    return text


def main() -> None:
    for path in TABLES:
        path.write_text(filled(path), encoding="utf-8")
    for line in older([path.stem for path in sorted(FOLDER.glob("*.json"))]):
        print(line)
