"""A training step on a GPU: as a CUDA graph and kernel by kernel, PyTorch's, and the matrix products alone, by turns.

Shapes: `settings`. All take batches from data on the device in an order drawn for each epoch, and step with Adam on the
standard cross entropy, which PyTorch computes without NaN; gpu_nn also on the full cost. A time is that of an epoch
divided by its steps; of gpu_nn the second epoch of a `fit`, since the first captures graphs. Baselines: PyTorch with
fused Adam, half types by autocast, eager and compiled. Floors: the matrix products one after the other as one graph,
and the launches, bytes and operations of `benchmarks.roofline`.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import baselines
from benchmarks.gpu.kernels import named_dtype
from benchmarks.results import named, table
from benchmarks.roofline import Training
from benchmarks.step import NETWORKS, torch_epoch
from benchmarks.timing import OwnClock, Run, compared, interleaved, percent, ratios, spreads
from gpu_nn import Adam, Network, Trainer
from gpu_nn.device import Device
from gpu_nn.kernels import cuda_kernels, kernels_for, why_no_half_products

ROUNDS = 7
GRAPH, FULL, EAGER = "gpu_nn, graph", "gpu_nn, graph, full cost", "gpu_nn, kernel by kernel"
PRODUCTS = "matrix products"
TORCH_EAGER, REDUCE_OVERHEAD = "torch eager", "torch.compile, reduce-overhead"


@dataclass(frozen=True)
class Setting:
    """A network, its batch, batches of an epoch, and the type in which layers compute."""

    name: str
    widths: list[int]
    batch: int
    batches: int
    dtype: str = "float32"


def settings(emulated: bool) -> list[Setting]:
    if emulated:
        return [Setting("A3", [6, 8, 4], 4, 3), Setting("wide", [8, 16, 16, 4], 8, 3, "bfloat16")]
    networks = [Setting(name, widths, batch, 200) for name, (widths, batch, _) in NETWORKS.items()]
    return [*networks, Setting("wide", [4096] * 5, 8192, 8, "bfloat16")]


def measured(
    device: Device, emulated: bool, copy_bandwidth: float, in_time: Callable[[], bool], failed: list[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each setting, and what is absent, with the reason. What fails is appended to `failed`."""
    rows: list[dict[str, Any]] = []
    absent: list[str] = []
    for setting in settings(emulated):
        if not in_time():
            absent.append(f"steps of {setting.name} (no time left)")
            continue
        with named(f"steps of {setting.name}", failed):
            epochs, gone = _epochs(device, setting, emulated, in_time)
            absent += [f"step of {setting.name}, {way}" for way in gone]
            if epochs:
                rows.append(_row(setting, epochs, emulated, copy_bandwidth))
    return rows, absent


def _row(setting: Setting, epochs: dict[str, Run], emulated: bool, copy_bandwidth: float) -> dict[str, Any]:
    ours = GRAPH if GRAPH in epochs else EAGER
    timed = {name: OwnClock(epoch) for name, epoch in epochs.items()}
    seconds = interleaved(timed, rounds=1 if emulated else ROUNDS, rest=0.0)
    found = ratios(seconds, ours)
    floor = floors(setting)
    what = {"network": setting.name, "widths": setting.widths, "batch": setting.batch, "dtype": setting.dtype}
    return {
        **what,
        "ours": ours,
        "microseconds": spreads(seconds, setting.batches),
        "times_as_fast": found,
        "share_of_products": found[PRODUCTS],
        **floor,
        "share_of_copy": floor["bytes"] / copy_bandwidth / (float(np.median(seconds[ours])) / setting.batches),
    }


def floors(setting: Setting) -> dict[str, Any]:
    """Launches of a step, the bytes that they must move, and the operations of its products."""
    launches = Training(setting.name, setting.widths, setting.batch, named_dtype(setting.dtype).itemsize).launches()
    return {
        "launches": sum(launch.kernels for launch in launches),
        "bytes": int(sum(launch.bytes for launch in launches)),
        "flops": int(sum(launch.operations for launch in launches)),
    }


