"""Puts the tables of benchmarks/results/*.json into the README files, and says which are older than the code."""

from importlib import import_module
from pathlib import Path

from benchmarks.results import FOLDER, older, read, shown

README = Path(__file__).parent.parent / "README.md"
DETAILS = Path(__file__).parent / "README.md"
# What stands in which file.
TABLES = {
    README: ("accuracy", "step", "loss", "memory", "torch"),
    DETAILS: ("optimizer", "predict", "growth", "start", "gpu", "scaling", "sums"),
}


def filled(path: Path) -> str:
    """The text of a file of TABLES with every table as the JSON files have it."""
    text = path.read_text(encoding="utf-8")
    for name in TABLES[path]:
        if (FOLDER / f"{name}.json").exists():
            markdown = shown(import_module(f"benchmarks.{name}"), read(name))
        else:
            markdown = f"Not measured yet; made by `python -m benchmarks {name}`."
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        if not closing:
            raise SystemExit(
                f"{path.name} has no place for the table {name}; expected <!-- {name} --> … <!-- /{name} -->"
            )
        text = f"{before}{opening}{markdown}\n{closing}{after}"
    return text


def main() -> None:
    for path in TABLES:
        path.write_text(filled(path), encoding="utf-8")
    for line in older([path.stem for path in sorted(FOLDER.glob("*.json"))]):
        print(line)
