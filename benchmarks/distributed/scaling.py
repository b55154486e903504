"""python -m benchmarks scaling: training by many ranks, on paper up to 1,024 GPUs, and on the CPU as predicted.

The paper is benchmarks/scaling_model.py. On the CPU one, two and four ranks of MPI on this machine make micro-runs,
whose figures are put into the same model, and then train: predicted beside measured. BLAS has one thread in each rank.
Four ranks share two cores: the model lets each work for half of the time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from benchmarks.distributed.model import (
    GPUS_OF_A_HOST,
    NDR,
    NVLINK,
    PCIE_4,
    PCIE_5,
    Cpu,
    Training,
    rows_for,
    step,
    sum_seconds,
)
from benchmarks.results import machine, table, write
from benchmarks.step import NETWORKS

WIDE = Training("wide", [4096] * 5 + [1000], 2048, size=2)
PAPER = [*(Training(name, widths, batch) for name, (widths, batch, _) in NETWORKS.items()), WIDE]
GPUS = [2**i for i in range(11)]
# Batches that one step of strong scaling is made of: each of 1,024 GPUs has a row at least.
STRONG = 64
LINKS = (NVLINK, PCIE_5, PCIE_4)
# The share of the perfect rate from which on more GPUs are well spent.
WORTH = 0.9
RANKS = (1, 2, 4)
# Batches of an epoch in the measured runs: some tenths of a second.
STEPS = {"A1": 60, "A2": 8, "A3": 600}


def ranks_measured(p: int, repeats: int, rounds: int) -> list[dict[str, Any]]:
    """What so many ranks found, so many times."""
    networks = [[name, *NETWORKS[name][:2], steps] for name, steps in STEPS.items()]
    job = json.dumps({"networks": networks, "repeats": repeats})
    launcher = Path(sys.executable).parent / "mpiexec"
    command = [str(launcher), "-n", str(p), sys.executable, "-m", "benchmarks.scaling_ranks", job]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    found = []
    for _ in range(rounds):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout))
    return found


def median(found: list[Any]) -> Any:
    """The medians of equal nestings of numbers; what is no number is the first one's."""
    if isinstance(found[0], dict):
        return {name: median([one[name] for one in found]) for name in found[0]}
    return float(np.median(found)) if isinstance(found[0], float) else found[0]


def line_through(points: dict[str, float]) -> tuple[float, float]:
    """Value at 0 and slope, by least squares of the relative errors; neither below 0."""
    at, values = np.array([float(size) for size in points]), np.array(list(points.values()))
    rows = np.stack([np.ones_like(at), at], axis=1) / values[:, None]
    from scipy.optimize import nnls

    start, slope = nnls(rows, np.ones(len(at)))[0]
    return float(start), float(slope)


def cpu_of(name: str, runs: dict[int, Any], p: int, cores: int) -> Cpu:
    """The model's figures for p ranks: of micro-runs with every core at work that p ranks keep so, and no core shared.

    What waiting for ranks on the same core costs comes from p ranks' smallest sum.
    """
    busy = max(ranks for ranks in runs if ranks <= min(p, cores))
    fixed, a_row = line_through(runs[busy]["networks"][name]["by_rows"])
    pair = runs[min(2, max(runs))]["sums"]
    start, a_byte = line_through(pair) if pair else (0.0, 0.0)
    unwaiting = Cpu(cores, fixed, a_row, start, a_byte)
    if p <= cores:
        return unwaiting
    smallest = min(runs[p]["sums"], key=int)
    exchanges = np.log2(p)
    wait = max(0.0, (runs[p]["sums"][smallest] - unwaiting.sum(float(smallest), p)) / exchanges)
    return Cpu(cores, fixed, a_row, start, a_byte, float(wait))


def measured(repeats: int = 100, rounds: int = 3) -> dict[str, Any]:
    return {str(p): median(ranks_measured(p, repeats, rounds)) for p in RANKS}


