"""Puts the tables of benchmarks/results/*.json into README.md."""

from importlib import import_module
from pathlib import Path

from benchmarks.results import read

README = Path(__file__).parent.parent / "README.md"
TABLES = ("accuracy", "step", "torch")


def filled(text: str) -> str:
    """README's text with every table as the JSON files have it."""
    for name in TABLES:
        markdown = import_module(f"benchmarks.{name}").markdown(read(name))
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        if not closing:
            raise SystemExit(
                f"README.md has no place for the table {name}; expected <!-- {name} --> … <!-- /{name} -->"
            )
        text = f"{before}{opening}{markdown}\n{closing}{after}"
    return text


def main() -> None:
    README.write_text(filled(README.read_text()))
