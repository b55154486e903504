"""gpu-nn train --dry-run: what would be trained, and what it would take."""

import argparse
from typing import Any

import numpy as np

from gpu_nn.cli.parts import Parts
from gpu_nn.cli.results import print_json, table, to_stdout
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.cli.schedule import said_of
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer

# Labels are indices of this type.
_LABEL = np.dtype(np.int64)


def report(
    net: Network,
    optimizer: Optimizer,
    settings: argparse.Namespace,
    data: Parts,
    device: str,
    steps_done: int,
    as_json: bool,
) -> None:
    """Print it. steps_done: those before the checkpoint from which the run would go on."""
    rows, target = data.rows, data.target
    steps = -(-rows[0] // settings.batch_size)
    memory = _memory(net, optimizer, min(settings.batch_size, rows[0]), data.rows_in_memory)
    if as_json:
        result = {
            "dry_run": True,
            "finished": False,
            "rows": dict(zip(("training", "validation", "test"), rows, strict=True)),
            "target": target,
            "inputs": net.n_inputs,
            "classes": net.n_classes,
            "layers": [dict(zip(("layer", "outputs", "parameters"), layer, strict=True)) for layer in _layers(net)],
            "parameters": net.flat.n_parameters,
            "batches_per_epoch": steps,
            "steps": steps * settings.epochs,
            "steps_done": steps_done,
            "device": net.device.name,
            "dtype": settings.dtype,
            "memory_bytes": memory,
            "optimizer": settings.optimizer,
            "learning_rate": settings.lr,
            "schedule": settings.schedule or "constant",
            "warm_up": None if settings.warm_up is None else str(settings.warm_up),
            "class_weight": settings.class_weight,
        }
        print_json(result)
        return
    layers = [(name, f"{outputs:,}", f"{parameters:,}") for name, outputs, parameters in _layers(net)]
    said = "" if target is None else f", target {target}"
    done = f", of which {steps_done:,} are done" if steps_done else ""
    parts = [f"{name} {_size(size)}" for name, size in memory.items() if name != "total"]
    to_stdout(
        f"{rows[0]:,} rows to train, {rows[1]:,} to validate, {rows[2]:,} to test, "
        f"{net.n_inputs:,} inputs, {net.n_classes:,} classes{said}\n\n"
        + table(("layer", "outputs", "parameters"), [*layers, ("all", "", f"{net.flat.n_parameters:,}")])
        + f"\n{settings.optimizer} with {said_of(settings)} in batches of {settings.batch_size:,}: "
        f"{steps:,} batches an epoch, {steps * settings.epochs:,} in {settings.epochs:,} epochs{done}, "
        f"on {device}, {settings.dtype}\n"
        f"memory about {_size(memory['total'])}: {', '.join(parts)}\n"
        "nothing was trained or written\n"
    )


def report_finished(folder: RunFolder, as_json: bool) -> None:
    """Print that there is nothing to train."""
    epochs = len(folder.read_history())
    if as_json:
        print_json({"dry_run": True, "finished": True, "epochs": epochs})
    else:
        to_stdout(f"the run in {folder.path} is finished after {epochs:,} epochs: nothing would be trained\n")


def _layers(net: Network) -> list[tuple[str, int, int]]:
    """Each layer as it is written in Python, its outputs and its parameters."""
    found = []
    for i, layer in enumerate(net.layers):
        sizes = [int(np.prod(shape)) for shape in layer.parameter_shapes(net.widths[i]).values()]
        found.append((str(layer), net.widths[i + 1], sum(sizes)))
    return found


def _memory(net: Network, optimizer: Optimizer, batch: int, rows: int) -> dict[str, Any]:
    """Bytes on the network's device while it is trained. One step is made on a batch of zeros, and has to succeed."""
    with net.device.active():
        xp = net.device.xp
        x = xp.zeros((batch, net.widths[net.n_preprocessing]), net.precision.compute)
        net.train_step(x, xp.zeros(batch, _LABEL), net.n_preprocessing)
    optimizer.step(net)
    row, half_row = (net.n_inputs * dtype.itemsize + _LABEL.itemsize for dtype in (net.dtype, net.precision.compute))
    parts = {
        "parameters": net.flat.nbytes,
        "gradients": net.flat_grads.nbytes,
        "optimizer": sum(array.nbytes for array in optimizer.state.values()),
        "data": rows * row,
        "batch": batch * half_row + net.plan.nbytes,
    }
    return {**parts, "total": sum(parts.values())}


def _size(size: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.3g} {units[0]}"
