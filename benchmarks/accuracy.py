"""python -m benchmarks accuracy: errors of cost and gradient against mpmath, ours and the common compositions.

`gpu_nn.testing.accuracy` has the cells (classes × factor of the logits × kind of labels) and the errors.
"""

from operator import itemgetter
from typing import Any

from benchmarks.results import machine, table, write
from benchmarks.timing import percent
from gpu_nn.testing.accuracy import BOUNDS, CLASSES, COMPOSITIONS, SCALES, cells


def markdown(result: dict[str, Any]) -> str:
    """A line for each number of classes and scale: the worst over the kinds of labels."""
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


def summary(result: dict[str, Any]) -> str:
    """A line for each scale: the worst over the numbers of classes and the kinds of labels."""
    head = ["logits", *(f"gpu_nn, {dtype}: {what}" for dtype in BOUNDS for what in ("gradient", "cost"))]
    lines = []
    for scale in SCALES:
        group = [cell for cell in result["cells"] if cell["scale"] == scale]
        line = [f"N(0, 1) × {scale}"]
        for dtype in BOUNDS:
            line += [f"{max(cell[dtype][field] for cell in group):.0e}" for field in ("grad_error", "cost_error")]
        rows = sum(cell["rows"] for cell in group)
        for name in COMPOSITIONS:
            line.append(percent(sum(cell[name]["non_finite"] * cell["rows"] for cell in group) / rows))
        lines.append(line)
    return table([*head, *(f"`{name}`: NaN or infinite" for name in COMPOSITIONS)], lines)


def _cancelled(result: dict[str, Any]) -> str:
    """In how many rows of how many the exact gradient cancels; each type counts separately."""
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
