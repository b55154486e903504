"""What `python -m benchmarks gpu` times of ours: each kernel with the bytes that it has to move."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from gpu_nn.device import Array, Device
from gpu_nn.kernels import kernels_for
from gpu_nn.kernels.activations import ACTIVATIONS

CLASSES = (2, 10, 32, 100, 256, 1000, 1025, 4096, 16384, 32768, 65536, 131072, 262144)
DTYPES = ("float32", "bfloat16", "float16")
TARGETS = ("index", "dense")
COSTS = {"everyday": 0.0, "full": 1.0}
LOSS_COLUMNS = list(product(DTYPES, TARGETS, COSTS))
WIDTH = 1024
NOISE_FACTOR, NOISE_MODULUS = 48271, 65521


@dataclass
class Workload:
    """facts: its name and sizes.  bytes: read and written by one run.  prepare: allocates, and returns the run, which
    may return a loss.
    """

    facts: dict[str, Any]
    bytes: int
    prepare: Callable[[], Callable[[], object]]


def named_dtype(name: str) -> Any:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def loss_workloads(device: Device, size: int, emulated: bool) -> Iterator[Workload]:
    """Loss and gradient in one launch, over `size` bytes of logits."""
    classes = (2, 10, 100, 1000) if emulated else CLASSES
    for m, dtype, target, cost in product(classes, DTYPES, TARGETS, COSTS):
        itemsize = named_dtype(dtype).itemsize
        n = max(1, size // (m * itemsize))
        moved = 2 * n * m * itemsize + n * 4 + (n * m * 4 if target == "dense" else n * 8)
        facts = {"kernel": "softmax_cross_entropy", "m": m, "n": n, "dtype": dtype, "target": target, "cost": cost}
        yield Workload(facts, moved, partial(_loss_run, device, facts))


def _loss_run(device: Device, facts: dict[str, Any]) -> Callable[[], object]:
    xp, kernels = device.xp, kernels_for(device)
    n, m = facts["n"], facts["m"]
    z = _noise(device, n * m).reshape(n, m).astype(named_dtype(facts["dtype"]))
    y = xp.arange(n, dtype=np.int64) * 7919 % m
    if facts["target"] == "dense":
        y = xp.full((n, m), 1 / m, np.float32)
    loss, dz = xp.empty(n, np.float32), xp.empty_like(z)
    weight = COSTS[facts["cost"]]

    def run() -> Array:
        kernels.softmax_cross_entropy(z, y, loss, dz, complement_weight=weight)
        return loss

    return run


def _noise(device: Device, size: int) -> Array:
    """Numbers between -5 and 5 that do not repeat along rows of any length in use."""
    xp = device.xp
    whole = (xp.arange(size, dtype=np.int64) * NOISE_FACTOR % NOISE_MODULUS).astype(np.float32)
    return whole * np.float32(10 / NOISE_MODULUS) - np.float32(5)


def other_workloads(device: Device, size: int) -> Iterator[Workload]:
    """The kernels of layers and optimizers, over `size` bytes an array, in float32."""
    xp, kernels = device.xp, kernels_for(device)
    elements = size // 4
    n = max(1, elements // WIDTH)
    elements = n * WIDTH

    def workload(name: str, arrays_moved: float, prepare: Callable[[], Callable[[], object]]) -> Workload:
        facts = {"kernel": name, "dtype": "float32", "elements": elements}
        return Workload(facts, int(arrays_moved * 4 * elements), prepare)

    def matrix() -> Array:
        return _noise(device, elements).reshape(n, WIDTH)

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

    def noise() -> Callable[[], object]:
        x, counter = matrix(), xp.zeros(1, np.uint64)
        out = xp.empty_like(x)
        return lambda: kernels.noise(x, out, 0.1, 1, counter)

    yield workload("gather", 2, gather)
    yield workload("dropout", 2.25, dropout)
    yield workload("noise", 2, noise)

    def normalisation(name: str) -> Callable[[], object]:
        x, d, out = matrix(), matrix(), xp.empty((n, WIDTH), np.float32)
        of_rows = xp.empty(n, np.float32), xp.empty(n, np.float32)
        mean, weight, bias, weight_grad, bias_grad, running_mean = (xp.zeros(WIDTH, np.float32) for _ in range(6))
        variance, running_variance = xp.ones(WIDTH, np.float32), xp.ones(WIDTH, np.float32)
        of_columns, learned = (mean, variance, weight, bias), (weight, bias, weight_grad, bias_grad)
        kernels.layer_norm(x, weight, bias, out, *of_rows, 1e-5, "relu")
        return {
            "batch_statistics": lambda: kernels.batch_statistics(
                x, mean, variance, running_mean, running_variance, 0.1
            ),
            "batch_norm": lambda: kernels.batch_norm(x, *of_columns, out, 1e-5, "relu"),
            "batch_norm_backward": lambda: kernels.batch_norm_backward(
                d, x, mean, variance, *learned, 1e-5, "relu", True
            ),
            "layer_norm": lambda: kernels.layer_norm(x, weight, bias, out, *of_rows, 1e-5, "relu"),
            "layer_norm_backward": lambda: kernels.layer_norm_backward(d, x, *of_rows, *learned, 1e-5, "relu"),
        }[name]

    arrays_moved = {
        "batch_statistics": 1,
        "batch_norm": 2,
        "batch_norm_backward": 5,
        "layer_norm": 2,
        "layer_norm_backward": 3,
    }
    for name, arrays in arrays_moved.items():
        yield workload(name, arrays, partial(normalisation, name))

    def optimizer(name: str) -> Callable[[], object]:
        p, g, v, s = (_noise(device, elements) for _ in range(4))
        rate, step = xp.full(1, 1e-3, np.float64), xp.ones(1, np.int64)
        xp.square(s, out=s)
        common: dict[str, Any] = {"weight_decay": 0.0, "decayed": 0}
        if name == "sgd":
            return lambda: kernels.sgd(p, g, v, rate, momentum=0.9, nesterov=False, **common)
        options: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": False, **common}
        return lambda: kernels.adam(p, g, v, s, rate, step, **options)

    yield workload("sgd", 5, lambda: optimizer("sgd"))
    yield workload("adam", 7, lambda: optimizer("adam"))
