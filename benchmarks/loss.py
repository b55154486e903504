"""Loss and gradient of given logits on the CPU, with labels as indices.

Shapes: SHAPES in float32; the logits are N(0, 1), where every composition is finite. Baselines of the full cost:
PyTorch and jax with -(y·ln p + (1-y)·log1p(-p)), with a dense one-hot y as it is mostly written, or gathering with the
labels. Of the standard cross entropy: PyTorch, jax, scikit-learn and thinc. Floor: a copy of the logits, which reads
and writes each once.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.baselines import THREADS, present, thinc_api, torch_full, torch_run, torch_standard, why_not_compiled
from benchmarks.results import Goal, table
from benchmarks.timing import OURS, STANDARD, Run, by_turns, cell, compared, figures, label, percent, ratios
from gpu_nn import functional as F

SHAPES = ((4096, 10), (4096, 1000), (512, 32768))
DENSE, GATHERED = "torch eager, dense y", "torch eager, gathered"
GOALS = {(4096, 10): 1.0, (4096, 1000): 2.0, (512, 32768): 2.0}
FLOOR = "copy"
FULL = (DENSE, GATHERED, "torch.compile", "jax jit")
STANDARD_BASELINES = tuple(
    f"{name}, everyday" for name in ("torch eager", "torch.compile", "jax jit", "scikit-learn", "thinc")
)


def torch_runs(z: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, Run]]:
    import torch
    from torch.nn import functional

    logits = torch.from_numpy(z.copy()).requires_grad_()
    labels = torch.from_numpy(y)
    one_hot = functional.one_hot(labels, z.shape[1]).float()

    def dense(logits: Any, labels: Any) -> Any:
        log_p = torch.log_softmax(logits, dim=1)
        return -(one_hot * log_p + (1 - one_hot) * torch.log1p(-log_p.exp())).sum()

    costs = {DENSE: dense, GATHERED: torch_full, "torch eager, everyday": torch_standard}
    if why_not_compiled() is None:
        torch.compiler.reset()
        costs |= {"torch.compile": torch.compile(torch_full), "torch.compile, everyday": torch.compile(torch_standard)}
    for name, cost in costs.items():
        yield name, torch_run(cost, logits, labels)


def jax_runs(z: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, Run]]:
    import jax
    import jax.numpy as jnp

    logits, labels = jnp.asarray(z), jnp.asarray(y)

    def full(logits: Any, labels: Any) -> Any:
        log_p = jax.nn.log_softmax(logits)
        rest = jnp.log1p(-jnp.exp(log_p))
        return jnp.take_along_axis(rest - log_p, labels[:, None], axis=1).sum() - rest.sum()

    def standard(logits: Any, labels: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).sum()

    def run_of(cost: Callable) -> Run:
        both = jax.jit(jax.value_and_grad(cost))
        return lambda: jax.block_until_ready(both(logits, labels))[0]

    yield "jax jit", run_of(full)
    yield "jax jit, everyday", run_of(standard)


def sklearn_run(z: np.ndarray, y: np.ndarray) -> Run:
    """The loss of its LogisticRegression and gradient boosting, in Cython; it has no public name."""
    from sklearn._loss import HalfMultinomialLoss

    cost = HalfMultinomialLoss(n_classes=z.shape[1])
    labels, losses, dz = y.astype(np.float32), np.empty(len(z), np.float32), np.empty_like(z)

    def run() -> Any:
        cost.loss_gradient(labels, z, loss_out=losses, gradient_out=dz, n_threads=THREADS)
        return losses.sum(dtype=np.float64)

    return run


def thinc_run(z: np.ndarray, y: np.ndarray) -> Run:
    """Its softmax, and p - y, the gradient that its layers take."""
    ops, rows = thinc_api().NumpyOps(), np.arange(len(z))

    def run() -> Any:
        p = ops.softmax(z)
        loss = -np.log(p[rows, y]).sum()
        p[rows, y] -= 1
        return loss

    return run


def measured(n: int, m: int, quick: bool) -> dict[str, Any]:
    random = np.random.default_rng(0)
    z = random.standard_normal((n, m), dtype=np.float32)
    y = random.integers(0, m, n)
    dz = np.empty_like(z)
    runs: dict[str, Run] = {
        OURS: lambda: F.softmax_cross_entropy_with_grad(z, y, out=dz)[0],
        STANDARD: lambda: F.softmax_cross_entropy_with_grad(z, y, complement_weight=0.0, out=dz)[0],
        FLOOR: lambda: np.copyto(dz, z),
    }
    if present("torch"):
        runs |= torch_runs(z, y)
    if present("jax"):
        runs |= jax_runs(z, y)
    if present("scikit-learn"):
        runs["scikit-learn, everyday"] = sklearn_run(z, y)
    if present("thinc"):
        runs["thinc, everyday"] = thinc_run(z, y)
    costs = {name: float(run()) for name, run in runs.items() if name != FLOOR}
    for name, cost in costs.items():
        same = costs[STANDARD if "everyday" in name else OURS]
        if not np.isclose(cost, same, rtol=1e-3):
            raise ValueError(f"{name} computes {cost} at {n} × {m}, ours {same}: not the same cost")
    seconds, repeats = by_turns(runs, 11, 0.04, quick, of=costs)
    return {
        "n": n,
        "m": m,
        "repeats": repeats,
        "goal": GOALS.get((n, m)),
        "everyday_times_as_fast": ratios({name: seconds[name] for name in seconds if "everyday" in name}, STANDARD),
        "bytes": 2 * z.nbytes,
        "bytes_a_second": 2 * z.nbytes / float(np.median(seconds[FLOOR])),
        **figures(seconds, FLOOR),
    }


def measure(quick: bool) -> dict[str, Any]:
    return {"shapes": [measured(n, m, quick) for n, m in (((8, 10), (4, 100)) if quick else SHAPES)]}


def markdown(result: dict[str, Any]) -> str:
    rows = result["shapes"]
    of_standard = STANDARD, STANDARD_BASELINES, "everyday_times_as_fast"
    lines = []
    for ours, names, key in ((OURS, FULL, "times_as_fast"), of_standard):
        lines.append([label(ours), *(cell(row["microseconds"][ours]) for row in rows)])
        lines += [[label(name), *(compared(row, name, key) for row in rows)] for name in names]
    lines.append([FLOOR, *(cell(row["microseconds"][FLOOR]) for row in rows)])
    lines.append(["our share of the copy", *(percent(row["share_of_floor"]) for row in rows)])
    return table(["loss and gradient, µs", *(f"{row['n']} × {row['m']}" for row in rows)], lines)


def goals(result: dict[str, Any]) -> list[Goal]:
    return [
        (f"{row['n']} × {row['m']} × {name}", row["times_as_fast"].get(name), row["goal"])
        for row in result["shapes"]
        for name in (DENSE, GATHERED)
        if row["goal"]
    ]
