"""The communicator of the processes that train one network. Every exchange is built on one operation, `all_reduce`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed.environment import EXIT_FAILURE
from gpu_nn.errors import DataError

# Seconds that the other ranks have to end when one ends early, by an interrupt or with an exit code.
CLOSE_TIMEOUT = 20.0

_Error = TypeVar("_Error", bound=Exception)


def shard(n: int, index: int, count: int) -> slice:
    """The rows of shard `index` where n rows are split evenly into `count` shards."""
    return slice(n * index // count, n * (index + 1) // count)


class Communicator:
    """The ranks that train together. This class itself is the communicator of a single process.

    rank: of this process, from 0. size: the number of ranks. All ranks call every method but `abort` in the same order.

    A `with` block closes the communicator at its end. An exception of this rank alone ends the processes of all ranks
    where MPI started them; elsewhere it is raised here, and the other ranks raise DeviceError in their current or next
    exchange. An exception that all ranks raise ends the ranks other than 0 with exit code 1 where MPI started them.
    """

    # Whether `all_reduce_async` runs beside other work of the device.
    supports_overlap = False

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def all_reduce(self, array: Array) -> None:
        """Replace the array on each rank by the sum over all ranks, with the same bits on every rank.

        array: contiguous, of a number type, of one shape on all ranks, on the communicator's device or on the host.
        """

    def all_reduce_async(self, *arrays: Array) -> None:
        """Start `all_reduce` of each array. `wait` must come before anything reads or writes them."""
        for array in arrays:
            self.all_reduce(array)

    def wait(self) -> None:
        """Wait for every `all_reduce_async` that was started. On a GPU only the work that is queued after it waits."""

    def local_rank(self) -> int:
        """The rank among the processes of the same host; it selects the GPU."""
        return 0

    def abort(self, error: Exception) -> None:
        """Tell the other ranks that this rank raises `error` and takes part in no more exchanges.

        Where MPI started the processes this ends all of them, unless all ranks raise the error.
        """

    def close(self, timeout: float | None = None) -> None:
        """End the exchanges of this rank; a communicator over messages waits until all ranks have closed.

        timeout: seconds to wait, after which MPI ends this process; None waits as long as the other ranks need.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self.close()
            elif isinstance(error, SystemExit):
                if isinstance(error.code, str):
                    # The interpreter would print it after the other ranks have ended this process.
                    print(error.code, file=sys.stderr, flush=True)
                    error.code = EXIT_FAILURE
                self.close(CLOSE_TIMEOUT if error.code else None)
            elif isinstance(error, KeyboardInterrupt):
                self.close(CLOSE_TIMEOUT)
        except Exception as failure:  # any: the other ranks would wait for this one
            self.abort(failure)
            raise
        if isinstance(error, Exception):
            self.abort(error)

    def shard(self, n: int) -> slice:
        """The rows of this rank where the ranks split n rows, a batch or a data set, evenly."""
        return shard(n, self.rank, self.size)

    def broadcast(self, array: Array) -> None:
        """Replace the array on each rank by that of rank 0."""
        if self.rank:
            array.fill(0)
        self.all_reduce(array)

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        flags = np.array([int(flag)])
        self.all_reduce(flags)
        return bool(flags[0])

    def all_gather_object(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank. value: anything that JSON represents."""
        if self.size == 1:
            return [value]
        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(content)
        self.all_reduce(lengths)
        rows = np.zeros((self.size, int(lengths.max())), np.uint8)
        rows[self.rank, : len(content)] = content
        self.all_reduce(rows)
        return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]

    def assert_same_on_all_ranks(self, values: dict[str, Any]) -> None:
        """Raises ValueError, on all ranks, that names the first entry in which a rank differs from rank 0."""
        first, *others = self.all_gather_object(values)
        for rank, other in enumerate(others, start=1):
            for name in (*first, *(name for name in other if name not in first)):
                if first.get(name) != other.get(name):
                    difference = f"rank {rank} has {name} = {other.get(name)!r}, rank 0 has {first.get(name)!r}"
                    hint = "expected the same on all ranks: start them with the same command and data"
                    raise self.mark_raised_on_all_ranks(ValueError(f"{difference}; {hint}"))

    @contextmanager
    def raise_on_all_ranks(self) -> Iterator[None]:
        """Raise an exception of the block on all ranks. The block may fail on one rank alone; it makes no exchanges.

        A rank whose block raised raises that exception; the others raise RankFailed with the number of that rank.
        """
        problem: Exception | None = None
        try:
            yield
        except Exception as error:  # any: the other ranks would wait for this one
            problem = error
        messages = self.all_gather_object(None if problem is None else str(problem))
        if problem is not None:
            raise self.mark_raised_on_all_ranks(problem)
        for rank, message in enumerate(messages):
            if message is not None:
                raise self.mark_raised_on_all_ranks(RankFailed(f"rank {rank}: {message}"))

    def mark_raised_on_all_ranks(self, error: _Error) -> _Error:
        """Mark the error as one that all ranks raise now, each its own, for the same reason. Returns it."""
        if self.size > 1:  # a single process may be one of several ranks, in a training of its own
            error.__dict__[_MARK] = True
        return error


_MARK = "_raised_on_all_ranks"


def is_raised_on_all_ranks(error: BaseException) -> bool:
    """Whether every rank raises such an error for the same reason, so that no rank waits for another."""
    return _MARK in error.__dict__


class RankFailed(DataError):
    """Another rank cannot go on."""


SINGLE_PROCESS = Communicator()
