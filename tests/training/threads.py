"""Ranks that are threads of this process."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator, is_raised_on_all_ranks

SECONDS = 60


class ThreadRanks(Communicator):
    """sums: what all of them share, by rank. barrier: where they wait for each other."""

    def __init__(self, rank: int, sums: list[Any], barrier: threading.Barrier):
        super().__init__(rank, len(sums))
        self._sums, self._barrier = sums, barrier

    def all_reduce(self, array: np.ndarray) -> None:
        self._sums[self.rank] = array.copy()
        self._barrier.wait(SECONDS)
        rows = list(self._sums)
        while len(rows) > 1:
            rows = [sum(rows[i + 1 : i + 2], rows[i]) for i in range(0, len(rows), 2)]
        self._barrier.wait(SECONDS)
        array[...] = rows[0]

    def abort(self, error: Exception) -> None:
        if not is_raised_on_all_ranks(error):
            self._barrier.abort()


def on_each(size: int, work: Callable[[Communicator], Any]) -> list[Any]:
    """What `work` returns on each rank; what one of them raises ends all."""
    if size == 1:
        return [work(SINGLE_PROCESS)]
    barrier = threading.Barrier(size)
    sums: list[Any] = [None] * size

    def on(rank: int) -> Any:
        try:
            return work(ThreadRanks(rank, sums, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        running = [pool.submit(on, rank) for rank in range(size)]
        errors = [future.exception() for future in running]
    told = [error for error in errors if error is not None]
    told.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if told:
        raise told[0]
    return [future.result() for future in running]
