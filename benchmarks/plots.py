"""python -m benchmarks plots: the results of loss, step and growth as SVG files beside the JSON (the extra plot)."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.timing import OURS, STANDARD, label


def bars(title: str, groups: dict[str, dict[str, dict[str, float]]]) -> Any:
    """A panel for each group: a bar for the median of each run, with a line from the 10th to the 90th percentile."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(groups), 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, (name, runs) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        names = sorted(runs, key=lambda run: -runs[run]["median"])
        medians = [runs[run]["median"] for run in names]
        spread = [[abs(runs[run][end] - runs[run]["median"]) for run in names] for end in ("low", "high")]
        colours = ["C1" if run in (OURS, STANDARD) else "C0" for run in names]
        axes.barh([label(run) for run in names], medians, xerr=spread, color=colours)
        axes.set(title=name, xlabel="µs")
    return figure


def loss_figure(result: dict[str, Any]) -> Any:
    return bars("Loss and gradient", {f"{row['n']} × {row['m']}": row["microseconds"] for row in result["shapes"]})


def step_figure(result: dict[str, Any]) -> Any:
    groups = {}
    for row in result["networks"]:
        runs = {name: spread for name, spread in row["microseconds"].items() if name != "best jax"}
        groups[f"{'-'.join(map(str, row['widths']))}, batch {row['batch']}"] = runs
    return bars("A training step", groups)


def growth_figure(result: dict[str, Any]) -> Any:
    """Time and memory against each size, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = ("µs", "microseconds", "time_exponent"), ("bytes", "bytes", "memory_exponent")
    for axes, (unit, field, power) in zip(figure.subplots(1, 2), panels, strict=True):
        for row in result["series"]:
            axes.loglog(row["sizes"], row[field], "o-", label=f"{row['series']}: exponent {row[power]:.2f}")
        axes.set(xlabel="size", ylabel=unit)
        axes.legend()
    return figure


FIGURES = {"loss": loss_figure, "step": step_figure, "growth": growth_figure}


def measured() -> list[str]:
    """Those of FIGURES that have results."""
    return [name for name in FIGURES if (results.FOLDER / f"{name}.json").exists()]


def drawn_from(result: dict[str, Any]) -> str:
    """What an SVG file says of its result, whatever release of Matplotlib drew it."""
    return f"drawn from {sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]}"


def draw(name: str, result: dict[str, Any], path: Path) -> None:
    """The same result gives the same bytes with the same Matplotlib."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name}):
        FIGURES[name](result).savefig(path, metadata={"Date": None, "Description": drawn_from(result)})


def main() -> None:
    for name in measured():
        path = results.FOLDER / f"{name}.svg"
        draw(name, results.read(name), path)
        print(path.name)
