"""An optimizer step on the CPU over all parameters of a network.

Shapes: the parameters of step.py's networks, in float32. Baselines: scikit-learn, PyTorch (fused and default), jax and
thinc. Floor: a copy that moves as many bytes: Adam reads parameters, gradient and two moments and writes all but the
gradient, 28 bytes a parameter; SGD with momentum moves 20.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.baselines import jax_adam, present, thinc_api
from benchmarks.results import table
from benchmarks.step import NETWORKS
from benchmarks.timing import OURS, Run, by_turns, cell, compared, figures, percent
from gpu_nn import SGD, Adam, Network

# Arrays of the parameters' size that a step reads or writes.
MOVED = {"adam": 7, "sgd": 5}
BASELINES = ("scikit-learn", "torch fused", "torch default", "jax jit", "thinc")
CANNOT = {("thinc", "sgd"): "has no momentum"}
FLOOR = "copying as many bytes"


def torch_runs(net: Network, kind: str) -> Iterator[tuple[str, Run]]:
    import torch

    for name, fused in (("torch fused", True), ("torch default", None)):
        weights = [torch.from_numpy(array.copy()).requires_grad_() for array in net.parameters.values()]
        for weight, grad in zip(weights, net.grads.values(), strict=True):
            weight.grad = torch.from_numpy(grad.copy())
        if kind == "adam":
            yield name, torch.optim.Adam(weights, lr=1e-3, fused=fused).step
        else:
            yield name, torch.optim.SGD(weights, lr=1e-3, momentum=0.9, fused=fused).step


def jax_run(net: Network, kind: str) -> Run:
    import jax
    import jax.numpy as jnp

    weights = [jnp.asarray(array) for array in net.parameters.values()]
    grads = [jnp.asarray(array) for array in net.grads.values()]

    def sgd(weights: Any, velocity: Any, unused: Any, t: Any, grads: Any) -> Any:
        velocity = [0.9 * v + g for v, g in zip(velocity, grads, strict=True)]
        return [w - 1e-3 * v for w, v in zip(weights, velocity, strict=True)], velocity, unused, t

    step = jax.jit(jax_adam if kind == "adam" else sgd, donate_argnums=(0, 1, 2))
    zeros = [[jnp.zeros_like(w) for w in weights] for _ in range(2)]
    held = [(weights, *zeros, jnp.float32(0))]

    def run() -> None:
        held.append(jax.block_until_ready(step(*held.pop(), grads)))

    return run


def sklearn_run(net: Network, kind: str) -> Run:
    """The optimizers of MLPClassifier, which have no public name."""
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

    weights = [array.copy() for array in net.parameters.values()]
    grads = [array.copy() for array in net.grads.values()]
    chosen = AdamOptimizer(weights, 1e-3) if kind == "adam" else SGDOptimizer(weights, 1e-3, nesterov=False)
    return lambda: chosen.update_params(weights, grads)


def thinc_run(net: Network) -> Run:
    """Its Adam over one flat vector, as ours."""
    adam = thinc_api().Adam(1e-3, L2=0.0, grad_clip=0.0, L2_is_weight_decay=False)
    held, grads = [net.flat_parameters.copy()], net.flat_grads.copy()

    def run() -> None:
        # It overwrites the gradients, which shrink from step to step; its work stays the same.
        held.append(adam((0, "parameters"), held.pop(), grads)[0])

    return run


def measured(name: str, kind: str, quick: bool) -> dict[str, Any]:
    net = Network(NETWORKS[name][0], device="cpu")
    net.flat_grads[...] = np.random.default_rng(0).normal(0, 1e-2, net.flat_grads.shape)
    optimizer = Adam(1e-3) if kind == "adam" else SGD(1e-3, momentum=0.9)
    # A copy reads half of the bytes and writes the other half.
    source = np.ones(MOVED[kind] * net.flat_parameters.size // 2, np.float32)
    target = np.empty_like(source)
    runs: dict[str, Run] = {OURS: lambda: optimizer.step(net), FLOOR: lambda: np.copyto(target, source)}
    if present("torch"):
        runs |= torch_runs(net, kind)
    if present("scikit-learn"):
        runs["scikit-learn"] = sklearn_run(net, kind)
    if present("thinc") and ("thinc", kind) not in CANNOT:
        runs["thinc"] = thinc_run(net)
    if present("jax"):
        runs["jax jit"] = jax_run(net, kind)
    seconds, _ = by_turns(runs, 15, 0.02, quick)
    return {
        "network": name,
        "optimizer": kind,
        "parameters": net.flat.n_parameters,
        "bytes": MOVED[kind] * net.flat_parameters.nbytes,
        **figures(seconds, FLOOR),
    }


def measure(quick: bool) -> dict[str, Any]:
    return {"steps": [measured(name, kind, quick) for kind in MOVED for name in (["A3"] if quick else NETWORKS)]}


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for row in result["steps"]:
        ours, floor = (cell(row["microseconds"][name]) for name in (OURS, FLOOR))
        theirs = [CANNOT.get((name, row["optimizer"])) or compared(row, name) for name in BASELINES]
        cells = [ours, *theirs, floor, percent(row["share_of_floor"])]
        lines.append([f"{row['optimizer']}, {row['parameters']:,} parameters", *cells])
    return table(["µs a step", OURS, *BASELINES, FLOOR, "our share"], lines)
