"""Checkpoints with a valid checksum over wrong content, and the training that resumes from them."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpu_nn import Adam, Dense, Dropout, Network, Trainer
from gpu_nn.errors import DataError, TrainingDiverged
from gpu_nn.schedules import ReduceOnPlateau
from gpu_nn.training import BestModel, Callback, EarlyStopping, LearningRateMonitor, Trigger, checkpoint
from tests.fuzz.models import odd_value

X = np.linspace(-1, 1, 36, dtype=np.float32).reshape(12, 3)
Y = np.arange(12) % 2
EPOCHS = 3


class _Interrupt(Callback):
    """Saves the state of a training in its second epoch of three steps, and interrupts it there."""

    every = Trigger(steps=1)
    taken: Any = None

    def __call__(self, trainer: Any, record: Any) -> None:
        if record.steps == 4:
            self.taken = deepcopy(trainer.state_dict())
            trainer.interrupt()


class _BestModel(BestModel):
    """Keeps the best value but writes no file, which no reader may do."""

    def __call__(self, trainer: Any, record: Any) -> None:
        value = self.monitor.value(record)
        if self.monitor.better(value, self.best):
            self.best, self.best_epoch = value, record.epoch


def _fitted(*callbacks: Callback, resume: Path | None = None) -> Trainer:
    net = Network([Dense(4, "relu"), Dropout(0.3), Dense(2)], n_inputs=3, device="cpu", seed=1)
    optimizer = Adam(ReduceOnPlateau(0.05, patience=1))
    remembering = [EarlyStopping(patience=2), LearningRateMonitor(), _BestModel("none")]
    trainer = Trainer(net, optimizer, batch_size=4, callbacks=[*remembering, *callbacks])
    trainer.fit(X, Y, epochs=EPOCHS, validation=(X, Y), resume=resume)
    return trainer


@cache
def _broken_off() -> tuple[str, dict[str, np.ndarray]]:
    interrupt = _Interrupt()
    _fitted(interrupt)
    training, arrays = interrupt.taken
    return json.dumps(training), arrays


def trainings() -> list[bytes]:
    return [_written(json.loads(_broken_off()[0]), _broken_off()[1])]


def malformed_training(random: Random) -> bytes:
    text, whole = _broken_off()
    training, arrays = json.loads(text), dict(whole)
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        _change(training, random)
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        _change_array(arrays, random)
    return _written(training, arrays)


def resumed(path: Path) -> None:
    """Resume the training. The other errors that a user may see become a DataError."""
    try:
        _fitted(resume=path)
    except TrainingDiverged as error:
        raise DataError(str(error)) from None
    except ValueError as error:
        if not str(error).startswith("epochs="):
            raise
        raise DataError(str(error)) from None


def _change(tree: Any, random: Random) -> None:
    """Replace or delete one entry, at any depth."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = random.choice(keys)
        if isinstance(tree[key], dict | list) and tree[key] and random.random() < 0.85:
            tree = tree[key]
        else:
            break
    lot = random.random()
    if lot < 0.1:
        del tree[key]
    elif lot < 0.2 and isinstance(tree, list):
        tree.append(tree[key])
    elif lot < 0.5 and isinstance(tree[key], int | float):
        tree[key] = random.choice((0, 1, -1, tree[key] + 1, 2 * tree[key], 2**31, 2**53, 1e300, -1e-300))
    else:
        tree[key] = odd_value(random)


def _change_array(arrays: dict[str, np.ndarray], random: Random) -> None:
    name = random.choice(tuple(arrays))
    array = arrays[name]
    change = random.randrange(7)
    if change == 0:
        del arrays[name]
    elif change == 1:
        arrays[random.choice((*arrays, "callback.7.x", "callback.-1.x", "callback.x", "losses", "network."))] = array
    elif change == 2:
        arrays[name] = array.astype(random.choice((np.float16, np.float32, np.float64, np.uint64, np.int8, bool)))
    elif change == 3:
        arrays[name] = random.choice((array[None], array.ravel()[:0], np.zeros(()), np.zeros((0, 4), np.float32)))
    elif array.size:
        arrays[name] = array.copy()
        if array.dtype.kind == "f":
            value = _number(random)
        else:
            value = random.choice((0, 1, 1 if array.dtype == bool else int(np.iinfo(array.dtype).max)))
        arrays[name].ravel()[random.randrange(array.size)] = value


def _number(random: Random) -> float:
    return random.choice((0.0, -1.0, 1e30, -1e38, float("nan"), float("inf")))


def _written(training: Any, arrays: dict[str, np.ndarray]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / checkpoint.file_name(1)
        checkpoint.write(path, training, arrays)
        return path.read_bytes()
