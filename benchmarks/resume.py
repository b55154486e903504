"""python -m benchmarks.resume [--kills 50]: a training is killed at random moments, and each time it resumes.

Every run is `gpu-nn train` on the digits, with dropout, early stopping and a checkpoint every few steps, as a process
of its own that gets SIGKILL at a random moment, up to one epoch's time after the end of an epoch that is drawn by lot,
or after the training has begun. `gpu-nn train --resume` then goes on to the end, where parameters and history must have
the bits of a run that was left alone. In half of the runs the resumed training is killed too.

Writes benchmarks/results/resume.json. Exit code 1 when a resume failed or a bit differs.
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
from pathlib import Path
from typing import Any

from benchmarks.results import machine, write
from gpu_nn.model_file import load
from gpu_nn.training import History

SETTINGS = ("--hidden", "64", "--dropout", "0.2", "--early-stopping", "30", "--lr", "0.003", "--epochs", "120")
EVERY = "3steps"  # an epoch has 41 steps


def started(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gpu_nn", "train", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def begun(folder: Path) -> subprocess.Popen:
    return started(*SETTINGS, "--device", "cpu", "--checkpoint-every", EVERY, "--out", str(folder))


def went_on_until(process: subprocess.Popen, folder: Path, epoch: int) -> None:
    """Returns when the process has reported that epoch or a later one, or, for 0, has its settings in its folder."""
    if epoch == 0:
        while not (folder / "checkpoints" / "config.toml").exists() and process.poll() is None:
            time.sleep(0.001)
        return
    for line in process.stderr or ():
        reported = re.match(r"epoch (\d+),", line)
        if reported and int(reported[1]) >= epoch:
            return


def outcome(folder: Path) -> tuple[bytes, list[tuple]]:
    """Bits of the parameters, and all of the history but its seconds."""
    net = load(folder / "model.safetensors", "cpu")
    history = History.from_json((folder / "history.json").read_text())
    records = [tuple(value for name, value in vars(record).items() if name != "seconds") for record in history.epochs]
    return net.flat_parameters.tobytes(), records


def killed(process: subprocess.Popen, folder: Path, epoch: int, seconds: float) -> dict[str, Any] | None:
    """Kill so many seconds after the epoch; what was there then. None when the training had already ended."""
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


def measured(kills: int, seed: int = 0) -> dict[str, Any]:
    chosen = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "unbroken"
        process = begun(folder)
        errors = process.communicate()[1]
        if process.returncode:
            raise RuntimeError(f"the unbroken run failed: {errors}")
        expected = outcome(folder)
        epochs = len(expected[1])
        seconds = History.from_json((folder / "history.json").read_text()).column("seconds")
        of_an_epoch = statistics.median(seconds)
        moments: list[dict[str, Any]] = []
        problems: list[str] = []
        runs = resumes = late = 0
        while len(moments) < kills:
            runs += 1
            folder = Path(place) / f"run{runs}"
            process = begun(folder)
            # Not after the last epoch, so that the moment lies within the run.
            for epoch in sorted(chosen.sample(range(epochs - 1), 1 + runs % 2)):
                moment = killed(process, folder, epoch, chosen.uniform(0, of_an_epoch))
                if moment is None:
                    late += 1
                else:
                    moments.append(moment)
                process = started("--resume", str(folder))
                resumes += 1
            errors = process.communicate()[1]
            if process.returncode:
                problems.append(f"run {runs}: exit code {process.returncode}: {errors.splitlines()[-1:]}")
            elif outcome(folder) != expected:
                problems.append(f"run {runs}: other bits than the unbroken run")
            print(f"{len(moments)} kills, {len(problems)} problems", file=sys.stderr, flush=True)
    return {
        "settings": " ".join(SETTINGS),
        "checkpoint_every": EVERY,
        "epochs": epochs,
        "seconds_of_an_epoch": round(of_an_epoch, 4),
        "runs": runs,
        "kills": len(moments),
        "resumes": resumes,
        "kills_before_the_first_checkpoint": sum(not moment["checkpoints"] for moment in moments),
        "kills_while_a_checkpoint_was_written": sum(moment["while_writing"] for moment in moments),
        "kills_that_came_after_the_end_and_do_not_count": late,
        "problems": problems,
        "moments": moments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume")
    parser.add_argument("--kills", type=int, default=50)
    result = {"machine": machine("numpy", "safetensors"), **measured(parser.parse_known_args()[0].kills)}
    write("resume", result)
    print(json.dumps({name: value for name, value in result.items() if name not in ("machine", "moments")}, indent=1))
    sys.exit(bool(result["problems"]))


if __name__ == "__main__":
    main()
