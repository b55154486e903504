"""Probabilities of given rows on the CPU, by the same weights.

Shapes: ROWS of the networks of step.py. Baselines: scikit-learn, PyTorch eager and compiled, jax, thinc. Floor: the
matrix products alone.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.baselines import jax_logits, present, thinc_api, torch_layers, why_not_compiled
from benchmarks.results import table
from benchmarks.step import NETWORKS, products_run
from benchmarks.timing import OURS, Run, by_turns, cell, compared, figures, percent
from gpu_nn import Network

ROWS = (1, 10_000)
BASELINES = ("scikit-learn", "torch eager", "torch.compile", "jax jit", "thinc")
FLOOR = "matrix products"


def baseline_runs(net: Network, x: np.ndarray) -> Iterator[tuple[str, Run]]:
    """Name and run of every installed baseline, with the weights of `net`."""
    weights = [(net.parameters[f"{i}.weight"], net.parameters[f"{i}.bias"]) for i in range(len(net.layers))]
    if present("scikit-learn"):
        from sklearn.neural_network import MLPClassifier

        classes = np.arange(net.n_classes)
        model = MLPClassifier(net.widths[1:-1])
        model.partial_fit(np.zeros((net.n_classes, net.n_inputs), np.float32), classes, classes=classes)
        model.coefs_, model.intercepts_ = [w for w, _ in weights], [b for _, b in weights]
        yield "scikit-learn", lambda: model.predict_proba(x)
    if present("torch"):
        yield from torch_runs(weights, x)
    if present("thinc"):
        yield "thinc", thinc_run(weights, x)
    if present("jax"):
        import jax
        import jax.numpy as jnp

        held, rows = jax.tree.map(jnp.asarray, weights), jnp.asarray(x)
        proba = jax.jit(lambda held, rows: jax.nn.softmax(jax_logits(held, rows)))
        yield "jax jit", lambda: jax.block_until_ready(proba(held, rows))


def thinc_run(weights: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> Run:
    thinc = thinc_api()
    kinds = [thinc.Relu] * (len(weights) - 1) + [thinc.Softmax]
    layers = [kind(*reversed(w.shape)) for kind, (w, _) in zip(kinds, weights, strict=True)]
    model = thinc.chain(*layers)
    model.initialize()
    for layer, (w, b) in zip(layers, weights, strict=True):
        layer.set_param("W", np.ascontiguousarray(w.T))
        layer.set_param("b", b.copy())
    return lambda: model.predict(x)


def torch_runs(weights: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> Iterator[tuple[str, Run]]:
    import torch
    from torch import nn

    layers = torch_layers([len(weights[0][0]), *(len(b) for _, b in weights)])
    for linear, (w, b) in zip(layers[::2], weights, strict=True):
        linear.weight.data, linear.bias.data = torch.from_numpy(w.T.copy()), torch.from_numpy(b.copy())
    model = nn.Sequential(*layers, nn.Softmax(dim=1)).eval()
    rows = torch.from_numpy(x)

    def run_of(call: Callable) -> Run:
        def run() -> Any:
            with torch.inference_mode():
                return call(rows)

        return run

    yield "torch eager", run_of(model)
    if why_not_compiled() is None:
        torch.compiler.reset()
        yield "torch.compile", run_of(torch.compile(model))


def products(net: Network, n: int) -> Run:
    random = np.random.default_rng(0)
    calls = []
    for i, o in pairwise(net.widths):
        a, w = random.random((n, i), dtype=np.float32), random.random((i, o), dtype=np.float32)
        calls.append((a, w, np.empty((n, o), np.float32)))
    return products_run(calls)


def measured(network: str, n: int, quick: bool) -> dict[str, Any]:
    net = Network(NETWORKS[network][0], device="cpu")
    x = np.random.default_rng(0).random((n, net.n_inputs), dtype=np.float32)
    runs: dict[str, Run] = {OURS: lambda: net.predict_proba(x), FLOOR: products(net, n), **dict(baseline_runs(net, x))}
    ours = net.predict_proba(x)
    for name, run in runs.items():
        if name != FLOOR and not np.allclose(np.asarray(run()), ours, atol=1e-4):
            raise ValueError(f"{name} gives other probabilities than ours on {network}: not the same work")
    seconds, _ = by_turns(runs, 9, 0.03, quick)
    return {"network": network, "widths": net.widths, "n": n, **figures(seconds, FLOOR)}


def measure(quick: bool) -> dict[str, Any]:
    if quick:
        return {"predictions": [measured("A3", 4, quick)]}
    return {"predictions": [measured(name, n, quick) for n in ROWS for name in NETWORKS]}


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for row in result["predictions"]:
        ours, floor = (cell(row["microseconds"][name]) for name in (OURS, FLOOR))
        cells = [ours, *(compared(row, name) for name in BASELINES), floor, percent(row["share_of_floor"])]
        rows = f"{row['n']:,} row{'s' * (row['n'] > 1)}"
        lines.append([f"{'-'.join(map(str, row['widths']))}, {rows}", *cells])
    return table(["µs", OURS, *BASELINES, FLOOR, "our share"], lines)
