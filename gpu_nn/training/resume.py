"""The state of a training, taken from a Trainer between two steps and given back to another one."""

import json
import os
import time
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.errors import DataError
from gpu_nn.schedules import Schedule
from gpu_nn.training.checkpoint import Checkpoint, newest, read
from gpu_nn.training.history import EpochRecord, History
from gpu_nn.training.window_order import LANES
from gpu_nn.validation import check_json_int

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer


class TooFewEpochs(ValueError):
    """A fit that resumes was asked for fewer epochs, by the argument of that name, than the checkpoint has."""

    def __init__(self, argument: str, epochs: int, least: int):
        super().__init__(f"{argument}={epochs}; expected at least {least}: the checkpoint is that far")
        self.least = least


@dataclass
class Position:
    """Where in a fit a training stands.

    first_epoch: epochs done before the fit.  random: state of the generator before it drew this epoch's order.
    steps_in_epoch: steps of this epoch so far.  unread: so many of the latest have losses that the host has not read.
    cost: sum over the rows of the others.  began: when the epoch began, on the clock `time.perf_counter`.
    """

    first_epoch: int
    random: Any
    steps_in_epoch: int = 0
    unread: int = 0
    cost: float = 0.0
    began: float = field(default_factory=time.perf_counter)


def opened(source: str | os.PathLike[str] | Checkpoint | None, stacklevel: int = 3) -> Checkpoint | None:
    """A checkpoint, read from its file or from a folder of them.

    A damaged newest one gives way to the one before, with a warning; stacklevel: its place, as for `warnings.warn`; by
    default the caller of the caller. Raises DataError when there is none to read.
    """
    if source is None or isinstance(source, Checkpoint):
        return source
    if not Path(source).is_dir():
        return read(source)
    checkpoint, damages = newest(source)
    for damage in damages:
        warnings.warn(f"{damage}; the one before is used: {checkpoint.path.name}", stacklevel=stacklevel)
    return checkpoint


