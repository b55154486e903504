"""The state of a training between two steps, and how a checkpoint saves and restores it."""

import json
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.errors import DataError
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.history import EpochRecord, History
from gpu_nn.training.spec import TrainingSpec
from gpu_nn.validation import check_json_int

# Name and state of each callback that has one.
CallbackStates = list[tuple[str, dict[str, Any]]]

# Classes of callbacks under the names that checkpoints of earlier versions give them.
_RENAMED_CALLBACKS = {"LearningRates": "LearningRateMonitor"}


class TooFewEpochs(ValueError):
    """A fit that resumes was asked for fewer epochs, by the argument of that name, than the checkpoint has."""

    def __init__(self, argument: str, epochs: int, least: int):
        super().__init__(f"{argument}={epochs}; expected at least {least}: the checkpoint is that far")
        self.least = least


@dataclass
class Progress:
    """How far a fit is.

    first_epoch: epochs done before the fit.  random: state of the generator before it drew this epoch's order.
    steps_in_epoch: steps of this epoch so far.  cost: sum over the rows of this epoch whose losses the host has read.
    began: when the epoch began, on the clock `time.perf_counter`.
    """

    first_epoch: int
    random: Any
    steps_in_epoch: int = 0
    cost: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def add(self, losses: np.ndarray, batch_size: int, n_rows: int) -> None:
        """Add the mean costs of the latest batches, the last one of what was left of `n_rows`."""
        # A Python int: float64 would round it past 2⁵³.
        start = (self.steps_in_epoch - 1) * batch_size
        sizes = np.full(len(losses), min(batch_size, n_rows), np.float64)
        sizes[-1] = min(batch_size, n_rows - start)
        self.cost += float(losses @ sizes)


@dataclass
class TrainingState:
    """What a checkpoint holds beside the network and the optimizer. pending_losses: of steps that `progress.cost` does
    not contain yet, in float64."""

    progress: Progress
    history: History
    stopping: bool
    pending_losses: np.ndarray
    callbacks: CallbackStates


