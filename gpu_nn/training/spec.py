"""What identifies a training: settings and data that must be equal where it resumes, and on all ranks."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gpu_nn.cost import Cost
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.schedules import Schedule
from gpu_nn.training.sampler import SHUFFLE_SHARDS


@dataclass(frozen=True)
class TrainingSpec:
    """settings: see `settings_of`.  data: the fingerprints of "training" and "validation"."""

    settings: dict[str, Any]
    data: dict[str, Any]

    @property
    def n_rows(self) -> int:
        """Rows of the training data."""
        return int(self.data["training"]["rows"])

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n_rows // int(self.settings["trainer"]["batch_size"]))

    @property
    def shuffle_shards(self) -> int | None:
        """The number of shards in which the rows of a stream are shuffled; None where none are shuffled.

        It stands for the order in checkpoints: whoever changes the order of `sampler` or `StreamDataset` changes it.
        """
        shuffled = self.settings["trainer"]["shuffle"] and "window_rows" in self.data["training"]
        return SHUFFLE_SHARDS if shuffled else None


def settings_of(net: Network, optimizer: Optimizer, cost: Cost, *, batch_size: int, shuffle: bool) -> dict[str, Any]:
    """The settings of a training: of network, optimizer, schedule and trainer."""
    public = {name: value for name, value in vars(optimizer).items() if isinstance(value, bool | int | float | None)}
    public = {name: value for name, value in public.items() if not name.startswith("_") and name != "steps"}
    weight = cost.class_weight
    if weight is not None:
        weight = np.asarray(net.device.to_host(weight) if hasattr(weight, "dtype") else weight, np.float64).tolist()
    return {
        "network": {
            "n_inputs": net.n_inputs,
            "dtype": net.precision.name,
            "layers": [repr(layer) for layer in net.layers],
        },
        "optimizer": {"name": type(optimizer).__name__, **public},
        "schedule": _schedule_settings(optimizer.schedule),
        "trainer": {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "complement_weight": float(cost.complement_weight),
            "class_weight": weight,
            "label_smoothing": float(cost.label_smoothing),
        },
    }


def _schedule_settings(schedule: Schedule) -> dict[str, Any]:
    """The fields of a schedule that its state does not contain."""
    state = schedule.state()
    settings: dict[str, Any] = {"name": type(schedule).__name__}
    for entry in fields(schedule):
        if entry.init and entry.name not in state:
            value = getattr(schedule, entry.name)
            settings[entry.name] = _schedule_settings(value) if isinstance(value, Schedule) else value
    return settings


def assert_same_on_all_ranks(
    communicator: Communicator, spec: TrainingSpec, net: Network, *, random: Any, micro_batches: int, last_epoch: int
) -> None:
    """Raises ValueError, on all ranks, where they differ in the spec, in the arguments or in the parameters, or where a
    rank has no rows. random: state of the generator that draws the order of rows."""
    values = {**_flat("", spec.settings), **_flat("", spec.data), "micro_batches": micro_batches}
    for name, array in net.inference_state.items():
        values[f"initial {name}"] = zlib.crc32(np.ascontiguousarray(net.device.to_host(array)).data)
    values["last epoch"] = last_epoch
    if spec.settings["trainer"]["shuffle"]:
        values["state of the random numbers"] = zlib.crc32(str(random).encode())
    communicator.assert_same_on_all_ranks(values)
    with communicator.raise_on_all_ranks():
        if spec.n_rows < communicator.size:
            raise ValueError(
                f"x has {spec.n_rows} rows, but {communicator.size} ranks; expected at least a row for each"
            )


def _flat(prefix: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}{name} ", value)
        else:
            flat[f"{prefix}{name}"] = value
    return flat
