"""Runs tests with every kernel built in one mode: ``python -m tests.cuda_emulator MODE [--order ORDER] -- PYTEST…``."""

import argparse
import os
import sys

from .module import MODES, ORDERS


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cuda_emulator",
        usage="%(prog)s MODE [--order ORDER] [-- PYTEST ARGUMENTS]",
        description=__doc__,
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--order", choices=ORDERS, default=os.environ.get("CUDA_EMULATOR_ORDER", ORDERS[0]))
    at = arguments.index("--") if "--" in arguments else len(arguments)
    chosen = parser.parse_args(arguments[:at])
    # By the environment, so that pytest-xdist's workers and programs that tests start see it too.
    os.environ["CUDA_EMULATOR_MODE"] = chosen.mode
    os.environ["CUDA_EMULATOR_ORDER"] = chosen.order
    import pytest

    return int(pytest.main(arguments[at + 1 :]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