def _epochs(
    device: Device, setting: Setting, emulated: bool, in_time: Callable[[], bool]
) -> tuple[dict[str, Run], list[str]]:
    """The epoch of each way, and the ways that are absent, with the reason."""
    absent: list[str] = []
    problem = why_no_half_products(device)
    if problem and setting.dtype != "float32":
        return {}, [f"every way ({problem})"]
    with device.active():
        data = tuple(device.asarray(array) for array in _data(setting))
    epochs: dict[str, Run] = {}
    if problem:
        absent += [f"{way} ({problem})" for way in (GRAPH, FULL)]
    else:
        epochs[GRAPH] = _our_epoch(device, setting, data, 0.0, graph=True)
        epochs[FULL] = _our_epoch(device, setting, data, 1.0, graph=True)
    epochs[EAGER] = _our_epoch(device, setting, data, 0.0, graph=False)
    epochs[PRODUCTS] = _products_epoch(device, setting)
    reason = baselines.why_no_torch(emulated)
    for way, compiled in ((TORCH_EAGER, False), (REDUCE_OVERHEAD, True)):
        if reason or (compiled and not in_time()):
            absent.append(f"{way} ({reason or 'no time left'})")
            continue
        with named(way, absent):
            epoch = _torch_epoch(setting, compiled)
            epoch()  # compiles
            epochs[way] = epoch
    return epochs, absent


def _data(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.random((setting.batch * setting.batches, setting.widths[0]), dtype=np.float32)
    return x, random.integers(0, setting.widths[-1], len(x))


def _our_epoch(device: Device, setting: Setting, data: tuple[Any, ...], complement_weight: float, graph: bool) -> Run:
    dtype = setting.dtype if setting.dtype == "float32" else f"mixed_{setting.dtype}"
    net = Network(setting.widths, device=device, dtype=dtype)
    trainer = Trainer(net, Adam(1e-4), batch_size=setting.batch, complement_weight=complement_weight)

    def epoch() -> float:
        with nullcontext() if graph else mock.patch.object(cuda_kernels, "cuda_graph", lambda step: step):
            return float(trainer.fit(*data, epochs=2)[-1].seconds)

    return epoch


def _products_epoch(device: Device, setting: Setting) -> Run:
    """The matrix products of a step, one after the other: forward, of the weights, and of the inputs but the first."""
    kernels, dtype = kernels_for(device), named_dtype(setting.dtype)
    layers = []
    with device.active():
        for inputs, units in pairwise(setting.widths):
            shapes = (setting.batch, inputs), (inputs, units), (setting.batch, units)
            x, w, z = (device.zeros(shape, dtype) for shape in shapes)
            layers.append((x, w, z, device.zeros((inputs, units), np.float32)))

    def run() -> None:
        for x, w, z, _ in layers:
            kernels.matmul(x, w, z)
        for i, (x, w, z, dw) in enumerate(layers):
            kernels.matmul(x.T, z, dw)
            if i:
                kernels.matmul(z, w.T, x)

    step = kernels.cuda_graph(run)

    def steps() -> None:
        for _ in range(setting.batches):
            step()

    timed = _timed(steps, device.xp.cuda.Device(device.index).synchronize)

    def epoch() -> float:
        with device.active():
            return timed()

    return epoch


def _torch_epoch(setting: Setting, compiled: bool) -> Run:
    import torch

    where = baselines.TORCH_DEVICE
    half = None if setting.dtype == "float32" else setting.dtype
    mode = "reduce-overhead" if compiled else None
    epoch = torch_epoch(setting.widths, setting.batch, *_data(setting), mode, where, half, rate=1e-4)
    return _timed(epoch, torch.cuda.synchronize if where == "cuda" else lambda: None)


def _timed(epoch: Run, synchronize: Callable[[], object]) -> Run:
    """The run returns the seconds that the device takes."""

    def seconds() -> float:
        synchronize()
        began = time.perf_counter()
        epoch()
        synchronize()
        return time.perf_counter() - began

    return seconds


def markdown(result: dict[str, Any]) -> str:
    rows = result["steps"]
    head = [f"{'-'.join(map(str, row['widths']))}, {row['batch']:,}, {row['dtype']}" for row in rows]
    lines = [
        [way, *(compared(row, way) for row in rows)]
        for way in (GRAPH, FULL, EAGER, PRODUCTS, TORCH_EAGER, REDUCE_OVERHEAD)
    ]
    lines += [
        ["our share of matrix products", *(percent(row["share_of_products"]) for row in rows)],
        ["launches", *(str(row["launches"]) for row in rows)],
        ["bytes", *(f"{row['bytes']:,}" for row in rows)],
        ["our share of copying them", *(percent(row["share_of_copy"]) for row in rows)],
    ]
    return table(["µs a step", *head], lines)
