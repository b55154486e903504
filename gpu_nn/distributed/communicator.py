"""Ranks: processes that train one network together. All that they say to each other is sums of arrays."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gpu_nn.device import Array
from gpu_nn.errors import DataError


def shard(n: int, index: int, count: int) -> slice:
    """Of n rows those of a part."""
    return slice(n * part // parts, n * (part + 1) // parts)


_Error = TypeVar("_Error", bound=Exception)


class Communicator:
    """This process among the others; by itself, alone.

    rank: its number, from 0. size: how many there are. Every method but `fail` is called by all of them, in the same
    order.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def all_reduce(self, array: Array) -> None:
        """Write the sum of all ranks' arrays over each of them: the same bits on every rank.

        array: contiguous, of a number type, of the same shape everywhere, on the device that the ranks were made for
        or on the host.
        """

    # Whether sums that were begun go on while the device works on other arrays.
    supports_overlap = False

    def all_reduce_async(self, *arrays: Array) -> None:
        """Begin what `sum` does with each of them; `wait` waits for it. Nobody touches them in between."""
        for array in arrays:
            self.sum(array)

    def wait(self) -> None:
        """What comes after it finds all sums that were begun; on a device that is work that is queued after it."""

    def shard(self, n: int) -> slice:
        """Of n rows, a batch or a set, those of this rank."""
        return share(n, self.rank, self.size)

    def abort(self, error: Exception) -> None:
        """This rank raises `error`: there are no more sums for it, and where it is alone in this none for the others.

        Ends this process where all of them are the launcher's own; else returns, for the error to be raised.
        """

    def close(self, timeout: float | None = None) -> None:
        """There are no more sums for this rank.

        seconds: in which the others must leave, too, where ranks that leave wait for each other; None is any time.
        """

    def local_rank(self) -> int:
        """The number of this rank among those on the same host: which GPU is its own."""
        return 0

    def all_gather_object(self, value: Any) -> list[Any]:
        """What each rank gave, by rank. value: anything that JSON can say."""
        if self.size == 1:
            return [value]
        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(content)
        self.sum(lengths)
        rows = np.zeros((self.size, int(lengths.max())), np.uint8)
        rows[self.rank, : len(content)] = content
        self.sum(rows)
        return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]

    def assert_same_on_all_ranks(self, what: dict[str, Any]) -> None:
        """Raises ValueError, on all ranks, that names the first entry in which a rank differs from rank 0."""
        first, *others = self.all_gather_object(what)
        for rank, told in enumerate(others, start=1):
            for name in (*first, *(name for name in told if name not in first)):
                if first.get(name) != told.get(name):
                    unlike = f"rank {rank} has {name} = {told.get(name)!r}, rank 0 has {first.get(name)!r}"
                    hint = "expected the same on all ranks: start them with the same command and data"
                    raise self.mark_raised_on_all_ranks(ValueError(f"{unlike}; {hint}"))

    @contextmanager
    def raise_on_all_ranks(self) -> Iterator[None]:
        """A block without sums that may fail on one rank alone; then it fails on all.

        Raises what was raised here; where it was raised elsewhere, its like, with the number of the rank in front.
        """
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        told = self.all_gather_object(None if problem is None else str(problem))
        if problem is not None:
            raise self.mark_raised_on_all_ranks(problem)
        for rank, text in enumerate(told):
            if text is not None:
                raise self.mark_raised_on_all_ranks(RankFailed(f"rank {rank}: {text}"))

    def mark_raised_on_all_ranks(self, error: _Error) -> _Error:
        """The error, which all ranks raise now, each its own, for the same reason."""
        if self.size > 1:  # else it may be of one of several ranks, in a training of its own
            error.__dict__[_ALIKE] = True
        return error


_ALIKE = "_raised_on_all_ranks"


def is_raised_on_all_ranks(error: BaseException) -> bool:
    """Whether each rank raises such an error, for the same reason, so that none waits for another."""
    return _ALIKE in error.__dict__


class RankFailed(DataError):
    """Another rank could not go on."""


SINGLE_PROCESS = Communicator()
