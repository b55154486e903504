"""The kernels of layers and optimizers on a GPU, in float32, each beside a copy that moves as many bytes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.results import table
from benchmarks.timing import OURS, cell, percent
from gpu_nn.device import Array, Device
from gpu_nn.kernels import kernels_for
from gpu_nn.kernels.activations import ACTIVATIONS

WIDTH = 1024
NOISE_FACTOR, NOISE_MODULUS = 48271, 65521


@dataclass
class Workload:
    """facts: its name and sizes. bytes: what one run must read and write. prepare: allocates and returns the run, whose
    result may be a loss."""

    facts: dict[str, Any]
    bytes: int
    prepare: Callable[[], Callable[[], object]]


def named_dtype(name: str) -> Any:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def noise(device: Device, size: int) -> Array:
    """Numbers between -5 and 5 that do not repeat along rows of any length in use."""
    xp = device.xp
    whole = (xp.arange(size, dtype=np.int64) * NOISE_FACTOR % NOISE_MODULUS).astype(np.float32)
    return whole * np.float32(10 / NOISE_MODULUS) - np.float32(5)


def workloads(device: Device, size: int) -> Iterator[Workload]:
    """Every kernel, over `size` bytes an array."""
    xp, kernels = device.xp, kernels_for(device)
    elements = size // 4
    n = max(1, elements // WIDTH)
    elements = n * WIDTH

    def workload(name: str, arrays_moved: float, prepare: Callable[[], Callable[[], object]]) -> Workload:
        facts = {"kernel": name, "dtype": "float32", "elements": elements}
        return Workload(facts, int(arrays_moved * 4 * elements), prepare)

    def matrix() -> Array:
        return noise(device, elements).reshape(n, WIDTH)

    def forward(activation: str) -> Callable[[], object]:
        z, b = matrix(), xp.zeros(WIDTH, np.float32)
        a = z if ACTIVATIONS[activation].of_output else xp.empty_like(z)
        return lambda: kernels.bias_activation(z, b, a, activation)

    def backward(activation: str) -> Callable[[], object]:
        da, saved, db = matrix(), matrix(), xp.empty(WIDTH, np.float32)
        return lambda: kernels.bias_activation_backward(da, saved, db, activation)

    for activation in ("relu", "gelu"):
        moved = 2 if ACTIVATIONS[activation].of_output else 3
        yield workload(f"bias_activation {activation}", moved, partial(forward, activation))
        yield workload(f"bias_activation_backward {activation}", 3, partial(backward, activation))

    def gather() -> Callable[[], object]:
        source, out = matrix(), xp.empty((n, WIDTH), np.float32)
        rows = xp.arange(n, dtype=np.int64) * 7919 % n
        return lambda: kernels.gather(source, rows, out)

    def dropout() -> Callable[[], object]:
        a, mask, counter = matrix(), xp.empty((n, WIDTH), np.bool_), xp.zeros(1, np.uint64)
        out = xp.empty_like(a)
        return lambda: kernels.dropout(a, out, mask, 0.5, 1, counter)

    def input_noise() -> Callable[[], object]:
        x, counter = matrix(), xp.zeros(1, np.uint64)
        out = xp.empty_like(x)
        return lambda: kernels.noise(x, out, 0.1, 1, counter)

    yield workload("gather", 2, gather)
    yield workload("dropout", 2.25, dropout)
    yield workload("noise", 2, input_noise)

    def normalisation(name: str) -> Callable[[], object]:
        x, d, out = matrix(), matrix(), xp.empty((n, WIDTH), np.float32)
        of_rows = xp.empty(n, np.float32), xp.empty(n, np.float32)
        of_batch, running = ((xp.zeros(WIDTH, np.float32), xp.ones(WIDTH, np.float32)) for _ in range(2))
        learned = [xp.zeros(WIDTH, np.float32) for _ in range(4)]  # weight, bias and their gradients
        weight, bias = learned[:2]
        kernels.layer_norm(x, weight, bias, out, *of_rows, 1e-5, "relu")
        return {
            "batch_statistics": lambda: kernels.batch_statistics(x, *of_batch, *running, 0.1),
            "batch_norm": lambda: kernels.batch_norm(x, *of_batch, weight, bias, out, 1e-5, "relu"),
            "batch_norm_backward": lambda: kernels.batch_norm_backward(d, x, *of_batch, *learned, 1e-5, "relu", True),
            "layer_norm": lambda: kernels.layer_norm(x, weight, bias, out, *of_rows, 1e-5, "relu"),
            "layer_norm_backward": lambda: kernels.layer_norm_backward(d, x, *of_rows, *learned, 1e-5, "relu"),
        }[name]

    arrays_moved = {"batch_statistics": 1, "batch_norm": 2, "batch_norm_backward": 5}
    arrays_moved |= {"layer_norm": 2, "layer_norm_backward": 3}
    for name, arrays in arrays_moved.items():
        yield workload(name, arrays, partial(normalisation, name))

    def optimizer(name: str) -> Callable[[], object]:
        p, g, v, s = (noise(device, elements) for _ in range(4))
        rate, step = xp.full(1, 1e-3, np.float64), xp.ones(1, np.int64)
        xp.square(s, out=s)
        common: dict[str, Any] = {"weight_decay": 0.0, "decayed": 0}
        if name == "sgd":
            return lambda: kernels.sgd(p, g, v, rate, momentum=0.9, nesterov=False, **common)
        options: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": False, **common}
        return lambda: kernels.adam(p, g, v, s, rate, step, **options)

    yield workload("sgd", 5, lambda: optimizer("sgd"))
    yield workload("adam", 7, lambda: optimizer("adam"))


def floor_cells(row: Mapping[str, Any]) -> list[str]:
    """The copy's time, and our share of its bandwidth."""
    return [cell(row["microseconds"]["copy"]), percent(row["share_of_copy"])]


def markdown(result: dict[str, Any]) -> str:
    lines = [
        [f"{row['kernel']}, {row['dtype']}", f"{row['bytes']:,}", cell(row["microseconds"][OURS]), *floor_cells(row)]
        for row in result["kernels"]
    ]
    return table(["kernel, µs", "bytes", OURS, "copying as many bytes", "our share"], lines)