def state_dict(
    spec: TrainingSpec, state: TrainingState, net: Network, optimizer: Optimizer
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON and the arrays of a checkpoint of this moment. On a GPU this waits for the device."""
    arrays = {f"network.{name}": array for name, array in _network_arrays(net).items()}
    arrays |= {f"optimizer.{name}": array for name, array in optimizer.state.items()}
    arrays["losses"] = state.pending_losses
    callbacks = []
    for i, (name, entries) in enumerate(state.callbacks):
        held = {key: value for key, value in entries.items() if hasattr(value, "dtype") and value.shape}
        arrays |= {f"callback.{i}.{key}": value for key, value in held.items()}
        plain = _plain({key: value for key, value in entries.items() if key not in held})
        try:
            json.dumps(plain)
        except TypeError as error:
            raise TypeError(f"callback {name} has a state that JSON does not hold: {error}") from None
        callbacks.append([name, plain])
    progress = state.progress
    training = {
        "settings": spec.settings,
        "data": spec.data,
        "lanes": spec.shuffle_shards,
        "position": {
            "first_epoch": progress.first_epoch,
            "steps": optimizer.steps,
            "steps_in_epoch": progress.steps_in_epoch,
            "cost": progress.cost,
            "seconds": time.perf_counter() - progress.began,
            "stopping": state.stopping,
        },
        "random": _plain(progress.random),
        "schedule": optimizer.schedule.state(),
        "history": [asdict(record) for record in state.history.epochs],
        "callbacks": callbacks,
    }
    return training, {name: net.device.to_host(array) for name, array in arrays.items()}


def load_state_dict(
    checkpoint: Checkpoint, spec: TrainingSpec, net: Network, optimizer: Optimizer, random: np.random.Generator
) -> TrainingState:
    """Bring network, optimizer and generator to where the checkpoint was taken; returns the rest of its state.

    Raises DataError, before anything is changed, for a checkpoint of another network, of other settings or other data.
    """
    path, training, arrays = checkpoint.path, checkpoint.training, checkpoint.arrays
    _check_equal(path, "another training", training.get("settings"), spec.settings)
    _check_equal(path, "other data", training.get("data"), spec.data)
    if training.get("lanes") != spec.shuffle_shards:
        raise DataError(
            f"{path} is a checkpoint of a stream whose rows another version of gpu_nn shuffled in its own way: go on "
            "with that version, or train anew"
        )
    optimizer.bind(net)
    try:
        losses, entries = arrays["losses"], training["position"]
        progress = _progress(entries, training["random"], losses, spec.steps_per_epoch, random)
        history = History([_record(record) for record in training["history"]])
        if progress.first_epoch > len(history):
            raise ValueError(f"{progress.first_epoch} epochs before the fit, and {len(history)} in all")
        stopping, steps = bool(entries["stopping"]), check_json_int("steps", entries["steps"])
        callbacks = _callback_states(training["callbacks"], arrays)
        parameters = {f"network.{name}": array for name, array in _network_arrays(net).items()}
        moments = {f"optimizer.{name}": array for name, array in optimizer.state.items()}
        for name, array in {**parameters, **moments}.items():
            if (arrays[name].shape, arrays[name].dtype) != (array.shape, array.dtype):
                raise ValueError(f"array {name} is {arrays[name].shape} of {arrays[name].dtype}")
            # Training goes on with infinite moments: a gradient above the root of the largest number makes one of Adam.
            is_wrong = np.isnan if name in moments else _is_not_finite
            if array.dtype.kind == "f" and is_wrong(arrays[name]).any():
                raise ValueError(f"array {name} has NaN or infinite values")
        schedule = deepcopy(optimizer.schedule)
        schedule.load_state(training["schedule"])
        schedule.observe(0.0)
        if not schedule(steps) >= 0:
            raise ValueError(f"a learning rate of {schedule(steps)}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{path} has a header that makes no training: {error!r}") from error
    optimizer.schedule.load_state(training["schedule"])
    for name, array in parameters.items():
        array[...] = net.device.asarray(arrays[name])
    net.plan.invalidate()
    optimizer.load_state(steps, {name: arrays[f"optimizer.{name}"] for name in optimizer.state}, net)
    random.bit_generator.state = progress.random
    return TrainingState(progress, history, stopping, losses, callbacks)


def _is_not_finite(array: np.ndarray) -> Array:
    return ~np.isfinite(array)


def _progress(
    entries: Any, state: Any, losses: np.ndarray, steps_per_epoch: int, random: np.random.Generator
) -> Progress:
    in_epoch = check_json_int("steps_in_epoch", entries["steps_in_epoch"])
    fits = losses.ndim == 1 and losses.dtype == np.float64 and len(losses) <= in_epoch <= steps_per_epoch
    if not fits or (losses.size and len(losses) == steps_per_epoch):
        raise ValueError(f"{losses.dtype} losses {losses.shape} at step {in_epoch} of an epoch")
    # Raises what NumPy raises for a state that this kind of generator cannot take.
    type(random.bit_generator)().state = state
    began = time.perf_counter() - float(entries["seconds"])
    return Progress(
        check_json_int("first_epoch", entries["first_epoch"]), state, in_epoch, float(entries["cost"]), began
    )


def _record(entries: dict[str, Any]) -> EpochRecord:
    record = EpochRecord(**entries)
    if not all(value is None or type(value) in (int, float) for value in entries.values()):
        raise ValueError(f"a record of {entries}")
    return record


def _callback_states(saved: Any, arrays: dict[str, np.ndarray]) -> CallbackStates:
    states = [(_RENAMED_CALLBACKS.get(str(name), str(name)), dict(state)) for name, state in saved]
    for name, array in arrays.items():
        if name.startswith("callback."):
            _, i, key = name.split(".", 2)
            states[int(i)][1][key] = array
    return states


def _network_arrays(net: Network) -> dict[str, Array]:
    return {"parameters": net.flat_parameters, **net.state}


def _check_equal(path: Path, kind: str, there: Any, here: Any) -> None:
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
