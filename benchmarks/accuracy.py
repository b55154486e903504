"""python -m benchmarks accuracy: errors of cost and gradient against mpmath, ours and the common compositions.

`gpu_nn.testing.accuracy` has the cells (classes × factor of the logits × kind of labels) and the errors.
"""

from typing import Any

from benchmarks.results import machine, table, write
from benchmarks.timing import percent
from gpu_nn.testing.accuracy import BOUNDS, CLASSES, COMPOSITIONS, SCALES, cells


def worst(group: list[dict[str, Any]], key: str, field: str) -> float:
    return max(cell[key][field] for cell in group)


def markdown(result: dict[str, Any]) -> str:
    """A line for each number of classes and scale: the worst over the kinds of labels."""
    head = ["classes, logits", "float32: g", "C", "float64: g", "C", "non-finite"]
    head += [f"`{name}`: g" if part == "g" else part for name in COMPOSITIONS for part in ("g", "non-finite")]
    lines = []
    for m in CLASSES:
        for scale in SCALES:
            group = [cell for cell in result["cells"] if (cell["classes"], cell["scale"]) == (m, scale)]
            line = [f"{m}, ×{scale}"]
            for dtype in BOUNDS:
                line += [f"{worst(group, dtype, field):.0e}" for field in ("grad_error", "cost_error")]
            line.append(f"{100 * max(worst(group, dtype, 'non_finite') for dtype in BOUNDS):.0f} %")
            for name in COMPOSITIONS:
                share = sum(cell[name]["non_finite"] for cell in group) / len(group)
                line += [f"{worst(group, name, 'grad_error'):.0e}", f"{100 * share:.0f} %"]
            lines.append(line)
    cancelled = sum(cell[f"{dtype}_cancelled"] for cell in result["cells"] for dtype in BOUNDS)
    rows = sum(cell["rows"] for cell in result["cells"]) * len(BOUNDS)  # each type counts separately
    return f"{table(head, lines)}\n\nMeasured against that twentieth: {cancelled:,} of {rows:,} rows."


def summary(result: dict[str, Any]) -> str:
    """A line for each scale: the worst over the numbers of classes and the kinds of labels."""
    head = ["logits", *(f"gpu_nn, {dtype}: {what}" for dtype in BOUNDS for what in ("gradient", "cost"))]
    lines = []
    for scale in SCALES:
        group = [cell for cell in result["cells"] if cell["scale"] == scale]
        line = [f"N(0, 1) × {scale}"]
        for dtype in BOUNDS:
            line += [f"{worst(group, dtype, field):.0e}" for field in ("grad_error", "cost_error")]
        rows = sum(cell["rows"] for cell in group)
        for name in COMPOSITIONS:
            line.append(percent(sum(cell[name]["non_finite"] * cell["rows"] for cell in group) / rows))
        lines.append(line)
    return table([*head, *(f"`{name}`: NaN or infinite" for name in COMPOSITIONS)], lines)


def main() -> None:
    result: dict[str, Any] = {"machine": machine("numpy", "mpmath"), "bounds": BOUNDS, "cells": list(cells())}
    write("accuracy", result)
    print(markdown(result))
    for dtype, bound in BOUNDS.items():
        for field in ("grad_error", "cost_error"):
            cell = max(result["cells"], key=lambda cell: cell[dtype][field])
            where = f"{cell['classes']} classes, ×{cell['scale']}, {cell['labels']}"
            print(f"{dtype} {field}: worst {cell[dtype][field]:.1e} ({where}), bound {bound:.0e}")
