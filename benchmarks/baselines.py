"""The libraries that gpu_nn is measured beside: which are installed, their threads, and what several benchmarks use."""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

# On the CPU: the name of each in tables and of its package, and the module to import.
BASELINES = {"scikit-learn": "sklearn", "torch": "torch", "jax": "jax", "thinc": "thinc"}
THREADS = 2
TORCH_DEVICE = "cuda"  # of PyTorch in the benchmark of the GPU


@cache
def present(name: str) -> bool:
    return find_spec(BASELINES[name]) is not None


def versions(packages: Iterable[str] = ("numpy", *BASELINES)) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def use_threads(count: int = THREADS) -> dict[str, Any]:
    """Limit this process to `count` cores, which limits jax too, and BLAS and torch to as many threads."""
    from threadpoolctl import threadpool_info, threadpool_limits

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    threadpool_limits(count)
    if present("torch"):
        import torch

        torch.set_num_threads(count)
    pools = {f"{pool['internal_api']} {pool['version']}": pool["num_threads"] for pool in threadpool_info()}
    return {"threads": count, "pools": pools}


@cache
def why_not_compiled() -> str | None:
    """None where torch.compile works, otherwise why it does not."""
    if not present("torch"):
        return "torch is absent"
    import torch

    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8))
    except Exception as error:  # whatever a missing or foreign compiler leads to
        return f"torch.compile cannot compile here: {' '.join(str(error).split())[:120]}"
    return None


def absent() -> list[str]:
    """Baselines that are not measured on the CPU, and why."""
    gone = [f"{name} (not installed)" for name in BASELINES if not present(name)]
    gone.append("Liger (its kernels need a GPU: python -m benchmarks gpu runs them)")
    reason = why_not_compiled()
    return gone + ([f"torch.compile ({reason})"] if reason else [])


def why_no_torch(emulated: bool) -> str:
    """Empty where PyTorch can run on the GPU beside gpu_nn, otherwise why not."""
    if emulated:
        return "no GPU: ours is emulated"
    if not present("torch"):
        return "not installed"
    import torch

    return "" if torch.cuda.is_available() else "it sees no GPU"


def why_no_liger(emulated: bool) -> str:
    return why_no_torch(emulated) or ("" if find_spec("liger_kernel") is not None else "not installed")


def absent_on_gpu(emulated: bool) -> list[str]:
    """Baselines that are not measured on the GPU, and why."""
    reasons = {"PyTorch": why_no_torch(emulated), "Liger": why_no_liger(emulated)}
    return [f"{name} ({reason})" for name, reason in reasons.items() if reason]


def thinc_api() -> Any:
    """The module thinc.api, whose import warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("thinc.api")


def torch_layers(widths: Sequence[int]) -> list[Any]:
    """Linear layers of these widths in PyTorch, with a ReLU after each but the last."""
    from torch import nn

    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]


def torch_run(cost: Callable, logits: Any, labels: Any) -> Callable[[], Any]:
    """Forward and backward; the run returns the cost."""

    def run() -> Any:
        logits.grad = None
        loss = cost(logits, labels)
        loss.backward()
        return loss.detach()

    return run


def torch_standard(logits: Any, labels: Any) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(logits, labels, reduction="sum")


def torch_full(logits: Any, labels: Any) -> Any:
    """-Σ ln p_y + Σ_{t≠y} ln(1-p_t) by log1p(-p), in float32: finite on logits that are mild."""
    import torch

    log_p = torch.log_softmax(logits.float(), dim=1)
    rest = torch.log1p(-log_p.exp())
    return (rest - log_p).gather(1, labels[:, None]).sum() - rest.sum()


def jax_logits(weights: Any, x: Any) -> Any:
    """Logits of a network with ReLUs, given weight and bias of each layer."""
    import jax

    for w, b in weights[:-1]:
        x = jax.nn.relu(x @ w + b)
    return x @ weights[-1][0] + weights[-1][1]


def jax_adam(weights: Any, mean: Any, square: Any, t: Any, grads: Any) -> tuple[Any, Any, Any, Any]:
    """Adam(1e-3) on trees of arrays; t is the number of steps before. Returns weights, both moments and t."""
    import jax
    import jax.numpy as jnp

    t = t + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, grads)
    rate, root = 1e-3 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + 1e-8), weights, mean, square)
    return weights, mean, square, t
