"""python -m benchmarks accuracy|step|gpu|estimators|resources|launches|fuzz: what the READMEs state, measured.

Each writes benchmarks/results/NAME.json with the machine and the versions, and prints a table. `readme` puts the tables
of those files into README.md, between the marks <!-- NAME --> and <!-- /NAME -->.
"""

import argparse
from importlib import import_module

COMMANDS = ("accuracy", "step", "gpu", "estimators", "resources", "launches", "fuzz", "readme")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_known_args()[0].command
    import_module(f"benchmarks.{command}").main()


if __name__ == "__main__":
    main()
