"""In which order the rows of a window of a stream are trained on, and which of them each rank reads.

A window has n places, batches of `batch_size` from its beginning, the last one of what is left; of a batch of s rows
rank r of R has the columns ⌊s·r/R⌋ … ⌊s·(r+1)/R⌋-1. Unshuffled, the row of a number is at the place of that number.
Shuffled, an order is drawn in SHUFFLE_SHARDS lanes, however many ranks there are: lane l has the columns ⌊s·l/SHUFFLE_SHARDS⌋ …
⌊s·(l+1)/SHUFFLE_SHARDS⌋-1 of each batch; one lane after the other takes the next rows of the window, as many as it has places,
and they come to these in an order that is drawn. So a batch has rows from all over the window, and those of a rank are
one stretch of it, a share of 1/R. Where R does not divide SHUFFLE_SHARDS, a lane is read by each rank that has columns of it.
"""

import numpy as np

from gpu_nn.distributed.communicator import Communicator, share

SHUFFLE_SHARDS = 64


def shard_ranges(
    n: int, batch_size: int, communicator: Communicator, *, shuffled: bool, close: int = 0
) -> list[tuple[int, int]]:
    """What this rank reads of a window of n rows: rows begin … end-1 of each (begin, end), in order.

    close: so many rows of others, between two of its own shard_ranges, are read with them.
    """
    if communicator.size == 1:
        return [(0, n)]
    if shuffled:
        lanes = _lanes(n, batch_size, ranks)
        begin, end = (_first_row(n, batch_size, lane) for lane in (lanes.start, lanes.stop))
        return [(begin, end)] if begin < end else []
    found: list[tuple[int, int]] = []
    for start in range(0, n, batch_size):
        own = communicator.shard(min(batch_size, n - start))
        begin, end = start + own.start, start + own.stop
        if found and begin - found[-1][1] <= close:
            begin = found.pop()[0]
        if begin < end:
            found.append((begin, end))
    return found


def own_places(n: int, batch_size: int, communicator: Communicator) -> np.ndarray:
    """Which places of a window are of this rank, (n,) of bool."""
    places = np.zeros(n, bool)
    _put(np.ones(n, bool), places, batch_size, communicator.rank, communicator.size)
    return places


def order(n: int, batch_size: int, communicator: Communicator, seed: tuple[int, ...] | None) -> np.ndarray:
    """The order of a window, (n,) of int64: for each place of this rank the number of its row among those that the rank
    reads, for places of others any such number, or 0.

    seed: of the window, None for rows as they lie.
    """
    places, begin = np.zeros(n, np.int64), 0
    if seed is None:
        _put(np.arange(n), places, batch_size, communicator.rank, communicator.size)
        return places
    for lane in _lanes(n, batch_size, ranks):
        size = _first_row(n, batch_size, lane + 1) - _first_row(n, batch_size, lane)
        rows = np.random.default_rng([*seed, lane]).permutation(size)
        rows += begin
        _put(rows, places, batch_size, lane, SHUFFLE_SHARDS)
        begin += size
    return places


def _put(rows: np.ndarray, places: np.ndarray, batch_size: int, part: int, parts: int) -> None:
    """The next rows to a part's columns of each batch."""
    whole = len(places) - len(places) % batch_size
    full, last = places[:whole].reshape(-1, batch_size), places[whole:]
    full, last = full[:, share(batch_size, part, parts)], last[share(len(last), part, parts)]
    full[...] = rows[: full.size].reshape(full.shape)
    last[...] = rows[full.size : full.size + len(last)]


def _first_row(n: int, batch_size: int, lane: int) -> int:
    batches, rest = divmod(n, batch_size)
    return batches * (batch_size * lane // SHUFFLE_SHARDS) + rest * lane // SHUFFLE_SHARDS


def _lanes(n: int, batch_size: int, communicator: Communicator) -> range:
    """Those in which this rank has places: side by side, for batches of all sizes."""
    found = []
    for size in {min(batch_size, n), n % batch_size}:
        own = communicator.shard(size)
        if own.start < own.stop:
            found += [_lane(own.start, size), _lane(own.stop - 1, size)]
    return range(min(found), max(found) + 1) if found else range(0)


def _lane(column: int, size: int) -> int:
    """The lane of a column of a batch of that size."""
    return (SHUFFLE_SHARDS * (column + 1) - 1) // size
