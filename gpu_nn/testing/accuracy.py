"""Errors of cost and gradient against mpmath, on a grid of cells: of gpu_nn and of the common compositions.

A cell is a number of classes, a factor of the logits and a kind of labels. Among its rows are one with a tie at the
maximum and, from 3 classes on, one with a masked class (logit -inf). `reference.Exact` defines the errors of a row.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpu_nn import functional as F
from gpu_nn.testing.reference import Exact, cost_and_grad

CLASSES = (2, 3, 10, 100, 1000)
SCALES = (1, 10, 50, 200, 1000)
LABELS = ("right", "wrong", "soft", "multi-hot", "all-zero")
ROWS = {2: 24, 3: 24, 10: 24, 100: 8, 1000: 4}
BOUNDS = {"float32": 4e-6, "float64": 1e-14}

# Cost and gradient of each row, given logits and dense targets, both (n, m).
Compute = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def ours(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return F.softmax_cross_entropy_with_grad(z, y, reduction="none")


def log1p_of_minus_p(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-Σ y log p + (1-y) log1p(-p) with p = softmax(z), and its gradient as automatic differentiation computes it."""
    power = np.exp(z - z.max(axis=1, keepdims=True))
    p = power / power.sum(axis=1, keepdims=True)
    cost = -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=1)
    dp = -y / p + (1 - y) / (1 - p)
    return cost, p * (dp - (p * dp).sum(axis=1, keepdims=True))


def log_of_minus_expm1(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-Σ y log p + (1-y) log(-expm1(log p)) with log p = log_softmax(z), and its gradient in the same manner."""
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rest = -np.expm1(log_p)
    cost = -(y * log_p + (1 - y) * np.log(rest)).sum(axis=1)
    d_log_p = -y + (1 - y) * np.exp(log_p) / rest
    return cost, d_log_p - np.exp(log_p) * d_log_p.sum(axis=1, keepdims=True)


COMPOSITIONS: dict[str, Compute] = {"log1p(-p)": log1p_of_minus_p, "log(-expm1(log p))": log_of_minus_expm1}


def rows(m: int, scale: int, labels: str, dtype: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and dense targets of a cell, both (n, m), from a fixed seed."""
    random = np.random.default_rng([m, scale, LABELS.index(labels)])
    z = (random.standard_normal((n, m)) * scale).astype(dtype)
    top = z.argmax(axis=1)
    z[0, (top[0] + 1) % m] = z[0, top[0]]
    masked = np.zeros((n, m), bool)
    if m > 2:
        masked[1, z[1].argmin()] = True
        z[masked] = -np.inf
    if labels == "soft":
        y = random.dirichlet(np.ones(m), n).astype(dtype)
    elif labels == "multi-hot":
        y = (random.random((n, m)) < 0.3).astype(dtype)
    else:
        y = np.zeros((n, m), dtype)
    if labels in ("right", "wrong"):
        column = top if labels == "right" else np.where(masked, np.inf, z).argmin(axis=1)
        y[np.arange(n), column] = 1
    y[masked] = 0
    return z, y


def errors(compute: Compute, z: np.ndarray, y: np.ndarray, exact: list[Exact]) -> dict[str, float]:
    """Largest errors over the finite rows, and the fraction of rows with a NaN or an infinity."""
    with np.errstate(all="ignore"):
        cost, grad = compute(z, y)
    tiny = float(np.finfo(z.dtype).tiny)
    finite = np.isfinite(cost) & np.isfinite(grad).all(axis=1)
    good = np.flatnonzero(finite)
    return {
        "grad_error": max((exact[r].grad_error(grad[r], tiny) for r in good), default=0.0),
        "cost_error": max((exact[r].cost_error(cost[r], tiny) for r in good), default=0.0),
        "non_finite": float(1 - finite.mean()),
    }


def cells(
    compute: Compute = ours, classes: tuple[int, ...] = CLASSES, scales: tuple[int, ...] = SCALES
) -> Iterator[dict[str, Any]]:
    """Every cell's errors, of `compute` in float32 and float64 and of the compositions in float32."""
    for m in classes:
        for scale in scales:
            for labels in LABELS:
                cell: dict[str, Any] = {"classes": m, "scale": scale, "labels": labels, "rows": ROWS[m]}
                for dtype in BOUNDS:
                    z, y = rows(m, scale, labels, dtype, ROWS[m])
                    exact = [cost_and_grad(z[r], y[r]) for r in range(len(z))]
                    cell[f"{dtype}_cancelled"] = sum(row.cancelled for row in exact)
                    cell[dtype] = errors(compute, z, y, exact)
                    if dtype == "float32":
                        cell |= {name: errors(composed, z, y, exact) for name, composed in COMPOSITIONS.items()}
                yield cell
