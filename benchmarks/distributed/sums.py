"""python -m benchmarks sums: sums of float32 arrays over ranks on this machine, by MPI and by Gloo.

Engines take turns, each time with processes of their own; a sum's time is the slowest rank's, ranks met before it.
--before FOLDER measures the ranks of another checkout too, started with torchrun's variables.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import machine, table, write
from benchmarks.timing import cell, ratios, spreads

RANKS = (2, 4)
BYTES = (8, 65_536, 1_000_000, 30_000_000)
ROUNDS = 7
BY_MPI, BY_GLOO, BEFORE = "MPI", "Gloo", "before"

ROOT = Path(__file__).parent.parent
PORT = 29_471


def sizes(quick: bool) -> tuple[int, ...]:
    return BYTES[:2] if quick else BYTES


def ranks_measured(engine: str, p: int, checkout: Path, quick: bool) -> dict[str, float]:
    """Median seconds of a sum, by its bytes, over so many ranks."""
    # -P: beside it lies benchmarks/torch.py.
    worker = [sys.executable, "-P", str(ROOT / "benchmarks" / "sums_ranks.py"), *map(str, sizes(quick))]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PMI", "MPI", "OMPI", "SLURM"))
    } | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if engine == BY_MPI:
        launcher = Path(sys.executable).parent / "mpiexec"
        done = subprocess.run([str(launcher), "-n", str(p), *worker], env=clean, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)
    place = {"WORLD_SIZE": str(p), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT)}
    processes = [
        subprocess.Popen(worker, env={**clean, **place, "RANK": str(rank)}, stdout=subprocess.PIPE) for rank in range(p)
    ]
    told = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"ranks by {engine} failed")
    return json.loads(told[0])


def measured(before: Path | None, quick: bool) -> list[dict[str, Any]]:
    engines = {BY_MPI: ROOT, BY_GLOO: ROOT} | ({} if before is None else {BEFORE: before})
    lines = []
    for p in RANKS:
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
        for _ in range(1 if quick else ROUNDS):
            for engine, checkout in engines.items():
                runs[engine].append(ranks_measured(engine, p, checkout, quick))
        for size in sizes(quick):
            seconds = {engine: [run[str(size)] for run in found] for engine, found in runs.items()}
            times = ratios(seconds, BY_MPI)
            lines.append({"ranks": p, "bytes": size, "microseconds": spreads(seconds), "times": times})
    return lines


def markdown(result: dict[str, Any]) -> str:
    engines = list(result["sums"][0]["microseconds"])
    lines = []
    for line in result["sums"]:
        cells = [cell(line["microseconds"][engine]) for engine in engines]
        for i, engine in enumerate(engines[1:], start=1):
            cells[i] += f", {line['times'][engine]:.2f} ×"
        lines.append([f"{line['bytes']:,}", str(line["ranks"]), *cells])
    return table(["bytes", "ranks", *(f"{engine}, µs" for engine in engines)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks sums", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, whose ranks are measured too")
    parser.add_argument("--quick", action="store_true", help="two sizes, once; writes nothing")
    options = parser.parse_args()
    packages = ("numpy", "mpi4py", "mpich", "torch")
    result = {"machine": machine(*packages), "sums": measured(options.before, options.quick)}
    if not options.quick:
        write("sums", result)
    print(markdown(result))
