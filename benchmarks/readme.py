"""Puts the tables of benchmarks/results/*.json into the README files."""

from importlib import import_module
from pathlib import Path

from benchmarks.results import read

README = Path(__file__).parent.parent / "README.md"
DETAILS = Path(__file__).parent / "README.md"
# What stands in which file.
TABLES = {
    README: ("accuracy", "step", "loss", "memory", "torch"),
    DETAILS: ("optimizer", "predict", "growth", "start", "scaling"),
}


def filled(path: Path) -> str:
    """The text of a file of TABLES with every table as the JSON files have it."""
    text = path.read_text(encoding="utf-8")
    for name in TABLES[path]:
        markdown = import_module(f"benchmarks.{name}").markdown(read(name))
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
