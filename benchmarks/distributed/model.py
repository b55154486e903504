"""A model of data-parallel training: the seconds of a step by the number of ranks.

A step of p ranks is the work on batch/p rows, then the all-reduce of the flat gradient and the cost, then the
optimizer: t(p) = work(batch/p) + all_reduce(gradient, p). Layers of 16 MiB or more are summed while backward goes on.
On GPUs work is a floor from nominal rates (`benchmarks.roofline`), so the shares of the all-reduce are upper bounds,
and an all-reduce is taken to slow nothing that runs beside it.

An all-reduce of B bytes over p GPUs in h hosts takes the faster of two algorithms, with the latencies of NCCL's own
model (src/graph/tuning.cc): a ring, 2(p-1)/p·B/bandwidth + 2(p-h) and 2(h-1) hops within and between hosts; two trees,
2B/(0.92 bandwidth) + 2(p/h-1) and 2 log₂h hops.
"""

import math
from dataclasses import dataclass
from textwrap import fill

from benchmarks.results import table
from benchmarks.roofline import FLOAT32, Launch, Training
from benchmarks.step import NETWORKS
from benchmarks.timing import percent
from gpu_nn.training.gradient_sync import is_bucket


@dataclass(frozen=True)
class Link:
    """bandwidth: bytes a second in one direction, nominal. ring, tree: seconds of a hop."""

    name: str
    bandwidth: float
    ring: float
    tree: float


# Per GPU and direction, as the vendors state them.
NVLINK = Link("NVLink 4", 450e9, 3.4e-6, 1.2e-6)
PCIE_5 = Link("PCIe 5.0 × 16", 63e9, 5.7e-6, 1.9e-6)
PCIE_4 = Link("PCIe 4.0 × 16", 31.5e9, 5.7e-6, 1.9e-6)
NDR = Link("InfiniBand NDR", 50e9, 9.6e-6, 8.5e-6)
_RING_STARTS, _TREE_STARTS, _TREE_SHARE = 8.4e-6, 4.4e-6, 0.92
GPUS_OF_A_HOST = 8


def all_reduce_seconds(n_bytes: float, p: int, inside: Link = NVLINK, between: Link = NDR) -> float:
    """An all-reduce over p GPUs, 8 in a host, each with its own link to other hosts."""
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
class Step:
    """Seconds of a step on GPUs.

    work: of one rank. backward: the part of work of each layer, the last first. sums: one all-reduce of everything.
    bucket_sums: the all-reduce that starts after each of these layers, 0 for none.
    """

    work: float
    backward: list[float]
    sums: float
    bucket_sums: list[float]

    @property
    def seconds(self) -> float:
        """As gpu_nn does it: one all-reduce after another, while backward goes on."""
        ready, through = 0.0, 0.0
        for backward, summed in zip(self.backward, self.bucket_sums, strict=True):
            ready += backward
            if summed:
                through = max(through, ready) + summed
        return self.work + max(through - ready, 0.0)

    @property
    def at_once(self) -> float:
        """With one all-reduce, after backward."""
        return self.work + self.sums

    @property
    def hidden(self) -> float:
        """The share of the one all-reduce that the overlap saves; below 0 where several take longer than they hide."""
        return (self.at_once - self.seconds) / self.sums if self.sums else 0.0


def step(training: Training, rows: float, p: int, gpu: Gpu = H100) -> Step:
    """A step of p ranks on `rows` rows each."""

    def seconds(launch: Launch) -> float:
        floor = max(launch.bytes / gpu.memory, launch.operations / gpu.products[training.size])
        return launch.kernels * gpu.launch + floor

    backward = [sum(map(seconds, launches)) for launches in training.backward(rows)]
    work = sum(map(seconds, training.forward(rows))) + sum(backward) + seconds(training.update())
    if p > 1:
        work += gpu.launch  # the cost of all ranks
    sums = [all_reduce_seconds(n_bytes, p) if n_bytes else 0.0 for n_bytes in buckets(training)]
    return Step(work, backward, all_reduce_seconds(training.gradient_bytes, p), sums)


def buckets(training: Training) -> list[int]:
    """Bytes that are summed after each layer's backward, the last layer first: its weights, with those of later layers
    that were too few for a bucket, and after the first layer all that is left."""
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
    """MPI ranks on one host, with figures of micro-benchmarks.

    fixed, a_row: seconds of a step's work, for the batch and for each of its rows. start, a_byte: seconds of an
    exchange between two ranks, and of each byte in it with its addition. wait: seconds more that an exchange takes
    where ranks share a core, since a rank that waits keeps the other from working.
    """

    cores: int
    fixed: float
    a_row: float
    start: float
    a_byte: float
    wait: float = 0.0

    def work(self, rows: float, p: int) -> float:
        """Ranks that share cores take turns."""
        return (self.fixed + self.a_row * rows) * max(1.0, p / self.cores)

    def sum(self, n_bytes: float, p: int) -> float:
        """log₂p exchanges of all bytes: how `gpu_nn.distributed.mpi` sums where p is a power of two."""
        shared = p > self.cores
        each = (self.start + self.a_byte * n_bytes) * max(1.0, p / self.cores) + self.wait * shared
        return math.log2(p) * each

    def step(self, rows: float, n_bytes: float, p: int) -> float:
        return self.work(rows, p) + self.sum(n_bytes, p)


