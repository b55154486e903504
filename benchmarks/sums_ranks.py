"""What one rank of `python -m benchmarks sums` measures: seconds of a sum of so many bytes; rank 0 prints JSON.

Of gpu_nn it asks only what other checkouts have too.
"""

import json
import statistics
import sys
import time

import numpy as np

from gpu_nn.distributed import Communicator, init_process_group

# Seconds for each size, and sums at the least and at the most.
_ENOUGH, _LEAST, _MOST = 0.5, 5, 500


def sum_seconds(communicator: Communicator, n_bytes: int) -> float:
    """The median of the slowest rank's times."""
    array, meet = np.ones(n_bytes // 4, np.float32), np.zeros(1)
    seconds: list[float] = []
    repeats = _MOST
    while len(seconds) < repeats:
        communicator.all_reduce(meet)
        began = time.perf_counter()
        communicator.all_reduce(array)
        seconds.append(max(communicator.all_gather_object(time.perf_counter() - began)))
        if len(seconds) == _LEAST:  # the same on all ranks, as are these times
            repeats = max(_LEAST, min(_MOST, int(_ENOUGH / statistics.median(seconds))))
        array.fill(1)
    return statistics.median(seconds)


if __name__ == "__main__":
    communicator, _ = init_process_group("cpu")
    with communicator:
        found = {n_bytes: sum_seconds(communicator, int(n_bytes)) for n_bytes in sys.argv[1:]}
        if communicator.rank == 0:
            print(json.dumps(found))
