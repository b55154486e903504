"""An epoch of training as each peer would write it: shuffle, gather a batch, forward, backward, Adam."""

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.baselines import present, why_not_compiled

Epoch = Callable[[], object]
Widths = list[int]


def peer_epochs(widths: Widths, batch: int, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, Epoch]]:
    """Name and epoch of every peer that is here. All train with the everyday loss and Adam(1e-3) in float32."""
    if present("scikit-learn"):
        yield "scikit-learn", sklearn_epoch(widths, batch, x, y)
    if present("torch"):
        yield "torch eager", torch_epoch(widths, batch, x, y, compiled=False)
        if why_not_compiled() is None:
            yield "torch.compile", torch_epoch(widths, batch, x, y, compiled=True)
    if present("jax"):
        yield "jax, Python loop", jax_epoch(widths, batch, x, y, scan=False)
        yield "jax, lax.scan", jax_epoch(widths, batch, x, y, scan=True)
    if present("thinc"):
        yield "thinc", thinc_epoch(widths, batch, x, y)


def sklearn_epoch(widths: Widths, batch: int, x: np.ndarray, y: np.ndarray) -> Epoch:
    from sklearn.neural_network import MLPClassifier

    peer = MLPClassifier(widths[1:-1], batch_size=batch, alpha=0, random_state=0)
    classes = np.arange(widths[-1])
    return lambda: peer.partial_fit(x, y, classes=classes)


def torch_epoch(widths: Widths, batch: int, x: np.ndarray, y: np.ndarray, compiled: bool) -> Epoch:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)

    def cost(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(net(x), y)

    cost_of = torch.compile(cost) if compiled else cost

    def epoch() -> None:
        for chosen in torch.randperm(len(rows)).split(batch):
            adam.zero_grad()
            cost_of(rows[chosen], labels[chosen]).backward()
            adam.step()

    return epoch


def jax_epoch(widths: Widths, batch: int, x: np.ndarray, y: np.ndarray, scan: bool) -> Epoch:
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    sizes = list(pairwise(widths))
    weights = [(jnp.asarray(random.normal(0, (2 / i) ** 0.5, (i, o)), jnp.float32), jnp.zeros(o)) for i, o in sizes]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    rows, labels = jnp.asarray(x), jnp.asarray(y)

    def cost(weights: Any, x: Any, y: Any) -> Any:
        for w, b in weights[:-1]:
            x = jax.nn.relu(x @ w + b)
        log_p = jax.nn.log_softmax(x @ weights[-1][0] + weights[-1][1])
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def step(state: Any, chosen: Any, rows: Any, labels: Any) -> Any:
        weights, mean, square, t = state
        loss, grads = jax.value_and_grad(cost)(weights, rows[chosen], labels[chosen])
        t = t + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, grads)
        rate, root = 1e-3 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + 1e-8), weights, mean, square)
        return (weights, mean, square, t), loss

    def whole(state: Any, order: Any, rows: Any, labels: Any) -> Any:
        return jax.lax.scan(lambda state, chosen: step(state, chosen, rows, labels), state, order)

    held = [(weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.float32(0))]
    one, all_of_them = jax.jit(step, donate_argnums=0), jax.jit(whole, donate_argnums=0)

    def epoch() -> None:
        order = random.permutation(len(x)).astype(np.int32).reshape(-1, batch)
        state = held.pop()
        if scan:
            state, _ = all_of_them(state, order, rows, labels)
        else:
            for chosen in order:
                state, _ = one(state, chosen, rows, labels)
        held.append(jax.block_until_ready(state))

    return epoch


def thinc_epoch(widths: Widths, batch: int, x: np.ndarray, y: np.ndarray) -> Epoch:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from thinc.api import Adam, Relu, Softmax, chain

    net = chain(*(Relu(width) for width in widths[1:-1]), Softmax(widths[-1]))
    one_hot = np.eye(widths[-1], dtype=np.float32)
    net.initialize(x[:batch], one_hot[y[:batch]])
    adam = Adam(1e-3, L2=0.0, grad_clip=0.0, L2_is_weight_decay=False)
    random = np.random.default_rng(0)

    def epoch() -> None:
        order = random.permutation(len(x))
        for first in range(0, len(x), batch):
            chosen = order[first : first + batch]
            p, backward = net.begin_update(x[chosen])
            backward((p - one_hot[y[chosen]]) / len(chosen))
            net.finish_update(adam)

    return epoch
