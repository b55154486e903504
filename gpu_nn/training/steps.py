"""The device's work in the steps of a fit."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gpu_nn.device import Array
from gpu_nn.training import together
from gpu_nn.training.resident import Resident
from gpu_nn.training.windows import Windows

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer


class Steps:
    """Steps on one data set, a captured one for each size of a batch, with the memory that they work in.

    data: what is trained on.  order: (rows,) of int64, its rows in the order of an epoch.  counters: (2,) of int64,
    where in it the next batch begins, and where in `losses` its mean cost goes.
    """

    def __init__(self, trainer: "Trainer", data: Resident | Windows, unread: int):
        """unread: the most losses that the host has not read."""
        self._trainer, net = trainer, trainer.net
        self.data = data
        self.losses: Array = net.device.empty((unread,), net.dtype)
        self.order, self.counters = net.device.empty((data.rows,), np.int64), net.device.zeros((2,), np.int64)

    def prepare(self) -> None:
        """The batch's own memory, once `data` is prepared; a short last batch takes slices of it."""
        trainer, data = self._trainer, self.data
        net, xp = trainer.net, trainer.net.device.xp
        self._of_size: dict[int, Callable[[], None]] = {}
        self._bindings = net.plan.version
        batch = -(-min(trainer.batch_size, data.rows) // trainer.parts)
        self._x_batch = net.device.empty((batch, data.x.shape[1]), net.precision.compute)
        self._y_batch = xp.empty((batch, *data.y.shape[1:]), data.y.dtype)
        self._weight_batch = None if data.weight is None else xp.empty(batch, net.dtype)

    def of(self, size: int) -> Callable[[], None]:
        """A step on `size` rows, as one launch where the device has such a thing."""
        net = self._trainer.net
        if net.plan.version != self._bindings:
            self._of_size.clear()
            self._bindings = net.plan.version
        step = self._of_size.get(size)
        if step is None:
            work = self._work(size) if self._trainer.parts == 1 else together.work_in_parts(self._trainer, size)
            step = self._of_size[size] = net.kernels.cuda_graph(work)
        return step

    def _work(self, size: int) -> Callable[[], None]:
        """What changes from step to step lies in the device's memory."""
        net, optimizer, kernels = self._trainer.net, self._trainer.optimizer, self._trainer.net.kernels
        batch, weight = self.batch_of(size)
        x, y = batch[0][1], batch[1][1]
        options = {"row_scale": weight, "scale": 1 / size, **self._trainer.options}
        order, position, begins, losses = self.order, self.counters, self.counters[:1], self.losses

        def work() -> None:
            for source, out in batch:
                kernels.gather(source, order, out, begins)
            kernels.record_loss(net.train_step(x, y, net.n_preprocessing, **options), losses, position, net.loss_scale)
            optimizer.update(net)

        return work

    def batch_of(self, size: int) -> tuple[list[tuple[Array, Array]], Array | None]:
        """What is gathered for `size` rows, inputs and targets first, each with where it goes; and their weights."""
        data = self.data
        batch = [(data.x, self._x_batch[:size]), (data.y, self._y_batch[:size])]
        if data.weight is None or self._weight_batch is None:
            return batch, None
        weight = self._weight_batch[:size]
        return [*batch, (data.weight, weight)], weight

    def with_losses(self, losses: np.ndarray) -> None:
        """Those of earlier steps that were not read."""
        device, dtype = self._trainer.net.device, self._trainer.net.dtype
        if len(losses) >= len(self.losses):
            # Of a device where they are read less often.
            self.losses = device.empty((self._trainer.steps_an_epoch,), dtype)
        self.losses[: len(losses)] = device.asarray(losses, dtype)