def compared(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds of a step and of the gradient's sum, predicted and measured, by network, kind and number of ranks."""
    runs = {int(p): found for p, found in result["runs"].items()}
    lines = []
    for name, (widths, batch, _) in NETWORKS.items():
        n_bytes = Training(name, widths, batch).gradient_bytes
        for kind in ("strong", "weak"):
            for p in runs:
                cpu = cpu_of(name, runs, p, result["machine"]["cores"])
                rows = batch / p if kind == "strong" else batch
                lines.append(
                    {
                        "network": name,
                        "kind": kind,
                        "ranks": p,
                        "rows": rows,
                        "predicted": cpu.step(rows, n_bytes, p),
                        "measured": runs[p]["networks"][name][kind]["seconds"],
                        "sum_predicted": cpu.sum(n_bytes, p),
                        "sum_measured": runs[p]["networks"][name][kind]["in_sum"],
                    }
                )
    return lines


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def gradients() -> str:
    """What is summed, how long it takes 8 GPUs of one host by each link, and how many rows it is worth."""
    lines = []
    for training in PAPER:
        widths, dtype = "-".join(map(str, training.widths)), "mixed_bfloat16" if training.size == 2 else "float32"
        links = [1e6 * sum_seconds(training.gradient_bytes, 8, link) for link in LINKS]
        lines.append(
            [
                f"{training.name}: {widths}, {dtype}, {training.batch:,} rows",
                f"{sum(training.parameters):,}",
                f"{training.gradient_bytes / 1e6:,.3g}",
                f"{1e6 * step(training, training.batch, 1).work:,.0f}",
                *(f"{microseconds:,.0f}" for microseconds in links),
                *(f"{rows_for(training, p, WORTH):,}" for p in (8, GPUS[-1])),
            ]
        )
    head = [
        "network",
        "parameters",
        "gradient, MB",
        "step of one GPU, µs",
        *(f"8 by {link.name}, µs" for link in LINKS),
    ]
    return table([*head, *(f"rows each for {_percent(WORTH)}, {p:,} GPUs" for p in (8, GPUS[-1]))], lines)


def conclusions() -> str:
    """What follows for the size of a batch, in words and figures of the model."""
    waits = [1e6 * sum_seconds(0, p) for p in (GPUS[1], GPUS[-1])]
    rows = [[rows_for(training, p, WORTH) for training in PAPER] for p in (GPUS_OF_A_HOST, GPUS[-1])]
    more = [many / few for few, many in zip(*rows, strict=True)]
    steps = " and ".join(
        f"{1e6 * step(training, training.batch, 1).work:,.0f} µs of {training.name}"
        for training in PAPER
        if training.name in ("A1", "A3")
    )
    text = f"""What follows from it: a batch that suits one GPU does not suit many. The sums' latency alone,
        {waits[0]:.0f} to {waits[1]:.0f} µs, is soon as long as a step, {steps}; what more GPUs are good for is more
        rows each, or a step that takes long. The first table's last columns say how many rows each GPU needs for
        {_percent(WORTH)} of the perfect rate: {min(rows[0]):,} to {max(rows[0]):,} within one host by NVLink, and
        {min(more):.0f} to {max(more):.0f} times as many over {GPUS[-1] // GPUS_OF_A_HOST} hosts, where the gradient
        crosses a link that is {NVLINK.bandwidth / NDR.bandwidth:.0f} times slower. Sums by layers help where
        backward takes about as long as they do: wide layers within a host. Over many hosts there is too little to hide
        them under, and for small networks several sums would cost more latency than they hide: those sum once."""
    return fill(" ".join(text.split()), 120, break_on_hyphens=False)


def weak() -> str:
    lines = []
    for p in GPUS[1:]:
        cells = []
        for training in PAPER:
            found = step(training, training.batch, p)
            kept = _percent(step(training, training.batch, 1).work / found.seconds)
            cells.append(f"{1e6 * found.sums:,.0f} µs, {kept}, {_percent(found.hidden)}")
        lines.append([f"{p:,}", *cells])
    return table(["GPUs", *(training.name for training in PAPER)], lines)


def strong() -> str:
    """Times the speed of one GPU, and with how many GPUs each network is quickest."""
    lines, speeds = [], []
    for p in GPUS[1:]:
        found = [step(training, STRONG * training.batch / p, p) for training in PAPER]
        alone = [step(training, STRONG * training.batch, 1).work for training in PAPER]
        speeds.append([one / here.seconds for one, here in zip(alone, found, strict=True)])
        cells = [f"{speed:.2g} ×" for speed in speeds[-1]]
        lines.append([f"{p:,}", *cells, f"{alone[-1] / found[-1].at_once:.2g} ×"])
    rows = [f"{training.name}, {STRONG * training.batch:,} rows" for training in PAPER]
    best = [max(zip((1.0, *of_one), GPUS, strict=True))[1] for of_one in zip(*speeds, strict=True)]
    quickest = ", ".join(f"{training.name} on {p}" for training, p in zip(PAPER, best, strict=True))
    return f"{table(['GPUs', *rows, f'{WIDE.name}, in one sum'], lines)}\n\nQuickest: {quickest}."


def on_the_cpu(result: dict[str, Any]) -> str:
    head = ["network, rows of a rank", "ranks", "step predicted, µs", "measured", "predicted / measured"]
    lines = []
    for found in compared(result):
        ratio = found["predicted"] / found["measured"]
        sums = "" if found["ranks"] == 1 else f"{1e6 * found['sum_predicted']:,.0f}"
        measured_sum = "" if found["ranks"] == 1 else f"{1e6 * found['sum_measured']:,.0f}"
        name = f"{found['network']}, {found['kind']}, {found['rows']:g}"
        cells = [f"{1e6 * found['predicted']:,.0f}", f"{1e6 * found['measured']:,.0f}", f"{ratio:.2f}"]
        lines.append([name, str(found["ranks"]), *cells, sums, measured_sum])
    return table([*head, "sum predicted, µs", "measured, waiting included"], lines)


def markdown(result: dict[str, Any]) -> str:
    rates = ", ".join(f"{link.name} {link.bandwidth / 1e9:g}" for link in (*LINKS, NDR))
    return f"""The links' nominal rates, GB/s one way for each GPU: {rates}.

{gradients()}

{conclusions()}

Weak scaling, the batch above on each GPU: what the sums take, the share of the perfect rate, and how much of the sums
hides since layers of 16 MiB or more are summed while the layers before them go backward.

{weak()}

Strong scaling, one batch of {STRONG} times the rows shared out: times the speed of one GPU.

{strong()}

Ranks of MPI on {result["machine"]["cores"]} cores, one BLAS thread each, predicted from micro-runs and measured:

{on_the_cpu(result)}"""


def main() -> None:
    result = {"machine": machine("numpy", "mpi4py", "mpich"), "threads_of_a_rank": 1, "runs": measured()}
    write("scaling", result)
    print(markdown(result))
