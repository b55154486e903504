"""Seconds until a new Python process has imported the package, and until the command has printed its help."""

import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.results import Goal, table

IMPORT, HELP = "import gpu_nn", "gpu-nn --help"
NETWORK = "from gpu_nn import Network, Trainer"
COMMANDS = {
    "nothing": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    IMPORT: ["-c", IMPORT],
    NETWORK: ["-c", NETWORK],
    HELP: ["-m", "gpu_nn", "--help"],
    "gpu-nn train --help": ["-m", "gpu_nn", "train", "--help"],
}
GOALS_ARE_UPPER_BOUNDS = True
GOALS = {IMPORT: 0.25, HELP: 0.4}


def measure(quick: bool) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    rounds = 1 if quick else 11
    for turn in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first writes the bytecode
                seconds[name].append(time.perf_counter() - began)
    return {"seconds": {name: np.percentile(s, (50, 10, 90)).tolist() for name, s in seconds.items()}}


def markdown(result: dict[str, Any]) -> str:
    rows = [[f"`{name}`", f"{s[0]:.3f} ({s[1]:.3f}–{s[2]:.3f})"] for name, s in result["seconds"].items()]
    return table(["a new Python and", "s"], rows)


def goals(result: dict[str, Any]) -> list[Goal]:
    return [(f"{name}, s", result["seconds"][name][0], goal) for name, goal in GOALS.items()]
