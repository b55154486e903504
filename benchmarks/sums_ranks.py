"""What one rank of `python -m benchmarks sums` measures: seconds of a sum of so many bytes; rank 0 prints JSON.

Of gpu_nn it asks only what other checkouts have too.
"""

import json
import statistics
import sys
import time

import numpy as np

from gpu_nn.distributed import Ranks, connect, together

# Seconds for each size, and sums at the least and at the most.
_ENOUGH, _LEAST, _MOST = 0.5, 5, 500


def sum_seconds(ranks: Ranks, n_bytes: int) -> float:
    """The median of the slowest rank's times."""
    array, meet = np.ones(n_bytes // 4, np.float32), np.zeros(1)
    seconds: list[float] = []
    repeats = _MOST
    while len(seconds) < repeats:
        ranks.sum(meet)
        began = time.perf_counter()
        ranks.sum(array)
        seconds.append(max(ranks.gathered(time.perf_counter() - began)))
        if len(seconds) == _LEAST:  # the same on all ranks, as are these times
            repeats = max(_LEAST, min(_MOST, int(_ENOUGH / statistics.median(seconds))))
        array.fill(1)
    return statistics.median(seconds)


if __name__ == "__main__":
    ranks, _ = connect("cpu")
    with together(ranks):
        found = {n_bytes: sum_seconds(ranks, int(n_bytes)) for n_bytes in sys.argv[1:]}
        if ranks.rank == 0:
            print(json.dumps(found))
