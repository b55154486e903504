"""A training step on the CPU, and the matrix products that it cannot do without.

Shapes: NETWORKS. All run whole epochs (shuffling and gathering included) by turns in one process, on the same data in
memory, with Adam(1e-3) in float32, no weight decay, and the same batch size. Baselines: scikit-learn, PyTorch eager and
compiled, jax, thinc. They compute the standard cross entropy, since the full cost as it is written in them turns NaN;
gpu_nn computes both. Floor: the matrix products alone, by `np.dot`. `parts` divides our step by kernel.
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.baselines import jax_adam, jax_logits, present, thinc_api, torch_layers, why_not_compiled
from benchmarks.results import Goal, table
from benchmarks.timing import OURS, STANDARD, OwnClock, Run, cell, compared, figures, interleaved, label, percent, short
from gpu_nn import Adam, Network, Trainer, network
from gpu_nn.device import CPU
from gpu_nn.kernels import kernels_for

# Widths, batch size, and batches in an epoch.
NETWORKS = {
    "A1": ([784, 256, 128, 10], 128, 60),
    "A2": ([784, 1024, 1024, 10], 256, 10),
    "A3": ([64, 64, 10], 32, 600),
}
# How many times as fast as a baseline, with the full cost.
GOALS = {
    "A1": {"torch eager": 1.5, "scikit-learn": 2.2, "best jax": 0.9},
    "A2": {"torch eager": 1.05, "scikit-learn": 2.0, "best jax": 0.95},
    "A3": {"torch eager": 4.5, "scikit-learn": 4.0, "best jax": 0.45},
}
FLOOR = "matrix products"
COLUMNS = ("scikit-learn", "torch eager", "torch.compile", "jax, Python loop", "jax, lax.scan", "thinc")


def our_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray, complement_weight: float) -> Run:
    net = Network(widths, device="cpu")
    trainer = Trainer(net, Adam(1e-3), batch_size=batch, complement_weight=complement_weight)
    # The history's seconds: `fit` checks the data before its first epoch, which no baseline does.
    return OwnClock(lambda: trainer.fit(x, y, epochs=1)[-1].seconds)


def products_epoch(widths: list[int], batch: int, batches: int) -> Run:
    """The matrix products of an epoch alone: a·w and aᵀ·dz of every layer, dz·wᵀ of all but the first."""
    random = np.random.default_rng(0)
    calls = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        a, w, dz = (
            random.random(shape, dtype=np.float32) for shape in ((batch, inputs), (inputs, outputs), (batch, outputs))
        )
        calls += [(a, w, np.empty_like(dz)), (a.T, dz, np.empty_like(w))]
        if i:
            calls.append((dz, w.T, np.empty_like(a)))

    return products_run(calls * batches)


def products_run(calls: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Run:
    """Every product a·b of `calls`, into `out`."""

    def run() -> None:
        for a, b, out in calls:
            np.dot(a, b, out=out)

    return run


def baseline_epochs(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, Run]]:
    """Name and epoch of every installed baseline."""
    if present("scikit-learn"):
        yield "scikit-learn", sklearn_epoch(widths, batch, x, y)
    if present("torch"):
        yield "torch eager", torch_epoch(widths, batch, x, y)
        if why_not_compiled() is None:
            yield "torch.compile", torch_epoch(widths, batch, x, y, mode="default")
    if present("jax"):
        yield "jax, Python loop", jax_epoch(widths, batch, x, y, scan=False)
        yield "jax, lax.scan", jax_epoch(widths, batch, x, y, scan=True)
    if present("thinc"):
        yield "thinc", thinc_epoch(widths, batch, x, y)


def sklearn_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray) -> Run:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(widths[1:-1], batch_size=batch, alpha=0, random_state=0)
    classes = np.arange(widths[-1])
    return lambda: model.partial_fit(x, y, classes=classes)


def torch_epoch(
    widths: list[int],
    batch: int,
    x: np.ndarray,
    y: np.ndarray,
    mode: str | None = None,
    where: str = "cpu",
    half: str | None = None,
    rate: float = 1e-3,
) -> Run:
    """mode: of torch.compile; None runs eagerly. where: the device. half: the type of autocast."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    net = torch.nn.Sequential(*torch_layers(widths)).to(where)
    adam = torch.optim.Adam(net.parameters(), lr=rate, fused=True, capturable=where == "cuda")
    rows, labels = (torch.from_numpy(array).to(where) for array in (x, y))

    def cost(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if half is None:
            return cross_entropy(net(x), y)
        with torch.autocast(where, dtype=getattr(torch, half)):
            return cross_entropy(net(x), y)

    if mode is not None:
        torch.compiler.reset()  # code seen with other shapes would be compiled for any
    cost_of = cost if mode is None else torch.compile(cost, mode=mode)

    def epoch() -> None:
        for chosen in torch.randperm(len(rows), device=where).split(batch):
            adam.zero_grad()
            cost_of(rows[chosen], labels[chosen]).backward()
            adam.step()

    return epoch


def jax_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray, scan: bool) -> Run:
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    sizes = list(pairwise(widths))
    weights = [(jnp.asarray(random.normal(0, (2 / i) ** 0.5, (i, o)), jnp.float32), jnp.zeros(o)) for i, o in sizes]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    rows, labels = jnp.asarray(x), jnp.asarray(y)

    def cost(weights: Any, x: Any, y: Any) -> Any:
        log_p = jax.nn.log_softmax(jax_logits(weights, x))
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def step(state: Any, chosen: Any, rows: Any, labels: Any) -> Any:
        weights, mean, square, t = state
        loss, grads = jax.value_and_grad(cost)(weights, rows[chosen], labels[chosen])
        return jax_adam(weights, mean, square, t, grads), loss

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


