"""python -m tests.fuzz.kills [--kills 50]: a training is killed at random moments and resumed each time.

Every run is `gpu-nn train` on the digits in a process of its own, with dropout, early stopping and a checkpoint every
few steps; a third of the killed runs stream from an npy file. SIGKILL comes up to one epoch's time after the start of
the training or after the end of a random epoch. `gpu-nn train --resume` then finishes the training, whose parameters
and history must equal those of an uninterrupted run bit by bit. In half of the runs the resumed training is killed too.

Writes tests/fuzz/results/resume.json. Exit code 1 when a resume failed or a bit differs.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.data import digits
from gpu_nn.model_file import load
from gpu_nn.training import History
from tests.fuzz.results import write

SETTINGS = ("--hidden", "64", "--dropout", "0.2", "--early-stopping", "30", "--lr", "0.003", "--epochs", "120")
EVERY = "3steps"  # an epoch has 41 steps


def started(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gpu_nn", "train", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def begun(folder: Path, data: Sequence[str]) -> subprocess.Popen:
    return started(*data, *SETTINGS, "--device", "cpu", "--checkpoint-every", EVERY, "--out", str(folder))


def streamed(folder: Path) -> list[str]:
    """The digits in npy files of the folder, as arguments of a run that streams them."""
    x, y = str(folder / "x.npy"), str(folder / "y.npy")
    for path, array in zip((x, y), digits(), strict=True):
        np.save(path, array)
    return ["--data", x, "--target", y, "--stream"]


def went_on_until(process: subprocess.Popen, folder: Path, epoch: int) -> None:
    """Return when the process has reported that epoch or a later one or, for 0, has written its settings."""
    if epoch == 0:
        while not (folder / "checkpoints" / "config.toml").exists() and process.poll() is None:
            time.sleep(0.001)
        return
    for line in process.stderr or ():
        reported = re.match(r"epoch (\d+),", line)
        if reported and int(reported[1]) >= epoch:
            return


def outcome(folder: Path) -> tuple[bytes, list[tuple]]:
    """The parameters' bytes, and the history without its seconds."""
    net = load(folder / "model.safetensors", "cpu")
    history = History.from_json((folder / "history.json").read_text())
    records = [tuple(value for name, value in vars(record).items() if name != "seconds") for record in history.epochs]
    return net.flat_parameters.tobytes(), records


def killed(process: subprocess.Popen, folder: Path, epoch: int, seconds: float) -> dict[str, Any] | None:
    """Kill it that many seconds after the epoch, and describe the moment. None when the training had already ended."""
    went_on_until(process, folder, epoch)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    if (folder / "config.toml").exists():
        return None
    names = os.listdir(folder / "checkpoints")
    return {
        "after_epoch": epoch,
        "seconds_later": round(seconds, 4),
        "checkpoints": sum(name.startswith("steps-") for name in names),
        "while_writing": any(name.startswith(".steps-") for name in names),
    }


@dataclass(frozen=True)
class Unbroken:
    """An uninterrupted run: the arguments that name its data, its outcome, and the seconds of an epoch."""

    data: Sequence[str]
    outcome: tuple[bytes, list[tuple]]
    seconds: float

    @property
    def epochs(self) -> int:
        return len(self.outcome[1])


def unbroken(folder: Path, data: Sequence[str]) -> Unbroken:
    process = begun(folder, data)
    errors = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"the unbroken run failed: {errors}")
    seconds = History.from_json((folder / "history.json").read_text()).column("seconds")
    return Unbroken(data, outcome(folder), statistics.median(seconds))


def measured(kills: int, seed: int = 0) -> dict[str, Any]:
    chosen = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        in_memory = unbroken(Path(place) / "in memory", ())
        from_file = unbroken(Path(place) / "streamed", streamed(Path(place)))
        moments: list[dict[str, Any]] = []
        problems: list[str] = []
        runs = resumes = late = 0
        while len(moments) < kills:
            runs += 1
            folder = Path(place) / f"run{runs}"
            # A third of the kills, among runs that are killed once and runs that are killed twice.
            streams = 3 * sum(moment["streamed"] for moment in moments) < len(moments)
            run = from_file if streams else in_memory
            process = begun(folder, run.data)
            # Not after the last epoch, so that the moment lies within the run.
            for epoch in sorted(chosen.sample(range(run.epochs - 1), 1 + runs % 2)):
                moment = killed(process, folder, epoch, chosen.uniform(0, run.seconds))
                if moment is None:
                    late += 1
                else:
                    moments.append({"streamed": streams, **moment})
                process = started("--resume", str(folder))
                resumes += 1
            errors = process.communicate()[1]
            name = f"run {runs}, {'streamed' if streams else 'in memory'}"
            if process.returncode:
                problems.append(f"{name}: exit code {process.returncode}: {errors.splitlines()[-1:]}")
            elif outcome(folder) != run.outcome:
                problems.append(f"{name}: other bits than the unbroken run")
            print(f"{len(moments)} kills, {len(problems)} problems", file=sys.stderr, flush=True)
    return {
        "settings": " ".join(SETTINGS),
        "checkpoint_every": EVERY,
        "epochs": in_memory.epochs,
        "seconds_of_an_epoch": round(in_memory.seconds, 4),
        "epochs_streamed": from_file.epochs,
        "seconds_of_an_epoch_streamed": round(from_file.seconds, 4),
        "runs": runs,
        "kills": len(moments),
        "kills_of_streamed_runs": sum(moment["streamed"] for moment in moments),
        "resumes": resumes,
        "kills_before_the_first_checkpoint": sum(not moment["checkpoints"] for moment in moments),
        "kills_while_a_checkpoint_was_written": sum(moment["while_writing"] for moment in moments),
        "kills_that_came_after_the_end_and_do_not_count": late,
        "problems": problems,
        "moments": moments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills")
    parser.add_argument("--kills", type=int, default=50)
    result = measured(parser.parse_args().kills)
    write("resume", result, "numpy", "safetensors")
    print(json.dumps({name: value for name, value in result.items() if name != "moments"}, indent=1))
    sys.exit(bool(result["problems"]))


if __name__ == "__main__":
    main()
