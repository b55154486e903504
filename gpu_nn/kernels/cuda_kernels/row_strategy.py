"""Which way of row_strategies.cuh a row of m logits takes: thresholds as data, and one function that reads them.

A way is worth its place for the bytes that it keeps on their way from memory, and for reading and writing a row once:

    of_lanes       a lane a row, for rows too short to be shared: a warp stages 32 of them as whole lines of memory
    in_registers   8 or 32 lanes or a block a row, each lane with 8 to 64 of its values
    in_cluster     several blocks a row, each with its part in registers, from compute capability 9.0 on
    in_passes      a block a row that it keeps in shared memory; what does not fit is read up to three times
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from gpu_nn.kernels.cuda_kernels.launch import Limits

ITEMSIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

# The longest row of one lane, by the bytes of a logit: (all classes alike, each class weighed by itself). Two bytes a
# logit need twice the values on their way; a lane's weights take as many registers as its values.
THREAD_PER_ROW_CLASSES = {2: (64, 16), 4: (32, 16), 8: (16, 10)}

# (lanes, values of four bytes in each). 16 values and less hold their odds too.
IN_REGISTERS = ((8, 8), (8, 16), (8, 32), (32, 16), (32, 32), (128, 16), (128, 32), (256, 32))

# By the bytes of a computed value, (lanes, values of four bytes, blocks). Several blocks of 256 on a multiprocessor
# hide each other's waiting; those of 512, or with 64 values in a lane, have it for themselves. With 512 lanes each has
# 128 registers, too few for float64. More than eight blocks in a cluster must be asked for in a way that CuPy has not.
IN_CLUSTER = {
    4: ((256, 32, 2), (256, 32, 4), (256, 32, 8), (512, 32, 8), (512, 64, 8)),
    8: ((256, 32, 2), (256, 32, 4), (256, 32, 8), (256, 64, 8)),
}

# Where there are no clusters.
WITHOUT_CLUSTERS = {4: ((512, 32, 1), (512, 64, 1)), 8: ((512, 32, 1),)}

CLUSTERS_SINCE = 90
MULTI_PASS_THREADS = 512
LONGEST = 2**31 - 2**16  # columns are 32-bit, and a lane counts on past the end by one round
# Of a block's shared memory, for what it reduces.
REDUCTION_BYTES = 1024
ACCESS_BYTES = 16


class Strategy(NamedTuple):
    """A way, and the launch that belongs to it."""

    variant: str
    template: tuple[object, ...]  # what its kernel's template takes after the types
    threads: int
    rows: int = 1  # of a block
    blocks: int = 1  # of a row
    shared_bytes: int = 0
    since: int = 0  # compute capability

    def grid(self, n: int) -> tuple[int]:
        return (-(-n // self.rows) * self.blocks,)

    @property
    def numbers(self) -> tuple[np.int32, ...]:
        """What its kernel takes after the operation's own numbers: how many packs of a row shared memory holds."""
        return (np.int32(self.shared_bytes // ACCESS_BYTES),) if self.variant == "multi_pass" else ()

    def any_length(self) -> "Strategy":
        """The same for every row that takes it."""
        return self._replace(shared_bytes=0)

    def kernel(self, operation: str, types: str) -> str:
        """The name of its kernel: an instantiation of <operation>_<variant>."""
        arguments = ", ".join(str(argument).lower() for argument in self.template)
        return f"{operation}_{self.variant}<{types}, {arguments}>"


@cache
def multi_thread_variants(itemsize: int, limits: Limits) -> list[tuple[int, Strategy]]:
    """The variants of rows that no lane takes alone, each with the longest row that it takes; the last takes any."""
    value_bytes, pack = max(itemsize, 4), ACCESS_BYTES // itemsize
    clusters = limits.compute_capability >= CLUSTERS_SINCE
    shapes = [(*shape, 1) for shape in IN_REGISTERS]
    shapes += (IN_CLUSTER if clusters else WITHOUT_CLUSTERS)[value_bytes]
    variants: list[tuple[int, Strategy]] = []
    for lanes, values, blocks in shapes:
        packs = values * 4 // value_bytes // pack
        # Head and tail of a row are no packs, so it has at most m // pack of them.
        longest = (lanes * packs * blocks + 1) * pack - 1
        if blocks > 1:
            variants.append(
                (longest, Strategy("in_cluster", (lanes, packs, blocks), lanes, blocks=blocks, since=CLUSTERS_SINCE))
            )
        else:
            threads = max(lanes, 128)
            variants.append((longest, Strategy("in_registers", (lanes, packs), threads, rows=threads // lanes)))
    variants.append((LONGEST, Strategy("multi_pass", (MULTI_PASS_THREADS,), MULTI_PASS_THREADS)))
    return variants


@cache
def choose(m: int, itemsize: int, limits: Limits, equal: bool = True) -> Strategy:
    """The way of a row of m logits of `itemsize` bytes. equal: all classes but two go by one formula."""
    if m <= THREAD_PER_ROW_CLASSES[itemsize][0 if equal else 1]:
        warps = 2 if itemsize == 8 else 4
        return Strategy("thread_per_row", (m, warps), warps * 32, rows=warps * 32)
    for longest, strategy in multi_thread_variants(itemsize, limits):
        if m <= longest:
            if strategy.variant != "multi_pass":
                return strategy
            packs = min(m * itemsize, limits.shared_bytes - REDUCTION_BYTES) // ACCESS_BYTES
            return strategy._replace(shared_bytes=packs * ACCESS_BYTES)
    raise ValueError(f"{m:,} classes are more than a row can have: {LONGEST:,}")


def every_strategy(itemsize: int, equal: bool = True) -> list[Strategy]:
    """Each that choose() can answer on any device; of_lanes with the shortest rows, the longest, and those beyond which
    its registers are bounded otherwise."""
    any_device = [Limits(capability, 1, 48 * 1024 + REDUCTION_BYTES) for capability in (0, CLUSTERS_SINCE)]
    longest = THREAD_PER_ROW_CLASSES[itemsize][0 if equal else 1]
    found = [choose(m, itemsize, any_device[0], equal) for m in (2, 3, 10, 16, 32, longest) if m <= longest]
    found += [variant for limits in any_device for _, variant in multi_thread_variants(itemsize, limits)]
    return list(dict.fromkeys(found))