def thinc_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray) -> Run:
    thinc = thinc_api()
    net = thinc.chain(*(thinc.Relu(width) for width in widths[1:-1]), thinc.Softmax(widths[-1]))
    one_hot = np.eye(widths[-1], dtype=np.float32)
    net.initialize(x[:batch], one_hot[y[:batch]])
    adam = thinc.Adam(1e-3, L2=0.0, grad_clip=0.0, L2_is_weight_decay=False)
    random = np.random.default_rng(0)

    def epoch() -> None:
        order = random.permutation(len(x))
        for first in range(0, len(x), batch):
            chosen = order[first : first + batch]
            p, backward = net.begin_update(x[chosen])
            backward((p - one_hot[y[chosen]]) / len(chosen))
            net.finish_update(adam)

    return epoch


class Timed:
    """Kernels that add their time to `seconds`, by name. A kernel that another one calls counts in the caller."""

    def __init__(self, kernels: Any):
        self._kernels = kernels
        self.seconds: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._kernels, name)
        if name == "cuda_graph" or not callable(kernel):
            return kernel

        def run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = kernel(*args, **options)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            return result

        setattr(self, name, run)
        return run


def parts(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray, epochs: int) -> dict[str, float]:
    """Microseconds of our step (full cost, Adam) in each kernel, and "between kernels": the rest."""
    kernels = Timed(kernels_for(CPU))
    with mock.patch.object(network, "kernels_for", return_value=kernels):
        net = network.Network(widths, device="cpu")
    trainer = Trainer(net, Adam(1e-3), batch_size=batch)
    trainer.fit(x, y, epochs=1)  # to warm up
    kernels.seconds.clear()
    whole = sum(record.seconds for record in trainer.fit(x, y, epochs=epochs)[-epochs:])
    steps = epochs * (len(x) // batch)
    found = {name: 1e6 * seconds / steps for name, seconds in kernels.seconds.items()}
    return found | {"between kernels": 1e6 * whole / steps - sum(found.values())}


def measured(name: str, quick: bool) -> dict[str, Any]:
    widths, batch, batches = NETWORKS[name]
    batches = 2 if quick else batches
    random = np.random.default_rng(0)
    x = random.random((batch * batches, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], len(x))
    epochs = {
        OURS: our_epoch(widths, batch, x, y, 1.0),
        STANDARD: our_epoch(widths, batch, x, y, 0.0),
        FLOOR: products_epoch(widths, batch, batches),
        **dict(baseline_epochs(widths, batch, x, y)),
    }
    seconds = interleaved(epochs, rounds=1 if quick else 9)
    jax = [name for name in seconds if name.startswith("jax")]
    if jax:
        seconds["best jax"] = min((seconds[name] for name in jax), key=np.median)
    return {
        "network": name,
        "widths": widths,
        "batch": batch,
        "goals": GOALS[name],
        **figures(seconds, FLOOR, batches),
        "parts_microseconds": parts(widths, batch, x, y, epochs=1 if quick else 5),
    }


def measure(quick: bool) -> dict[str, Any]:
    return {"networks": [measured(name, quick) for name in (["A3"] if quick else NETWORKS)]}


def markdown(result: dict[str, Any]) -> str:
    rows = result["networks"]
    lines = [[label(name), *(cell(row["microseconds"].get(name)) for row in rows)] for name in (OURS, STANDARD, FLOOR)]
    lines += [[name, *(compared(row, name) for row in rows)] for name in COLUMNS]
    lines.append(["our share of matrix products", *(percent(row["share_of_floor"]) for row in rows)])
    for name in max((row["parts_microseconds"] for row in rows), key=len):
        shares = [row["parts_microseconds"].get(name, 0.0) / sum(row["parts_microseconds"].values()) for row in rows]
        lines.append([f"of ours: {name if ' ' in name else f'`{name}`'}", *map(percent, shares)])
    return table(_head(result), lines)


def summary(result: dict[str, Any]) -> str:
    """A few runs of each network, without their spread."""
    lines = []
    for name in (OURS, "scikit-learn", "torch eager", "torch.compile", "jax, lax.scan", FLOOR):
        cells = []
        for row in result["networks"]:
            ratio = row["times_as_fast"].get(name)
            times = row["microseconds"].get(name)
            cells.append("absent" if times is None else short(times["median"]) + (f", {ratio:.2f} ×" if ratio else ""))
        lines.append([name, *cells])
    return table(_head(result), lines)


def _head(result: dict[str, Any]) -> list[str]:
    return ["µs a step", *(f"{'-'.join(map(str, row['widths']))}, {row['batch']}" for row in result["networks"])]


def goals(result: dict[str, Any]) -> list[Goal]:
    return [
        (f"{row['network']} × {name}", row["times_as_fast"].get(name), goal)
        for row in result["networks"]
        for name, goal in row["goals"].items()
    ]
