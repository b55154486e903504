"""python -m benchmarks scaling: training on many ranks, predicted for up to 1,024 GPUs and measured on CPU ranks.

`benchmarks.distributed.model` predicts. On this machine one, two and four MPI ranks run micro-benchmarks, whose figures
become the parameters of the same model, and then train: predicted beside measured. BLAS has one thread in each rank;
four ranks on two cores get half of a core each.

The micro-benchmarks are sums by bytes, and steps by rows without a sum, on all ranks at once. A training divides one
batch among the ranks (strong) or gives such a batch to each (weak).
"""

import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks.distributed import model
from benchmarks.distributed.model import Cpu
from benchmarks.distributed.sums import ONE_THREAD, printed_by_mpi_ranks, sum_seconds
from benchmarks.results import machine, table, write
from benchmarks.roofline import Training
from benchmarks.step import NETWORKS
from gpu_nn import Adam, Network, Trainer
from gpu_nn.device import Array
from gpu_nn.distributed import Communicator, init_process_group

RANKS = (1, 2, 4)
BYTES = (4, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
# Batches of an epoch in the measured runs, which then take some tenths of a second.
STEPS = {"A1": 60, "A2": 8, "A3": 600}


def ranks_measured(p: int, repeats: int, rounds: int) -> list[dict[str, Any]]:
    """What p ranks measure, `rounds` times."""
    networks = [[name, *NETWORKS[name][:2], steps] for name, steps in STEPS.items()]
    job = json.dumps({"networks": networks, "repeats": repeats})
    worker = ["-m", "benchmarks.distributed.scaling", "--rank", job]
    return [printed_by_mpi_ranks(p, worker, {**os.environ, **ONE_THREAD}) for _ in range(rounds)]


def median(found: list[Any]) -> Any:
    """The medians of equal nestings of floats; other values are those of the first."""
    if isinstance(found[0], dict):
        return {name: median([one[name] for one in found]) for name in found[0]}
    return float(np.median(found)) if isinstance(found[0], float) else found[0]


def line_through(points: dict[str, float]) -> tuple[float, float]:
    """Value at 0 and slope, by least squares of the relative errors; neither below 0."""
    at, values = np.array([float(size) for size in points]), np.array(list(points.values()))
    rows = np.stack([np.ones_like(at), at], axis=1) / values[:, None]
    from scipy.optimize import nnls

    start, slope = nnls(rows, np.ones(len(at)))[0]
    return float(start), float(slope)


def cpu_of(name: str, runs: dict[int, Any], p: int, cores: int) -> Cpu:
    """The model's figures for p ranks, from micro-benchmarks in which p ranks keep every core busy and share none.

    The wait for ranks on the same core comes from the smallest sum of p ranks.
    """
    busy = max(communicator for communicator in runs if communicator <= min(p, cores))
    fixed, a_row = line_through(runs[busy]["networks"][name]["by_rows"])
    pair = runs[min(2, max(runs))]["sums"]
    start, a_byte = line_through(pair) if pair else (0.0, 0.0)
    unwaiting = Cpu(cores, fixed, a_row, start, a_byte)
    if p <= cores:
        return unwaiting
    smallest = min(runs[p]["sums"], key=int)
    wait = max(0.0, (runs[p]["sums"][smallest] - unwaiting.sum(float(smallest), p)) / np.log2(p))
    return Cpu(cores, fixed, a_row, start, a_byte, float(wait))


def compared(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds of a step and of the gradient's sum, predicted and measured, by network, kind and number of ranks."""
    runs = {int(p): found for p, found in result["runs"].items()}
    lines = []
    for name, (widths, batch, _) in NETWORKS.items():
        n_bytes = Training(name, widths, batch).gradient_bytes
        for kind in ("strong", "weak"):
            for p in runs:
                cpu = cpu_of(name, runs, p, result["machine"]["cores"])
                rows = batch / p if kind == "strong" else batch
                found = runs[p]["networks"][name][kind]
                step = {"predicted": cpu.step(rows, n_bytes, p), "measured": found["seconds"]}
                sums = {"sum_predicted": cpu.sum(n_bytes, p), "sum_measured": found["in_sum"]}
                lines.append({"network": name, "kind": kind, "ranks": p, "rows": rows, **step, **sums})
    return lines


class TimedRanks(Communicator):
    """Ranks that record the seconds of one array's sums, including the wait for other ranks."""

    def __init__(self, communicator: Communicator):
        super().__init__(communicator.rank, communicator.size)
        self._communicator = communicator
        self.seconds = 0.0
        self.timed: Array = None

    def all_gather_object(self, value: Any) -> list[Any]:
        return self._communicator.all_gather_object(value)

    def all_reduce(self, array: Array) -> None:
        began = time.perf_counter()
        self._communicator.all_reduce(array)
        if array is self.timed:
            self.seconds += time.perf_counter() - began


class SilentRanks(Communicator):
    """Ranks that compute a step without exchanging anything."""

    def all_gather_object(self, value: Any) -> list[Any]:
        return [value] * self.size


def steps(communicator: Communicator, widths: list[int], batch: int, together: bool, count: int) -> dict[str, float]:
    """Median seconds of a step, and of the gradient's sum in it, over epochs of `count` batches, on the slowest rank.

    batch: rows of all ranks. together: with sums; without, each rank computes its share alone.
    """
    random = np.random.default_rng(0)
    x = random.random((batch * count, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], len(x))
    timed = TimedRanks(communicator if together else SilentRanks(communicator.rank, communicator.size))
    trainer = Trainer(Network(widths, device="cpu"), Adam(1e-3), batch_size=batch, communicator=timed)
    timed.timed = trainer.net.flat.reduce_buffer
    trainer.fit(x, y, epochs=1)
    seconds, in_sum = [], []
    for _ in range(5):
        communicator.all_reduce(np.zeros(1))
        before = timed.seconds
        seconds.append(trainer.fit(x, y, epochs=1)[-1].seconds / count)
        in_sum.append((timed.seconds - before) / count)
    medians = {"seconds": statistics.median(seconds), "in_sum": statistics.median(in_sum)}
    return {name: max(communicator.all_gather_object(own)) for name, own in medians.items()}


def _measured_by_rank(job: dict[str, Any]) -> dict[str, Any]:
    """What one of the ranks that mpiexec started measures; empty but on rank 0.

    job: the networks, as name, widths, batch and batches of an epoch, and the repeats of a sum.
    """
    communicator = init_process_group("cpu")[0]
    p = communicator.size
    found: dict[str, Any] = {"ranks": p, "sums": {}, "networks": {}}
    if p > 1:
        found["sums"] = {n_bytes: sum_seconds(communicator, n_bytes, job["repeats"]) for n_bytes in BYTES}
    for name, widths, batch, count in job["networks"]:
        rows = [batch // 4, batch // 2, batch]
        found["networks"][name] = {
            "by_rows": {r: steps(communicator, widths, r * p, False, count)["seconds"] for r in rows},
            "strong": steps(communicator, widths, batch, True, count),
            "weak": steps(communicator, widths, batch * p, True, count),
        }
    return found if communicator.rank == 0 else {}


def on_the_cpu(result: dict[str, Any]) -> str:
    head = ["network, rows of a rank", "ranks", "step predicted, µs", "measured", "predicted / measured"]
    lines = []
    for found in compared(result):
        name = f"{found['network']}, {found['kind']}, {found['rows']:g}"
        steps = [f"{1e6 * found[key]:,.0f}" for key in ("predicted", "measured")]
        ratio = f"{found['predicted'] / found['measured']:.2f}"
        sums = [f"{1e6 * found[key]:,.0f}" for key in ("sum_predicted", "sum_measured")]
        lines.append([name, str(found["ranks"]), *steps, ratio, *(sums if found["ranks"] > 1 else ("", ""))])
    return table([*head, "sum predicted, µs", "measured, waiting included"], lines)


def markdown(result: dict[str, Any]) -> str:
    return f"""{model.markdown()}

MPI ranks on {result["machine"]["cores"]} cores, one BLAS thread each, predicted from micro-benchmarks and measured:

{on_the_cpu(result)}"""


def main() -> None:
    runs = {str(p): median(ranks_measured(p, repeats=100, rounds=3)) for p in RANKS}
    result = {"machine": machine("numpy", "mpi4py", "mpich"), "threads_of_a_rank": 1, "runs": runs}
    write("scaling", result)
    print(markdown(result))


if __name__ == "__main__":
    _, _, job = sys.argv  # --rank JOB
    if found := _measured_by_rank(json.loads(job)):
        print(json.dumps(found))
