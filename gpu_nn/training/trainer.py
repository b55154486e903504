"""The training loop: shuffled batches, one optimizer step each, validation after each epoch."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gpu_nn.cost import Cost, check_values, targets, weights
from gpu_nn.device import Array
from gpu_nn.errors import TrainingDiverged
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training.history import EpochRecord, History

Callback = Callable[["Trainer", EpochRecord], None]
"""Called after each epoch. It may set `trainer.stopping = True` to end the training."""

# Losses stay on the device and are read this often, in steps: a diverged training stops within so many.
_READ_EVERY = 256


class Trainer:
    """Trains `net` with `optimizer`.

    batch_size: rows of a batch; the last batch of an epoch takes what is left.  shuffle: a new order in each epoch,
    from `seed`.  callbacks: called as callback(trainer, record) after each epoch.  complement_weight, class_weight,
    label_smoothing: the cost's options, as in `functional.softmax_cross_entropy`.  progress: called after each batch
    with the number of its rows.

    The cost of a batch is the mean over its rows, so a learning rate means the same for every batch size.
    """

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        *,
        batch_size: int = 128,
        shuffle: bool = True,
        seed: int = 0,
        callbacks: Iterable[Callback] = (),
        complement_weight: float = 1.0,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        progress: Callable[[int], object] | None = None,
    ):
        if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise ValueError(f"batch_size={batch_size!r}; expected a whole number ≥ 1")
        self.net, self.optimizer = net, optimizer
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.callbacks = list(callbacks)
        self.cost = Cost(complement_weight, class_weight, label_smoothing)
        self.progress = progress
        self.history = History()
        self.stopping = False
        self._random = np.random.default_rng(seed)
        with net.device.active():
            self._options = self.cost.kernel_options(net.device.xp, net.n_classes, net.dtype)

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 10,
        validation: tuple[Any, Any] | None = None,
        sample_weight: Any = None,
    ) -> History:
        """Train for `epochs` more epochs; returns the history of all so far.

        x: (n, inputs). y: (n,) class indices or (n, classes) targets. validation: (x, y) of the same kinds.
        sample_weight: (n,); only ratios matter, as they are brought to mean 1.

        Data go to the device once, and their values are checked there. Raises ValueError or TypeError for data that do
        not fit, TrainingDiverged when the loss is no longer finite.
        """
        if epochs < 0:
            raise ValueError(f"epochs={epochs}; expected a whole number ≥ 0")
        # An overflow is reported as TrainingDiverged, with the step's number, not as a warning.
        with self.net.device.active(), np.errstate(over="ignore", invalid="ignore"):
            self._x, self._y = self._entered("x", "y", x, y)
            n = len(self._x)
            self._weight = self._entered_weight(sample_weight, n)
            held_out = None if validation is None else self._entered("validation x", "validation y", *validation)
            self._allocate(n)
            self.stopping = False
            for _ in range(epochs):
                self._epoch(n, held_out)
                if self.stopping:
                    break
        return self.history

    def _entered(self, x_name: str, y_name: str, x: Any, y: Any) -> tuple[Array, Array]:
        """A data set on the device, checked once."""
        net = self.net
        shape = np.shape(x)
        if len(shape) != 2 or shape[1] != net.n_inputs:
            raise ValueError(f"{x_name} has shape {shape}; expected (n, {net.n_inputs}), one column for each input")
        if shape[0] == 0:
            raise ValueError(f"{x_name} has no rows; training needs at least 1")
        raw = net.device.asarray(x, net.dtype)
        finite = net.device.xp.isfinite(raw)
        if not bool(finite.all()):
            row, column = (int(places[0]) for places in net.device.xp.logical_not(finite).nonzero())
            raise ValueError(
                f"{x_name}[{row}, {column}] is NaN or infinite; expected finite numbers: impute or drop it"
            )
        y = targets(y, shape[0], net.n_classes, None, net.device.xp, net.dtype, name=y_name)
        check_values(y_name, y, net.n_classes)
        return net.prepare(raw), y

    def _entered_weight(self, sample_weight: Any, n: int) -> Array | None:
        if sample_weight is None:
            return None
        weight = weights("sample_weight", np.asarray(sample_weight), n, "rows", np, np.float64)
        if not weight.sum() > 0:
            raise ValueError("sample_weight is 0 everywhere; expected at least one row with a weight")
        return self.net.device.asarray(weight / weight.mean(), self.net.dtype)

    def _allocate(self, n: int) -> None:
        """The batch's own memory, once; a short last batch takes slices of it."""
        xp, batch = self.net.device.xp, min(self.batch_size, n)
        self._x_batch = xp.empty((batch, self._x.shape[1]), self.net.dtype)
        self._y_batch = xp.empty((batch, *self._y.shape[1:]), self._y.dtype)
        self._weight_batch = None if self._weight is None else xp.empty(batch, self.net.dtype)
        self._losses = xp.empty(min(_READ_EVERY, -(-n // batch)), self.net.dtype)

    def _epoch(self, n: int, held_out: tuple[Array, Array] | None) -> None:
        began = time.perf_counter()
        total = sum(self._steps(n)) / n
        validation_loss = validation_accuracy = None
        if held_out is not None:
            validation_loss, validation_accuracy = self.evaluate(*held_out)
        optimizer = self.optimizer
        record = EpochRecord(
            epoch=len(self.history) + 1,
            steps=optimizer.steps,
            loss=total,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=optimizer.schedule(max(optimizer.steps - 1, 0)),
            seconds=time.perf_counter() - began,
        )
        self.history.epochs.append(record)
        optimizer.schedule.observe(total if validation_loss is None else validation_loss)
        for callback in self.callbacks:
            callback(self, record)

    def _steps(self, n: int) -> Iterator[float]:
        """One epoch; yields sums of the costs of its rows, as the device's losses are read."""
        order = self._random.permutation(n) if self.shuffle else np.arange(n)
        rows = self.net.device.asarray(order)
        sizes: list[int] = []
        for start in range(0, n, self.batch_size):
            size = min(self.batch_size, n - start)
            self._losses[len(sizes)] = self._step(rows[start : start + size], size)
            sizes.append(size)
            if self.progress is not None:
                self.progress(size)
            if len(sizes) == len(self._losses):
                yield self._read(sizes)
                sizes.clear()
        if sizes:
            yield self._read(sizes)

    def _step(self, rows: Array, size: int) -> Array:
        net, kernels = self.net, self.net.kernels
        x, y = self._x_batch[:size], self._y_batch[:size]
        kernels.gather(self._x, rows, x)
        kernels.gather(self._y, rows, y)
        weight = None
        if self._weight is not None and self._weight_batch is not None:
            weight = self._weight_batch[:size]
            kernels.gather(self._weight, rows, weight)
        loss = net.train_step(x, y, net.n_fixed, row_scale=weight, scale=1 / size, **self._options)
        self.optimizer.step(net)
        return loss

    def _read(self, sizes: list[int]) -> float:
        losses = self.net.device.to_host(self._losses[: len(sizes)]).astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(losses))
        if len(wrong):
            raise TrainingDiverged(self.optimizer.steps - len(sizes) + int(wrong[0]) + 1, float(losses[wrong[0]]))
        return float(losses @ sizes)

    def evaluate(self, x: Array, y: Array) -> tuple[float, float]:
        """Mean cost and accuracy over prepared data. For targets (n, m) accuracy counts their largest as the label."""
        net, xp = self.net, self.net.device.xp
        logits = net.forward_prepared(x)
        losses = xp.empty(len(x), net.dtype)
        net.kernels.softmax_cross_entropy(logits, y, losses, None, **self._options)
        label = y if y.ndim == 1 else y.argmax(axis=1)
        right = (logits.argmax(axis=1) == label).mean()
        return float(losses.mean(dtype=np.float64)), float(right)
