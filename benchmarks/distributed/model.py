"""Data-parallel training on paper: the seconds of a step by the number of ranks.

A step of p ranks is the work on batch/p rows, then the sum over the ranks of the flat gradient, with which the cost
goes, then the optimizer: t(p) = work(batch/p) + sum(gradient, p). Layers of 16 MiB or more are summed while those
before them go backward. The gradient is summed in float32 in every precision. On GPUs work is a floor from nominal
rates, so shares of the sums are the largest that can be; and a sum is taken to slow nothing that runs beside it.

Sums of B bytes over p GPUs in h hosts follow the better of two ways, with the latencies that NCCL's own model has
(src/graph/tuning.cc): a ring, 2(p-1)/p·B/bandwidth + 2(p-h) and 2(h-1) hops within and between hosts; two trees,
2B/(0.92 bandwidth) + 2(p/h-1) and 2 log₂h hops.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpu_nn.training.gradient_sync import is_bucket

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Link:
    """bandwidth: bytes a second, one way, nominal. ring, tree: seconds of a hop."""

    name: str
    bandwidth: float
    ring: float
    tree: float


# Per GPU and one way, as the vendors state them.
NVLINK = Link("NVLink 4", 450e9, 3.4e-6, 1.2e-6)
PCIE_5 = Link("PCIe 5.0 × 16", 63e9, 5.7e-6, 1.9e-6)
PCIE_4 = Link("PCIe 4.0 × 16", 31.5e9, 5.7e-6, 1.9e-6)
NDR = Link("InfiniBand NDR", 50e9, 9.6e-6, 8.5e-6)
_RING_STARTS, _TREE_STARTS, _TREE_SHARE = 8.4e-6, 4.4e-6, 0.92
GPUS_OF_A_HOST = 8


def sum_seconds(n_bytes: float, p: int, inside: Link = NVLINK, between: Link = NDR) -> float:
    """A sum of so many bytes over p GPUs, 8 in a host, each with a link to other hosts of its own."""
    if p == 1:
        return 0.0
    hosts = max(p // GPUS_OF_A_HOST, 1)
    bandwidth = inside.bandwidth if hosts == 1 else min(inside.bandwidth, between.bandwidth)
    ring = _RING_STARTS + 2 * (p - hosts) * inside.ring + 2 * (hosts - 1) * between.ring
    ring += 2 * (p - 1) / p * n_bytes / bandwidth
    tree = _TREE_STARTS + 2 * (p // hosts - 1) * inside.tree + 2 * math.log2(hosts) * between.tree
    tree += 2 * n_bytes / (_TREE_SHARE * bandwidth)
    return min(ring, tree)


@dataclass(frozen=True)
class Gpu:
    """memory: bytes a second. products: operations a second, by the bytes of a factor. launch: seconds of a kernel."""

    memory: float
    products: dict[int, float]
    launch: float


# An H100 SXM as the vendor states it: HBM3; float32 without tensor cores, dense bfloat16 with them. The launch within
# a CUDA graph is assumed.
H100 = Gpu(3.35e12, {4: 67e12, 2: 989e12}, 2e-6)


@dataclass(frozen=True)
class Launch:
    """What a kernel of a step, or several as one, must move and compute."""

    kernels: int
    bytes: float
    operations: float = 0.0


@dataclass(frozen=True)
class Training:
    """widths: as `Network` takes them. batch: rows. size: bytes of an activation and of a factor of a product."""

    name: str
    widths: Sequence[int]
    batch: int
    size: int = FLOAT32

    @property
    def layers(self) -> list[tuple[int, int]]:
        return list(pairwise(self.widths))

    @property
    def parameters(self) -> list[int]:
        """Of each layer."""
        return [inputs * outputs + outputs for inputs, outputs in self.layers]

    @property
    def gradient_bytes(self) -> int:
        return FLOAT32 * sum(self.parameters)

    def forward(self, rows: float) -> list[Launch]:
        """Gather of rows and labels, the layers, and the loss with its gradient."""
        first, last = self.widths[0], self.widths[-1]
        return [
            Launch(2, rows * (first * (FLOAT32 + self.size) + 4 * 8)),
            *(self._product(rows, inputs, outputs, masked=outputs) for inputs, outputs in self.layers[:-1]),
            self._product(rows, *self.layers[-1]),
            Launch(1, rows * (2 * FLOAT32 * last + 12)),
        ]

    def backward(self, rows: float) -> list[list[Launch]]:
        """By layer, the last first: when its launches are through, its gradient is there."""
        found = []
        for i, (inputs, outputs) in reversed(list(enumerate(self.layers))):
            launches = [self._product(rows, inputs, outputs, of_weight=FLOAT32)]
            if i:
                # It brings the derivative of the ReLU below, and the gradient of its bias, along.
                launches.append(self._product(rows, inputs, outputs, masked=inputs))
                if self.size < FLOAT32:
                    # That gradient is of float32, which a product of a half type does not leave: it is summed after it.
                    launches.append(Launch(2, rows * inputs * self.size))
            found.append(launches)
        return found

    def update(self) -> Launch:
        """Adam reads and writes parameters and moments and reads the gradient; mixed, a cast then reads the parameters
        and writes the copies. And the bookkeeping of losses and steps."""
        kernels, cast = (4, FLOAT32 + self.size) if self.size < FLOAT32 else (3, 0)
        return Launch(kernels, sum(self.parameters) * (7 * FLOAT32 + cast))

    def _product(self, rows: float, inputs: int, outputs: int, masked: int = 0, of_weight: int = 0) -> Launch:
        """masked: of so many units a mask of bits is written or read, which says where the ReLU is not 0. of_weight:
        bytes of a weight, or of its gradient, where they are not those of an activation."""
        moved = self.size * rows * (inputs + outputs) + (of_weight or self.size) * inputs * outputs
        moved += rows * _mask_bytes(masked)
        return Launch(1, moved, 2 * rows * inputs * outputs)


def _mask_bytes(units: int) -> int:
    """Of a row: whole 128 bits, as cublasLt has them."""
    return -(-units // 128) * 16


@dataclass(frozen=True)
class Step:
    """Seconds of a step on GPUs.

    work: a rank's own.  backward: by layer, the last first, within work.  sums: of everything at once.  bucket_sums: of
    what is summed when each of those layers is through, 0 for nothing.
    """

    work: float
    backward: list[float]
    sums: float
    bucket_sums: list[float]

    @property
    def seconds(self) -> float:
        """As gpu_nn does it: one sum after the other, while the layers before go backward."""
        ready, through = 0.0, 0.0
        for backward, summed in zip(self.backward, self.bucket_sums, strict=True):
            ready += backward
            if summed:
                through = max(through, ready) + summed
        return self.work + max(through - ready, 0.0)

    @property
    def at_once(self) -> float:
        """With one sum, after all layers."""
        return self.work + self.sums

    @property
    def hidden(self) -> float:
        """Which share of the one sum the overlap saves; below 0 where several sums take longer than they hide."""
        return (self.at_once - self.seconds) / self.sums if self.sums else 0.0


def step(training: Training, rows: float, p: int, gpu: Gpu = H100) -> Step:
    """A step of p ranks on so many rows each."""

    def seconds(launch: Launch) -> float:
        floor = max(launch.bytes / gpu.memory, launch.operations / gpu.products[training.size])
        return launch.kernels * gpu.launch + floor

    backward = [sum(map(seconds, launches)) for launches in training.backward(rows)]
    work = sum(map(seconds, training.forward(rows))) + sum(backward) + seconds(training.update())
    if p > 1:
        work += gpu.launch  # the cost of all ranks, after that of this one
    sums = [sum_seconds(n_bytes, p) if n_bytes else 0.0 for n_bytes in buckets(training)]
    return Step(work, backward, sum_seconds(training.gradient_bytes, p), sums)


def buckets(training: Training) -> list[int]:
    """Bytes that are summed when each layer is through, the last first: its weights, with those behind that were too
    few for a sum of their own, and with the first layer all that is left."""
    found, waiting, left = [], 0, training.gradient_bytes
    for inputs, outputs in training.layers[:0:-1]:
        waiting += FLOAT32 * inputs * outputs
        found.append(waiting if is_bucket(waiting) else 0)
        left -= found[-1]
        waiting -= found[-1]
    return [*found, left]


def rows_for(training: Training, p: int, share: float) -> int:
    """The fewest rows of each of p GPUs that keep this share of the perfect rate; 0 < share < 1."""

    def kept(rows: int) -> float:
        found = step(training, rows, p)
        return found.work / found.seconds

    few, many = 0, 1
    while kept(many) < share:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if kept(middle) >= share else (middle, many)
    return many


@dataclass(frozen=True)
class Cpu:
    """Ranks of MPI on one host, with figures of micro-runs.

    fixed, a_row: seconds of the work of a step, for a batch and for each row in it.  start, a_byte: seconds of an
    exchange between two ranks, and of each byte in it with its addition.  wait: seconds more that an exchange takes
    where ranks share a core: who waits for another keeps it from working.
    """

    cores: int
    fixed: float
    a_row: float
    start: float
    a_byte: float
    wait: float = 0.0

    def work(self, rows: float, p: int) -> float:
        """Of ranks that share cores, each works for a part of the time."""
        return (self.fixed + self.a_row * rows) * max(1.0, p / self.cores)

    def sum(self, n_bytes: float, p: int) -> float:
        """log₂p exchanges of it all; p a power of two, as `gpu_nn.distributed.mpi` sums then."""
        shared = p > self.cores
        each = (self.start + self.a_byte * n_bytes) * max(1.0, p / self.cores) + self.wait * shared
        return math.log2(p) * each

    def step(self, rows: float, n_bytes: float, p: int) -> float:
        return self.work(rows, p) + self.sum(n_bytes, p)
