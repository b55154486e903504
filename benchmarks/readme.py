"""Puts the tables of benchmarks/results/*.json into README.md."""

import re
from importlib import import_module
from pathlib import Path

from benchmarks.results import read

README = Path(__file__).parent.parent / "README.md"
TABLES = ("accuracy", "step")


def filled(text: str) -> str:
    """README's text with every table as the JSON files have it."""
    for name in TABLES:
        markdown = import_module(f"benchmarks.{name}").markdown(read(name))
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda match, new=markdown: f"{match[1]}{new}\n{match[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"README.md has {count} places for the table {name}; expected <!-- {name} --> once")
    return text


def main() -> None:
    README.write_text(filled(README.read_text()))
