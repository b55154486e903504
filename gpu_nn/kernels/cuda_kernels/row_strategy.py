"""Which driver of row_strategies.cuh takes a row of m logits: thresholds as data, and one function that reads them.

Each variant reads a row once and writes it once for as long rows as it can hold:

    thread_per_row  one thread a row, for the shortest rows; a warp stages 32 of them as whole cache lines
    in_registers    8 threads, a warp or a block a row, each thread with 8 to 64 of its values
    in_cluster      several blocks a row, each with a part of it in registers, from compute capability 9.0 on
    multi_pass      a block a row, kept in shared memory; what does not fit is read up to three times
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from gpu_nn.kernels.cuda_kernels.launch import Limits

ITEMSIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

# The longest row of thread_per_row, by the bytes of a logit: (with the same formula for all classes, with a weight for
# each). Logits of two bytes need twice the values in flight; the weights of a row take as many registers as its values.
THREAD_PER_ROW_CLASSES = {2: (64, 16), 4: (32, 16), 8: (16, 10)}

# (threads a row, values of four bytes in each). With 16 values or fewer the odds stay in registers too.
IN_REGISTERS = ((8, 8), (8, 16), (8, 32), (32, 16), (32, 32), (128, 16), (128, 32), (256, 32))

# By the bytes of a computed value: (threads, values of four bytes in each, blocks of a cluster). Several blocks of 256
# on a multiprocessor hide each other's latency; blocks of 512, or with 64 values a thread, have it for themselves. With
# 512 threads each has 128 registers, too few for float64. CuPy cannot launch clusters of more than eight blocks, which
# need an attribute of the kernel.
IN_CLUSTER = {
    4: ((256, 32, 2), (256, 32, 4), (256, 32, 8), (512, 32, 8), (512, 64, 8)),
    8: ((256, 32, 2), (256, 32, 4), (256, 32, 8), (256, 64, 8)),
}

# In place of IN_CLUSTER on devices without clusters.
WITHOUT_CLUSTERS = {4: ((512, 32, 1), (512, 64, 1)), 8: ((512, 32, 1),)}

CLUSTERS_SINCE = 90
MULTI_PASS_THREADS = 512
LONGEST = 2**31 - 2**16  # columns are 32-bit, and a thread's column may pass the end by one round
# Of a block's shared memory, for its reductions.
REDUCTION_BYTES = 1024
ACCESS_BYTES = 16


class Strategy(NamedTuple):
    """A variant, and its launch configuration."""

    variant: str
    template: tuple[object, ...]  # the kernel's template arguments after the types
    threads: int
    rows: int = 1  # of a block
    blocks: int = 1  # of a row
    shared_bytes: int = 0
    since: int = 0  # compute capability

    def grid(self, n: int) -> tuple[int]:
        return (-(-n // self.rows) * self.blocks,)

    @property
    def numbers(self) -> tuple[np.int32, ...]:
        """The kernel's arguments after the operation's own: how many vectors of a row shared memory holds."""
        return (np.int32(self.shared_bytes // ACCESS_BYTES),) if self.variant == "multi_pass" else ()

    def any_length(self) -> "Strategy":
        """The same strategy for every row length that it takes, so that one kernel serves them."""
        return self._replace(shared_bytes=0)

    def kernel(self, operation: str, types: str) -> str:
        """The name of its kernel, an instantiation of <operation>_<variant>."""
        arguments = ", ".join(str(argument).lower() for argument in self.template)
        return f"{operation}_{self.variant}<{types}, {arguments}>"


@cache
def multi_thread_variants(itemsize: int, limits: Limits) -> list[tuple[int, Strategy]]:
    """The strategies with several threads a row, each with the longest row that it takes; the last takes any."""
    value_bytes, width = max(itemsize, 4), ACCESS_BYTES // itemsize
    clusters = limits.compute_capability >= CLUSTERS_SINCE
    configurations = [(*configuration, 1) for configuration in IN_REGISTERS]
    configurations += (IN_CLUSTER if clusters else WITHOUT_CLUSTERS)[value_bytes]
    variants: list[tuple[int, Strategy]] = []
    for row_threads, values, blocks in configurations:
        vectors = values * 4 // value_bytes // width
        # Head and tail of a row are outside its vectors, so it has at most m // width of them.
        longest = (row_threads * vectors * blocks + 1) * width - 1
        if blocks > 1:
            template = (row_threads, vectors, blocks)
            strategy = Strategy("in_cluster", template, row_threads, blocks=blocks, since=CLUSTERS_SINCE)
        else:
            threads = max(row_threads, 128)
            strategy = Strategy("in_registers", (row_threads, vectors), threads, rows=threads // row_threads)
        variants.append((longest, strategy))
    variants.append((LONGEST, Strategy("multi_pass", (MULTI_PASS_THREADS,), MULTI_PASS_THREADS)))
    return variants


@cache
def choose(m: int, itemsize: int, limits: Limits, uniform: bool = True) -> Strategy:
    """The strategy for rows of m logits of `itemsize` bytes.

    uniform: whether all classes except the argmax and the label share one formula (UNIFORM_CLASSES in cuda_src).
    """
    if m <= THREAD_PER_ROW_CLASSES[itemsize][0 if uniform else 1]:
        warps = 2 if itemsize == 8 else 4
        return Strategy("thread_per_row", (m, warps), warps * 32, rows=warps * 32)
    for longest, strategy in multi_thread_variants(itemsize, limits):
        if m <= longest:
            if strategy.variant != "multi_pass":
                return strategy
            vectors = min(m * itemsize, limits.shared_bytes - REDUCTION_BYTES) // ACCESS_BYTES
            return strategy._replace(shared_bytes=vectors * ACCESS_BYTES)
    raise ValueError(f"{m:,} classes are more than a row can have: {LONGEST:,}")


def every_strategy(itemsize: int, uniform: bool = True) -> list[Strategy]:
    """Each strategy that choose() can return on any device. Of thread_per_row: the shortest rows, the longest, and the
    lengths at which the bound on its registers changes."""
    any_device = [Limits(capability, 1, 48 * 1024 + REDUCTION_BYTES) for capability in (0, CLUSTERS_SINCE)]
    longest = THREAD_PER_ROW_CLASSES[itemsize][0 if uniform else 1]
    found = [choose(m, itemsize, any_device[0], uniform) for m in (2, 3, 10, 16, 32, longest) if m <= longest]
    found += [strategy for limits in any_device for _, strategy in multi_thread_variants(itemsize, limits)]
    return list(dict.fromkeys(found))
