"""The result of `python -m benchmarks gpu` as Markdown: for the loss by classes, kernels, steps, very many classes."""

from typing import Any

from benchmarks.gpu.kernels import LOSS_COLUMNS
from benchmarks.gpu.large_m import CHUNKS, WHOLE
from benchmarks.gpu.steps import EAGER, FULL, GRAPH, PRODUCTS, REDUCE_OVERHEAD, TORCH_EAGER
from benchmarks.results import table
from benchmarks.timing import OURS, cell

PEERS = ("torch eager", "torch.compile", "Liger")


def shares(result: dict[str, Any]) -> str:
    """The loss's share of copy bandwidth by number of classes, for each type, target and cost."""
    lines = []
    for m in sorted({row["m"] for row in result["loss"]}):
        found = {
            (row["dtype"], row["target"], row["cost"]): row["share_of_copy"] for row in result["loss"] if row["m"] == m
        }
        cells = [f"{100 * found[column]:.0f} %" if column in found else "not run" for column in LOSS_COLUMNS]
        lines.append([f"{m:,}", *cells])
    return table(["classes, share of a copy", *(", ".join(column) for column in LOSS_COLUMNS)], lines)


def losses(result: dict[str, Any]) -> str:
    """Ours beside the peers where they take part: labels as indices."""
    lines = []
    for row in result["loss"]:
        if row["target"] == "index" and row["dtype"] != "float16":
            label = f"{row['n']:,} × {row['m']:,}, {row['dtype']}, {row['cost']}"
            peers = [_with_ratio(row, name) for name in PEERS]
            lines.append([label, cell(row["microseconds"][OURS]), *peers, *_floor(row)])
    return table(["loss and gradient, µs", OURS, *PEERS, "copying as many bytes", "our share"], lines)


def kernels(result: dict[str, Any]) -> str:
    lines = [
        [f"{row['kernel']}, {row['dtype']}", f"{row['bytes']:,}", cell(row["microseconds"][OURS]), *_floor(row)]
        for row in result["kernels"]
    ]
    return table(["kernel, µs", "bytes", OURS, "copying as many bytes", "our share"], lines)


def steps(result: dict[str, Any]) -> str:
    rows = result["steps"]
    head = [f"{'-'.join(map(str, row['widths']))}, {row['batch']:,}, {row['dtype']}" for row in rows]
    lines = [
        [way, *(_with_ratio(row, way) for row in rows)]
        for way in (GRAPH, FULL, EAGER, PRODUCTS, TORCH_EAGER, REDUCE_OVERHEAD)
    ]
    lines += [
        ["our share of matrix products", *(f"{100 * row['share_of_products']:.0f} %" for row in rows)],
        ["launches", *(str(row["launches"]) for row in rows)],
        ["bytes", *(f"{row['bytes']:,}" for row in rows)],
        ["our share of copying them", *(f"{100 * row['share_of_copy']:.0f} %" for row in rows)],
    ]
    return table(["µs a step", *head], lines)


def large_m(result: dict[str, Any]) -> str:
    lines = []
    for row in result["large_m"]:
        cells = []
        for way in (CHUNKS, WHOLE):
            beyond = row["bytes_beyond"].get(way)
            memory = "" if beyond is None else f", {beyond / 2**20:,.0f} MiB"
            cells.append("not enough memory" if beyond is None else cell(row["microseconds"][way]) + memory)
        label = f"{row['rows']:,} × {row['classes']:,} × {row['inputs']:,}"
        lines.append([label, *cells, f"{row['logits_bytes'] / 2**20:,.0f} MiB"])
    return table(
        ["linear layer, loss and gradients, µs; beyond inputs and outputs", CHUNKS, WHOLE, "all logits"], lines
    )


def conditions(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    tests = result["tests"]["summary"]
    return f"{machine['gpu']}; {versions}. A copy moves {result['copy_bandwidth'] / 1e9:,.0f} GB/s. Tests: {tests}."


def _with_ratio(row: dict[str, Any], name: str) -> str:
    ratio = row["times_as_fast"].get(name)
    return cell(row["microseconds"].get(name)) + ("" if ratio is None else f", {ratio:.2f} ×")


def _floor(row: dict[str, Any]) -> list[str]:
    return [cell(row["microseconds"]["copy"]), f"{100 * row['share_of_copy']:.0f} %"]
