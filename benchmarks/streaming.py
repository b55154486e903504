"""python -m benchmarks streaming [--gigabytes 4] [--network 784,256,128,10]: training on data larger than memory.

Random pixels are written as npy files into a temporary folder. Each training has a process of its own: one epoch over
all rows, streamed, while a thread reads RssAnon from /proc/self/status every 20 ms; and epochs of the same network and
batch over a subset in memory. The rate is rows a second of whole epochs, with shuffling, gathering and reading and
without validation. By turns, ROUNDS times, medians.

Writes benchmarks/results/streaming.json. Exit code 1 when a goal is missed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import status
from benchmarks.results import machine, write
from gpu_nn import Adam, Dense, Network, Standardize, Trainer
from gpu_nn.data import stream
from gpu_nn.layers import hidden_layers

GOALS = {"rss_anon_mb": 700, "share_of_the_rate_in_memory": 0.8}
BATCH, SUBSET, ROUNDS = 128, 65_536, 3


def written(folder: Path, gigabytes: float, widths: list[int]) -> int:
    """Write x.npy and y.npy there; returns the number of rows."""
    rows = int(gigabytes * 1e9) // (4 * widths[0])
    random = np.random.default_rng(0)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, widths[0]))
    for start in range(0, rows, 8192):
        part = x[start : start + 8192]
        part[...] = random.random(part.shape, np.float32)
    x.flush()
    np.save(folder / "y.npy", random.integers(0, widths[-1], rows))
    return rows


def trained(folder: Path, widths: list[int], in_memory: bool) -> dict[str, Any]:
    """Train in this process: the rows a second, and the peak memory."""
    net = Network(
        [Standardize(), *hidden_layers(widths[1:-1], "relu"), Dense(widths[-1])], n_inputs=widths[0], device="cpu"
    )
    trainer = Trainer(net, Adam(1e-3), batch_size=BATCH)
    if in_memory:
        data: list[Any] = [np.load(folder / name, mmap_mode="r")[:SUBSET].copy() for name in ("x.npy", "y.npy")]
    else:
        data = [stream(folder / "x.npy", str(folder / "y.npy"))]
    most = {"RssAnon": 0, "RssFile": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for name, before in most.items():
                most[name] = max(before, status(name))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        history = trainer.fit(*data, epochs=4 if in_memory else 1)
    finally:
        done.set()
        watching.join()
    # The first epoch in memory makes the buffers.
    seconds = history.column("seconds")[1:] if in_memory else history.column("seconds")
    return {"rows_a_second": len(data[0]) / statistics.median(seconds), "seconds": seconds, **most}


def measured(gigabytes: float, widths: list[int]) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"in_memory": [], "streamed": []}
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        rows = written(Path(place), gigabytes, widths)
        print(f"{rows} rows written in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for _ in range(ROUNDS):
            for name, found in runs.items():
                command = [sys.executable, "-m", "benchmarks.streaming", "--network", ",".join(map(str, widths))]
                done = subprocess.run([*command, f"--{name}", place], stdout=subprocess.PIPE, check=True)
                found.append(json.loads(done.stdout))
                print(f"{name}: {found[-1]}", file=sys.stderr, flush=True)
        size = sum(file.stat().st_size for file in Path(place).iterdir())
    rates = {name: statistics.median(run["rows_a_second"] for run in found) for name, found in runs.items()}
    most = {name: max(run[name] for run in runs["streamed"]) for name in ("RssAnon", "RssFile")}
    anonymous, share = round(most["RssAnon"] / 1e6, 1), round(rates["streamed"] / rates["in_memory"], 3)
    figures = {
        "rows_a_second": {name: round(rate) for name, rate in rates.items()},
        "rss_anon_mb": anonymous,
        "share_of_the_rate_in_memory": share,
        "rss_file_mb": round(most["RssFile"] / 1e6, 1),
        "goals": GOALS,
        "met": anonymous < GOALS["rss_anon_mb"] and share >= GOALS["share_of_the_rate_in_memory"],
    }
    return {"widths": widths, "batch": BATCH, "bytes": size, "rows": rows, "subset_rows": SUBSET, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks streaming")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--network", default="784,256,128,10")
    for way in ("--in_memory", "--streamed"):
        parser.add_argument(way, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_known_args()[0]
    widths = [int(width) for width in options.network.split(",")]
    folder = options.in_memory or options.streamed
    if folder is not None:
        print(json.dumps(trained(Path(folder), widths, options.in_memory is not None)))
        return
    result = {"machine": machine("numpy"), **measured(options.gigabytes, widths)}
    write("streaming", result)
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))
    sys.exit(not result["met"])


if __name__ == "__main__":
    main()
