"""python -m benchmarks accuracy: errors of cost and gradient against mpmath, ours and the common compositions.

Cells: m classes × logits multiplied by a scale × kind of labels. Among the rows of a cell are one with a tie at the
maximum and, from 3 classes on, one with a masked class (logit -inf). A row's errors: |Δg|∞/|g|∞ and |ΔC|/C. Rows whose
exact gradient cancels to under a twentieth of its own terms are measured against that twentieth, and differences up to
the smallest normal number count 0 (see `exact.Exact`).
"""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np

from benchmarks.results import machine, table, write
from gpu_nn import functional as F
from gpu_nn.testing.reference import Exact, cost_and_grad

CLASSES = (2, 3, 10, 100, 1000)
SCALES = (1, 10, 50, 200, 1000)
LABELS = ("right", "wrong", "soft", "multi-hot", "all-zero")
ROWS = {2: 24, 3: 24, 10: 24, 100: 8, 1000: 4}
BOUNDS = {"float32": 4e-6, "float64": 1e-14}

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
    """n seeded rows of a cell: logits and dense targets."""
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


def errors(compute: Compute, z: np.ndarray, y: np.ndarray, truth: list[Exact]) -> dict[str, float]:
    """Worst errors over the finite rows, and the share of rows with anything non-finite."""
    with np.errstate(all="ignore"):
        cost, grad = compute(z, y)
    tiny = float(np.finfo(z.dtype).tiny)
    finite = np.isfinite(cost) & np.isfinite(grad).all(axis=1)
    good = np.flatnonzero(finite)
    return {
        "grad_error": max((truth[r].grad_error(grad[r], tiny) for r in good), default=0.0),
        "cost_error": max((truth[r].cost_error(cost[r], tiny) for r in good), default=0.0),
        "non_finite": float(1 - finite.mean()),
    }


def cells(
    compute: Compute = ours, classes: tuple[int, ...] = CLASSES, scales: tuple[int, ...] = SCALES
) -> Iterator[dict[str, Any]]:
    """Every cell's errors, of `compute` in both types and of the compositions in float32."""
    for m in classes:
        for scale in scales:
            for labels in LABELS:
                cell: dict[str, Any] = {"classes": m, "scale": scale, "labels": labels, "rows": ROWS[m]}
                for dtype in BOUNDS:
                    z, y = rows(m, scale, labels, dtype, ROWS[m])
                    truth = [cost_and_grad(z[r], y[r]) for r in range(len(z))]
                    cell[f"{dtype}_cancelled"] = sum(exact.cancelled for exact in truth)
                    cell[dtype] = errors(compute, z, y, truth)
                    if dtype == "float32":
                        cell |= {name: errors(composed, z, y, truth) for name, composed in COMPOSITIONS.items()}
                yield cell


def markdown(result: dict[str, Any]) -> str:
    """One line for each number of classes and scale: the worst over the kinds of labels."""
    head = ["classes, logits", "float32: g", "C", "float64: g", "C", "non-finite"]
    head += [f"`{name}`: g" if part == "g" else part for name in COMPOSITIONS for part in ("g", "non-finite")]
    lines = []
    for m in CLASSES:
        for scale in SCALES:
            group = [cell for cell in result["cells"] if (cell["classes"], cell["scale"]) == (m, scale)]

            def worst(key: str, field: str, group: list[dict[str, Any]] = group) -> float:
                return max(cell[key][field] for cell in group)

            line = [f"{m}, ×{scale}"]
            for dtype in BOUNDS:
                line += [f"{worst(dtype, 'grad_error'):.0e}", f"{worst(dtype, 'cost_error'):.0e}"]
            line.append(f"{100 * max(worst(dtype, 'non_finite') for dtype in BOUNDS):.0f} %")
            for name in COMPOSITIONS:
                share = sum(cell[name]["non_finite"] for cell in group) / len(group)
                line += [f"{worst(name, 'grad_error'):.0e}", f"{100 * share:.0f} %"]
            lines.append(line)
    return f"{table(head, lines)}\n\nMeasured against that twentieth: {_cancelled(result)} rows."


def _cancelled(result: dict[str, Any]) -> str:
    """In how many rows, of how many, the exact gradient cancels; each type counts by itself."""
    cancelled = sum(cell[f"{dtype}_cancelled"] for cell in result["cells"] for dtype in BOUNDS)
    return f"{cancelled:,} of {sum(cell['rows'] for cell in result['cells']) * len(BOUNDS):,}"


def main() -> None:
    result: dict[str, Any] = {"machine": machine("numpy", "mpmath"), "bounds": BOUNDS, "cells": list(cells())}
    write("accuracy", result)
    print(markdown(result))
    for dtype, bound in BOUNDS.items():
        for field in ("grad_error", "cost_error"):
            found = [(cell[dtype][field], cell) for cell in result["cells"]]
            worst, cell = max(found, key=itemgetter(0))
            where = f"{cell['classes']} classes, ×{cell['scale']}, {cell['labels']}"
            print(f"{dtype} {field}: worst {worst:.1e} ({where}), bound {bound:.0e}")
