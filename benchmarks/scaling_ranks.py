"""What one rank of `python -m benchmarks scaling` measures; mpiexec starts it, rank 0 prints JSON.

Micro-runs: sums of arrays by size, and steps by rows without any sum, on all ranks at the same time. Runs: steps with
sums, the batch of one process shared out (strong) or one such batch on each rank (weak).
"""

import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from gpu_nn import Adam, Network, Trainer
from gpu_nn.device import Array
from gpu_nn.distributed import Communicator, init_process_group

BYTES = (4, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)


class TimedRanks(Communicator):
    """Ranks that note how long the sums of one array take, waiting for the others included."""

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
    """Ranks that do all of a step but exchange anything: their work alone."""

    def all_gather_object(self, value: Any) -> list[Any]:
        return [value] * self.size


def slowest(communicator: Communicator, seconds: float) -> float:
    return max(communicator.all_gather_object(seconds))


def sums(communicator: Communicator, repeats: int) -> dict[int, float]:
    """Median seconds of a sum of so many bytes."""
    found = {}
    meet = np.zeros(1)
    for n_bytes in BYTES:
        array, seconds = np.zeros(n_bytes // 4, np.float32), []
        for _ in range(repeats):
            communicator.all_reduce(meet)
            began = time.perf_counter()
            communicator.all_reduce(array)
            seconds.append(time.perf_counter() - began)
        found[n_bytes] = slowest(communicator, statistics.median(seconds))
    return found


def steps(communicator: Communicator, widths: list[int], batch: int, together: bool, count: int) -> dict[str, float]:
    """Median seconds of a step, and of the gradient's sum in it, over epochs of `count` batches.

    batch: rows of all ranks.  together: with sums; else each rank does its share for itself.
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
    return {name: slowest(communicator, statistics.median(s)) for name, s in (("seconds", seconds), ("in_sum", in_sum))}


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """job: the networks, as name, widths, batch and batches in an epoch; how often a sum is repeated."""
    communicator = init_process_group("cpu")[0]
    p = communicator.size
    found: dict[str, Any] = {"ranks": p, "sums": sums(communicator, job["repeats"]) if p > 1 else {}, "networks": {}}
    for name, widths, batch, count in job["networks"]:
        rows = [batch // 4, batch // 2, batch]
        found["networks"][name] = {
            "by_rows": {r: steps(communicator, widths, r * p, False, count)["seconds"] for r in rows},
            "strong": steps(communicator, widths, batch, True, count),
            "weak": steps(communicator, widths, batch * p, True, count),
        }
    return found if communicator.rank == 0 else {}


if __name__ == "__main__":
    result = measured(json.loads(sys.argv[1]))
    if result:
        print(json.dumps(result))