WIDE = Training("wide", [4096] * 5 + [1000], 2048, size=2)
PAPER = [*(Training(name, widths, batch) for name, (widths, batch, _) in NETWORKS.items()), WIDE]
GPUS = [2**i for i in range(11)]
# The batch of strong scaling, in batches of one GPU: each of 1,024 GPUs has at least one row.
STRONG = 64
LINKS = (NVLINK, PCIE_5, PCIE_4)
# The share of the perfect rate from which on more GPUs are worthwhile.
WORTH = 0.9


def _gradients() -> str:
    lines = []
    for training in PAPER:
        widths, dtype = "-".join(map(str, training.widths)), "mixed_bfloat16" if training.size == 2 else "float32"
        name = f"{training.name}: {widths}, {dtype}, {training.batch:,} rows"
        sizes = [f"{sum(training.parameters):,}", f"{training.gradient_bytes / 1e6:,.3g}"]
        seconds = [step(training, training.batch, 1).work]
        seconds += [all_reduce_seconds(training.gradient_bytes, 8, link) for link in LINKS]
        rows = [f"{rows_for(training, p, WORTH):,}" for p in (8, GPUS[-1])]
        lines.append([name, *sizes, *(f"{1e6 * taken:,.0f}" for taken in seconds), *rows])
    head = ["network", "parameters", "gradient, MB", "step of one GPU, µs"]
    head += [f"8 by {link.name}, µs" for link in LINKS]
    return table([*head, *(f"rows each for {percent(WORTH)}, {p:,} GPUs" for p in (8, GPUS[-1]))], lines)


def _conclusions() -> str:
    waits = [1e6 * all_reduce_seconds(0, p) for p in (GPUS[1], GPUS[-1])]
    rows = [[rows_for(training, p, WORTH) for training in PAPER] for p in (GPUS_OF_A_HOST, GPUS[-1])]
    more = [many / few for few, many in zip(*rows, strict=True)]
    steps = " and ".join(
        f"{1e6 * step(training, training.batch, 1).work:,.0f} µs of {training.name}"
        for training in PAPER
        if training.name in ("A1", "A3")
    )
    text = f"""A batch that suits one GPU does not suit many. The latency of the sums alone, {waits[0]:.0f} to
        {waits[1]:.0f} µs, is soon as long as a step, {steps}; more GPUs pay off with more rows each, or with a step
        that takes long. The last columns of the first table are the rows that each GPU needs for {percent(WORTH)} of
        the perfect rate: {min(rows[0]):,} to {max(rows[0]):,} within one host by NVLink, and {min(more):.0f} to
        {max(more):.0f} times as many over {GPUS[-1] // GPUS_OF_A_HOST} hosts, where the gradient crosses a link that is
        {NVLINK.bandwidth / NDR.bandwidth:.0f} times slower. Sums by layers help where backward takes about as long as
        the sums: wide layers within a host. Over many hosts backward is too short to hide them, and for small networks
        several sums would cost more latency than they hide, so those sum once."""
    return fill(" ".join(text.split()), 120, break_on_hyphens=False)


def _weak() -> str:
    lines = []
    for p in GPUS[1:]:
        cells = []
        for training in PAPER:
            found = step(training, training.batch, p)
            kept = percent(step(training, training.batch, 1).work / found.seconds)
            cells.append(f"{1e6 * found.sums:,.0f} µs, {kept}, {percent(found.hidden)}")
        lines.append([f"{p:,}", *cells])
    return table(["GPUs", *(training.name for training in PAPER)], lines)


def _strong() -> str:
    """Speed relative to one GPU, and the number of GPUs at which each network is fastest."""
    lines, speeds = [], []
    for p in GPUS[1:]:
        found = [step(training, STRONG * training.batch / p, p) for training in PAPER]
        alone = [step(training, STRONG * training.batch, 1).work for training in PAPER]
        speeds.append([one / here.seconds for one, here in zip(alone, found, strict=True)])
        cells = [f"{speed:.2g} ×" for speed in speeds[-1]]
        lines.append([f"{p:,}", *cells, f"{alone[-1] / found[-1].at_once:.2g} ×"])
    rows = [f"{training.name}, {STRONG * training.batch:,} rows" for training in PAPER]
    best = [max(zip((1.0, *of_one), GPUS, strict=True))[1] for of_one in zip(*speeds, strict=True)]
    fastest = ", ".join(f"{training.name} on {p}" for training, p in zip(PAPER, best, strict=True))
    return f"{table(['GPUs', *rows, f'{WIDE.name}, in one sum'], lines)}\n\nFastest: {fastest}."


def markdown() -> str:
    """What the model predicts for GPUs."""
    rates = ", ".join(f"{link.name} {link.bandwidth / 1e9:g}" for link in (*LINKS, NDR))
    return f"""Nominal rates of the links, GB/s in one direction for each GPU: {rates}.

{_gradients()}

{_conclusions()}

Weak scaling, the batch above on each GPU: the time of the sums, the share of the perfect rate, and the share of the
sums that is hidden because layers of 16 MiB or more are summed during the rest of backward.

{_weak()}

Strong scaling, {STRONG} times the batch divided among the GPUs: speed relative to one GPU.

{_strong()}"""
