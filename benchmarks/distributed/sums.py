"""python -m benchmarks sums: all-reduces of float32 arrays over ranks on this machine, by MPI and by Gloo.

Shapes: BYTES on RANKS ranks, one BLAS thread each. The engines take turns, each time with new processes; a time is that
of the slowest rank, after a barrier. --before FOLDER also measures the ranks of another checkout, started with
torchrun's variables; its `gpu_nn.distributed` must have the names that this file imports.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import machine, table, write
from benchmarks.timing import compared, ratios, spreads
from gpu_nn.distributed import Communicator, init_process_group

RANKS = (2, 4)
BYTES = (8, 65_536, 1_000_000, 30_000_000)
ROUNDS = 7
# For each size: about so many seconds, and at least and at most so many sums.
ENOUGH, LEAST, MOST = 0.5, 5, 500
BY_MPI, BY_GLOO, BEFORE = "MPI", "Gloo", "before"

ROOT = Path(__file__).parents[2]
PORT = 29_471
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def printed_by_mpi_ranks(p: int, arguments: list[str], environment: dict[str, str]) -> Any:
    """The JSON that p ranks of Python with these arguments print."""
    command = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(p), sys.executable, *arguments]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def ranks_measured(engine: str, p: int, checkout: Path, sizes: Sequence[int]) -> dict[str, float]:
    """Median seconds of a sum over p ranks, by its bytes."""
    # By its path: `gpu_nn` is that of the checkout, this file is not.
    worker = ["-P", __file__, "--rank", *map(str, sizes)]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PMI", "MPI", "OMPI", "SLURM"))
    } | {"PYTHONPATH": str(checkout), **ONE_THREAD}
    if engine == BY_MPI:
        return printed_by_mpi_ranks(p, worker, clean)
    place = {"WORLD_SIZE": str(p), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT)}
    processes = [
        subprocess.Popen([sys.executable, *worker], env={**clean, **place, "RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(p)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"ranks by {engine} failed")
    return json.loads(outputs[0])


def measured(before: Path | None, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    engines = {BY_MPI: ROOT, BY_GLOO: ROOT} | ({} if before is None else {BEFORE: before})
    lines = []
    for p in RANKS:
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
        for _ in range(rounds):
            for engine, checkout in engines.items():
                runs[engine].append(ranks_measured(engine, p, checkout, sizes))
        for size in sizes:
            seconds = {engine: [run[str(size)] for run in found] for engine, found in runs.items()}
            times = ratios(seconds, BY_MPI)
            lines.append({"ranks": p, "bytes": size, "microseconds": spreads(seconds), "times": times})
    return lines


def markdown(result: dict[str, Any]) -> str:
    engines = list(result["sums"][0]["microseconds"])
    lines = []
    for line in result["sums"]:
        cells = [compared(line, engine, "times") for engine in engines]
        lines.append([f"{line['bytes']:,}", str(line["ranks"]), *cells])
    return table(["bytes", "ranks", *(f"{engine}, µs" for engine in engines)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks sums", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, whose ranks are measured too")
    parser.add_argument("--quick", action="store_true", help="two sizes, once; writes nothing")
    options = parser.parse_args()
    packages = ("numpy", "mpi4py", "mpich", "torch")
    sizes, rounds = (BYTES[:2], 1) if options.quick else (BYTES, ROUNDS)
    result = {"machine": machine(*packages), "sums": measured(options.before, sizes, rounds)}
    if not options.quick:
        write("sums", result)
    print(markdown(result))


def sum_seconds(communicator: Communicator, n_bytes: int, repeats: int | None = None) -> float:
    """Median seconds of the slowest rank. repeats: None takes about ENOUGH seconds."""
    array, meet = np.ones(n_bytes // 4, np.float32), np.zeros(1)
    seconds: list[float] = []
    most = repeats or MOST
    while len(seconds) < most:
        communicator.all_reduce(meet)
        began = time.perf_counter()
        communicator.all_reduce(array)
        seconds.append(max(communicator.all_gather_object(time.perf_counter() - began)))
        if repeats is None and len(seconds) == LEAST:  # these times are the same on all ranks
            most = max(LEAST, min(MOST, int(ENOUGH / statistics.median(seconds))))
        array.fill(1)
    return statistics.median(seconds)


def _rank(sizes: list[str]) -> None:
    """Measure as one of the ranks; rank 0 prints JSON."""
    communicator, _ = init_process_group("cpu")
    with communicator:
        found = {n_bytes: sum_seconds(communicator, int(n_bytes)) for n_bytes in sizes}
        if communicator.rank == 0:
            print(json.dumps(found))


if __name__ == "__main__":
    _rank(sys.argv[2:])
