"""The order in which the rows of a window of a stream are trained on, and the rows that each rank reads.

`StreamDataset` has drawn the order of the ranges of rows that make up the windows.

A window has n places, one for each row, which batches of `batch_size` split from its beginning; the last batch takes
what is left. Of a batch of s rows, rank r of R trains on columns ⌊s·r/R⌋ … ⌊s·(r+1)/R⌋-1. Unshuffled, row i is at
place i.

A shuffled order is drawn in K = SHUFFLE_SHARDS shards, whatever the number of ranks: shard k has columns ⌊s·k/K⌋ …
⌊s·(k+1)/K⌋-1 of each batch. One shard after the other takes the next rows of the window, one for each of its places,
and puts them there in a random order. So a batch has rows from all over the window, and the rows of a rank are one
range of the window, a share of 1/R. Where R does not divide K, each rank that has columns of a shard reads all of it.
"""

import numpy as np

from gpu_nn.distributed.communicator import Communicator, shard

SHUFFLE_SHARDS = 64


def shard_ranges(
    n: int, batch_size: int, communicator: Communicator, *, shuffled: bool, max_gap: int = 0
) -> list[tuple[int, int]]:
    """The rows of a window of n rows that this rank reads: begin … end-1 of each (begin, end), in order.

    max_gap: two ranges with at most this many rows of other ranks between them are read as one.
    """
    if communicator.size == 1:
        return [(0, n)]
    if shuffled:
        shards = _shards(n, batch_size, communicator)
        begin, end = (_first_row(n, batch_size, k) for k in (shards.start, shards.stop))
        return [(begin, end)] if begin < end else []
    found: list[tuple[int, int]] = []
    for start in range(0, n, batch_size):
        own = communicator.shard(min(batch_size, n - start))
        begin, end = start + own.start, start + own.stop
        if found and begin - found[-1][1] <= max_gap:
            begin = found.pop()[0]
        if begin < end:
            found.append((begin, end))
    return found


def own_places(n: int, batch_size: int, communicator: Communicator) -> np.ndarray:
    """Which places of a window this rank trains on, (n,) of bool."""
    places = np.zeros(n, bool)
    _put(np.ones(n, bool), places, batch_size, communicator.rank, communicator.size)
    return places


def order(n: int, batch_size: int, communicator: Communicator, seed: tuple[int, ...] | None) -> np.ndarray:
    """The order of a window, (n,) of int64: for each place of this rank the index of its row among the rows that the
    rank reads, for places of other ranks any such index, or 0.

    seed: of the window; None leaves the rows as they lie.
    """
    places, begin = np.zeros(n, np.int64), 0
    if seed is None:
        _put(np.arange(n), places, batch_size, communicator.rank, communicator.size)
        return places
    for k in _shards(n, batch_size, communicator):
        size = _first_row(n, batch_size, k + 1) - _first_row(n, batch_size, k)
        rows = np.random.default_rng([*seed, k]).permutation(size)
        rows += begin
        _put(rows, places, batch_size, k, SHUFFLE_SHARDS)
        begin += size
    return places


def _put(rows: np.ndarray, places: np.ndarray, batch_size: int, index: int, count: int) -> None:
    """Put the next rows into the columns of a shard in each batch."""
    whole = len(places) - len(places) % batch_size
    full, last = places[:whole].reshape(-1, batch_size), places[whole:]
    full, last = full[:, shard(batch_size, index, count)], last[shard(len(last), index, count)]
    full[...] = rows[: full.size].reshape(full.shape)
    last[...] = rows[full.size : full.size + len(last)]


def _first_row(n: int, batch_size: int, k: int) -> int:
    batches, rest = divmod(n, batch_size)
    return batches * (batch_size * k // SHUFFLE_SHARDS) + rest * k // SHUFFLE_SHARDS


def _shards(n: int, batch_size: int, communicator: Communicator) -> range:
    """The shards in which this rank has places, for batches of all sizes; they are adjacent."""
    found = []
    for size in {min(batch_size, n), n % batch_size}:
        own = communicator.shard(size)
        if own.start < own.stop:
            found += [_shard_of(own.start, size), _shard_of(own.stop - 1, size)]
    return range(min(found), max(found) + 1) if found else range(0)


def _shard_of(column: int, size: int) -> int:
    """The shard of a column in a batch of that size."""
    return (SHUFFLE_SHARDS * (column + 1) - 1) // size