def taken(trainer: "Trainer") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a checkpoint of this moment holds: its JSON and its arrays. On a GPU this waits for the device."""
    net, optimizer, position = trainer.net, trainer.optimizer, trainer.position
    arrays = {f"network.{name}": array for name, array in _network_arrays(trainer).items()}
    arrays |= {f"optimizer.{name}": array for name, array in optimizer.state.items()}
    arrays["losses"] = trainer.unread_losses()
    callbacks = []
    for i, (name, state) in enumerate(trainer.callback_states()):
        held = {key: value for key, value in state.items() if hasattr(value, "dtype") and value.shape}
        arrays |= {f"callback.{i}.{key}": value for key, value in held.items()}
        plain = _plain({key: value for key, value in state.items() if key not in held})
        try:
            json.dumps(plain)
        except TypeError as error:
            raise TypeError(f"callback {name} has a state that JSON does not hold: {error}") from None
        callbacks.append([name, plain])
    training = {
        "settings": settings(trainer),
        "data": trainer.data,
        "lanes": _lanes(trainer),
        "position": {
            "first_epoch": position.first_epoch,
            "steps": optimizer.steps,
            "steps_in_epoch": position.steps_in_epoch,
            "cost": position.cost,
            "seconds": time.perf_counter() - position.began,
            "stopping": trainer.stopping,
        },
        "random": _plain(position.random),
        "schedule": optimizer.schedule.state(),
        "history": [asdict(record) for record in trainer.history.epochs],
        "callbacks": callbacks,
    }
    return training, {name: net.device.to_host(array) for name, array in arrays.items()}


def restore(trainer: "Trainer", checkpoint: Checkpoint) -> list[tuple[str, dict[str, Any]]]:
    """Bring the trainer, whose data are on the device, to where the checkpoint was taken; returns the states of its
    callbacks.

    Raises DataError, before anything is changed, for a checkpoint of another network, of other settings or other data.
    """
    path, training, arrays = checkpoint.path, checkpoint.training, checkpoint.arrays
    _check(path, "another training", training.get("settings"), settings(trainer))
    _check(path, "other data", training.get("data"), trainer.data)
    if training.get("lanes") != _lanes(trainer):
        raise DataError(
            f"{path} is a checkpoint of a stream whose rows another version of gpu_nn shuffled in its own way: go on "
            "with that version, or train anew"
        )
    net, optimizer = trainer.net, trainer.optimizer
    optimizer.bind(net)
    try:
        losses, told = arrays["losses"], training["position"]
        position = _position(told, training["random"], losses, trainer)
        history = History([_record(record) for record in training["history"]])
        if position.first_epoch > len(history):
            raise ValueError(f"{position.first_epoch} epochs before the fit, and {len(history)} in all")
        stopping, steps = bool(told["stopping"]), check_json_int("steps", told["steps"])
        states = _states(training["callbacks"], arrays)
        targets = {f"network.{name}": array for name, array in _network_arrays(trainer).items()}
        moments = {f"optimizer.{name}": array for name, array in optimizer.state.items()}
        for name, array in {**targets, **moments}.items():
            if (arrays[name].shape, arrays[name].dtype) != (array.shape, array.dtype):
                raise ValueError(f"array {name} is {arrays[name].shape} of {arrays[name].dtype}")
            # A gradient above the root of the largest number makes Adam's `square` infinite, and training goes on.
            bad = np.isnan if name in moments else _not_finite
            if array.dtype.kind == "f" and bad(arrays[name]).any():
                raise ValueError(f"array {name} has NaN or infinite values")
        schedule = deepcopy(optimizer.schedule)
        schedule.load_state(training["schedule"])
        schedule.observe(0.0)
        if not schedule(steps) >= 0:
            raise ValueError(f"a learning rate of {schedule(steps)}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{path} has a header that makes no training: {error!r}") from error
    optimizer.schedule.load_state(training["schedule"])
    for name, array in targets.items():
        array[...] = net.device.asarray(arrays[name])
    net.plan.invalidate()
    optimizer.load_state(steps, {name: arrays[f"optimizer.{name}"] for name in optimizer.state}, net)
    trainer.history, trainer.stopping, trainer.resumed_from = history, stopping, path
    trainer.stand_at(position, losses)
    return states


def _not_finite(array: np.ndarray) -> Array:
    return ~np.isfinite(array)


def _position(told: Any, random: Any, losses: np.ndarray, trainer: "Trainer") -> Position:
    in_epoch = check_json_int("steps_in_epoch", told["steps_in_epoch"])
    fits = losses.ndim == 1 and losses.dtype == np.float64 and len(losses) <= in_epoch <= trainer.steps_an_epoch
    if not fits or (losses.size and len(losses) == trainer.steps_an_epoch):
        raise ValueError(f"{losses.dtype} losses {losses.shape} at step {in_epoch} of an epoch")
    # Raises what NumPy raises for a state that this kind of generator cannot take.
    type(trainer.random.bit_generator)().state = random
    began = time.perf_counter() - float(told["seconds"])
    return Position(
        check_json_int("first_epoch", told["first_epoch"]), random, in_epoch, len(losses), float(told["cost"]), began
    )


def _record(told: dict[str, Any]) -> EpochRecord:
    record = EpochRecord(**told)
    if not all(value is None or type(value) in (int, float) for value in told.values()):
        raise ValueError(f"a record of {told}")
    return record


def _states(told: Any, arrays: dict[str, np.ndarray]) -> list[tuple[str, dict[str, Any]]]:
    states = [(str(name), dict(state)) for name, state in told]
    for name, array in arrays.items():
        if name.startswith("callback."):
            _, i, key = name.split(".", 2)
            states[int(i)][1][key] = array
    return states


def settings(trainer: "Trainer") -> dict[str, Any]:
    """What a training is of, and what must be equal where it resumes."""
    net, optimizer, cost = trainer.net, trainer.optimizer, trainer.cost
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
        "schedule": _of_schedule(optimizer.schedule),
        "trainer": {
            "batch_size": trainer.batch_size,
            "shuffle": bool(trainer.shuffle),
            "complement_weight": float(cost.complement_weight),
            "class_weight": weight,
            "label_smoothing": float(cost.label_smoothing),
        },
    }


def _lanes(trainer: "Trainer") -> int | None:
    """In how many the rows of a stream are shuffled; None where none are."""
    return LANES if trainer.shuffle and "window_rows" in trainer.data["training"] else None


def _network_arrays(trainer: "Trainer") -> dict[str, Array]:
    return {"parameters": trainer.net.flat_parameters, **trainer.net.state}


def _of_schedule(schedule: Schedule) -> dict[str, Any]:
    """The schedule's own settings: its fields, but for what moves, which is its state."""
    moving = schedule.state()
    told: dict[str, Any] = {"name": type(schedule).__name__}
    for entry in fields(schedule):
        if entry.init and entry.name not in moving:
            value = getattr(schedule, entry.name)
            told[entry.name] = _of_schedule(value) if isinstance(value, Schedule) else value
    return told


def _check(path: Path, kind: str, there: Any, here: Any) -> None:
    differences = _differences(there, _plain(here))
    if differences:
        raise DataError(f"{path} is a checkpoint of {kind}: {'; '.join(differences)}")


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for key in sorted(there.keys() | here.keys()):
            found += _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
        return found
    return [] if there == here else [f"{name or 'its description'} is {there!r} there and {here!r} here"]


def _plain(value: Any) -> Any:
    """Dictionaries and lists of Python's own numbers, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
