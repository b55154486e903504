"""The training loop: shuffled batches, one optimizer step each, validation after each epoch."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.cost import Cost
from gpu_nn.data.stream import StreamDataset
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.errors import TrainingDiverged
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training import state as resuming
from gpu_nn.training import together
from gpu_nn.training.array_loader import ArrayLoader
from gpu_nn.training.callbacks.callback import Callback
from gpu_nn.training.callbacks.callback_list import CallbackList
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.evaluation import Evaluation
from gpu_nn.training.history import EpochRecord, History, StepRecord
from gpu_nn.training.stream_loader import StreamLoader, check_fits
from gpu_nn.training.train_step import Steps
from gpu_nn.validation import check_int, is_int, random_generator

# Losses stay on the device and are read this often, in steps: a diverged training stops within so many. On a GPU to
# read is to wait, so there it is mostly once an epoch; ranks then also learn whether one of them is interrupted.
_READ_EVERY, _READ_EVERY_ON_A_GPU = 256, 1 << 16


class Trainer:
    """Trains `net` with `optimizer`.

    batch_size: rows of a batch; the last batch of an epoch takes what is left.  shuffle: a new order in each epoch,
    from `seed`; a Generator goes on where it was.  callbacks: see `Callback`; a plain function is called as
    callback(trainer, record) after each epoch, and may set `trainer.stopping = True` to end the training.
    complement_weight, class_weight, label_smoothing: the cost's options, as in `functional.softmax_cross_entropy`.
    progress: called after each batch with the number of its rows.

    parts: a batch is computed in so many parts, one after the other, whose gradients are added in pairs; memory is
    taken for one of them.  ranks: the processes that train together (see `gpu_nn.distributed`), of which each computes
    its equal share of the parts.  Where each has a power of two of them, gradients, and so parameters, have on CPUs
    the same bits for any number of ranks.  Callbacks are called on rank 0 alone.

    The cost of a batch is the mean over its rows, so a learning rate means the same for every batch size. But for its
    schedule, the settings of the optimizer are those at the start of a fit: a GPU may hold them in a CUDA graph.

    history: the records so far.  interrupted: whether `interrupt` ended the latest fit.  resumed_from: the file of the
    checkpoint that the latest fit went on from, or None.  evaluation: what gives the validation's loss and accuracy.
    """

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        *,
        batch_size: int = 128,
        shuffle: bool = True,
        seed: int | np.random.Generator = 0,
        callbacks: Iterable[Callback | Callable[["Trainer", EpochRecord], None]] = (),
        complement_weight: float = 1.0,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        progress: Callable[[int], object] | None = None,
        parts: int | None = None,
        communicator: Communicator = SINGLE_PROCESS,
    ):
        self.batch_size = check_int("batch_size", batch_size, 1)
        parts = communicator.size if parts is None else parts
        if not (is_int(parts) and parts >= 1 and parts % communicator.size == 0):
            raise ValueError(
                f"parts={parts!r}; expected a whole number ≥ 1 that {communicator.size} ranks can share evenly"
            )
        if batch_size < parts:
            raise ValueError(f"batch_size={batch_size}, but {parts} parts; expected at least a row for each")
        self.communicator, self.parts = ranks, int(parts)
        self.net, self.optimizer = net, optimizer
        self.shuffle = shuffle
        self.callbacks: list[Any] = list(callbacks) if communicator.rank == 0 else []
        self.cost = Cost(complement_weight, class_weight, label_smoothing)
        self.progress = progress
        self.history = History()
        self.stopping = self.interrupted = self.interrupting = False
        self.resumed_from: Path | None = None
        self.random = random_generator(seed)
        with net.device.active():
            self.options = self.cost.kernel_options(net.device.xp, net.n_classes, net.dtype)
        self.evaluation = Evaluation(net, self.options, ranks)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        validation: tuple[Any, Any] | StreamDataset | None = None,
        sample_weight: Any = None,
        resume: str | os.PathLike[str] | Checkpoint | None = None,
    ) -> History:
        """Train for `epochs` more epochs; returns the history of all so far.

        x: (n, inputs). y: (n,) class indices or (n, classes) targets. Or x is a `StreamDataset` of both, and y is None,
        for data larger than memory: a window of it is on the device at a time. validation: (x, y), or a StreamDataset.
        sample_weight: (n,); only ratios matter, as they are brought to mean 1.

        resume: a checkpoint, its file, or the folder of a `Checkpoints`, whose newest whole one is taken. With all
        other arguments as they were, in this process or another, the training goes on where the checkpoint was taken,
        in the middle of an epoch or not, and ends in the same bits as if it had never been broken off.

        Arrays go to the device once, and their values are checked there; those of a stream are checked as they pass.
        Raises ValueError or TypeError for data that do not fit, DataError for a stream with such data and for a
        checkpoint that is damaged or of another training, TrainingDiverged when the loss is no longer finite.
        """
        check_int("epochs", epochs, 0)
        # An overflow is reported as TrainingDiverged, with the step's number, not as a warning.
        advice = f"a batch_size below {self.batch_size} needs less"
        with self.net.device.active(advice), np.errstate(over="ignore", invalid="ignore"):
            with self.communicator.raise_on_all_ranks():
                checkpoint = resuming.load_checkpoint(resume)
                self._enter(x, y, sample_weight, validation)
            self._calls = CallbackList(self, self.callbacks)
            self.stopping = self.interrupted = False
            self.resumed_from = None
            self.position = resuming.Position(len(self.history), self.random.bit_generator.state)
            states = None if checkpoint is None else resuming.restore(self, checkpoint)
            if self.communicator.size > 1:
                together.check(self, epochs)
                together.draw_apart(self)
            self._prepare()
            with closing(self._calls):
                self._epochs(epochs, states)
            if self.communicator.size > 1:
                together.follow_rank_0(self)
        return self.history

    def interrupt(self) -> None:
        """End the fit after the step at work, for a later one that resumes; for signal handlers and other threads.

        Several ranks end after the next step, on GPUs after the next in which they read the losses, of 256 at most.
        """
        self.interrupting = True

    def _enter(self, x: Any, y: Any, sample_weight: Any, validation: Any) -> None:
        """The data on the device, as they came, and what a checkpoint says of them."""
        net, device = self.net, self.net.device
        data: ArrayLoader | StreamLoader
        if not isinstance(x, StreamDataset):
            data = ArrayLoader(net, x, y, sample_weight)
        elif y is None and sample_weight is None:
            data = StreamLoader(x, net, self.batch_size, self.communicator)
        else:
            raise ValueError("x is a StreamDataset, which has its own y and no sample_weight; pass neither")
        if isinstance(validation, StreamDataset):
            check_fits("validation", validation, net)
        elif validation is not None:
            if not (isinstance(validation, tuple | list) and len(validation) == 2):
                parts = f" of {len(validation)}" if hasattr(validation, "__len__") else ""
                expected = "expected (x, y), or a StreamDataset"
                raise TypeError(f"validation is a {type(validation).__name__}{parts}; {expected}")
            x_held_out, y_held_out = validation
            validation = ArrayLoader(net, x_held_out, y_held_out, name="validation ")
        self._held_out: ArrayLoader | StreamDataset | None = validation
        described = None if self._held_out is None else self._held_out.fingerprint()
        self.data: dict[str, Any] = {"training": data.fingerprint(), "validation": described}
        n = self.n_rows = len(x)
        self.steps_an_epoch = -(-n // self.batch_size)
        every = _READ_EVERY if device.kind == "cpu" or self.communicator.size > 1 else _READ_EVERY_ON_A_GPU
        self.steps = Steps(self, data, min(every, self.steps_an_epoch))

    def _prepare(self) -> None:
        """The data through the fixed layers at the front, and the batch's own memory, once."""
        self.steps.data.prepare()
        if isinstance(self._held_out, ArrayLoader):
            self._held_out.prepare()
        self.steps.prepare()

    def _epochs(self, epochs: int, states: Any) -> None:
        """Those of a fit, with its callbacks. states: theirs, where it resumes."""
        self._calls.begin()
        if states is not None and self.communicator.rank == 0:
            self._calls.load_states(self.resumed_from, states)
        last = self.position.first_epoch + epochs
        least = len(self.history) - self.position.first_epoch + bool(self.position.steps_in_epoch)
        if epochs < least:
            raise self.communicator.mark_raised_on_all_ranks(resuming.TooFewEpochs("epochs", epochs, least))
        # Callbacks are rank 0's alone: the others learn here whether one wants to stop, or to be interrupted. An epoch
        # that was begun is finished before a stop, where it resumes, too.
        while len(self.history) < last and not together.any_of(
            self, self.interrupting or (self.stopping and not self.position.steps_in_epoch)
        ):
            self._epoch()
        self.stopping = together.any_of(self, self.stopping)
        self.interrupted, self.interrupting = together.any_of(self, self.interrupting), False
        self._calls.end()

    def _epoch(self) -> None:
        """What is left of the epoch in progress, unless it is interrupted."""
        if not self.position.steps_in_epoch:
            self.position.began = time.perf_counter()
        if not self._steps():
            return
        validation_loss = validation_accuracy = None
        if isinstance(self._held_out, StreamDataset):
            validation_loss, validation_accuracy = self.evaluation.of_stream(self._held_out)
        elif self._held_out is not None:
            validation_loss, validation_accuracy = self.evaluation.of_arrays(self._held_out.x, self._held_out.y)
        optimizer, position, loss = self.optimizer, self.position, self.position.cost / self.n_rows
        record = EpochRecord(
            epoch=len(self.history) + 1,
            steps=optimizer.steps,
            loss=loss,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=optimizer.schedule(max(optimizer.steps - 1, 0)),
            seconds=time.perf_counter() - position.began,
        )
        self.history.epochs.append(record)
        optimizer.schedule.observe(loss if validation_loss is None else validation_loss)
        self.position = resuming.Position(position.first_epoch, self.random.bit_generator.state)
        self._calls.after_epoch(record)

    def _steps(self) -> bool:
        """The steps that are left of the epoch; whether they were all made."""
        position, optimizer, steps = self.position, self.optimizer, self.steps
        random = self.random if self.shuffle else None
        with closing(steps.data.epoch(random, position.steps_in_epoch * self.batch_size, steps.order)) as windows:
            for first, end in windows:
                begins = min(position.steps_in_epoch * self.batch_size, end)
                steps.counters[...] = self.net.device.asarray(np.array([begins - first, position.unread]))
                for start in range(begins, end, self.batch_size):
                    size = min(self.batch_size, end - start)
                    optimizer.begin_step(self.net)
                    steps.of(size)()
                    optimizer.end_step()
                    position.steps_in_epoch += 1
                    position.unread += 1
                    if self.progress is not None:
                        self.progress(size)
                    if position.unread == len(steps.losses):
                        self._read()
                    if self._calls.between_steps:
                        self._after_step()
                    if self._ends():
                        return False
        self._read()
        return True

    def _after_step(self) -> None:
        """Callbacks. Where one finds that the losses are no longer finite rank 0 does not end alone, while the others
        wait for it in their next sum: they all find it where they read them."""
        try:
            self._calls.after_step()
        except TrainingDiverged:
            if self.communicator.size == 1 or np.isfinite(self._unread()).all():
                raise

    def _ends(self) -> bool:
        """Whether the training is interrupted, on any rank: one that left by itself would be waited for."""
        if self.communicator.size == 1:
            return self.interrupting
        if self.net.device.kind == "cpu":
            return together.interrupted_on_any_rank(self)
        # On a GPU to ask is to wait.
        return not self.position.unread and together.any_of(self, self.interrupting)

    def _read(self) -> None:
        """Add the losses that the host has not read to the epoch's cost."""
        position = self.position
        if not position.unread:
            return
        try:
            losses = self.unread_losses()
        except TrainingDiverged as error:
            self.communicator.mark_raised_on_all_ranks(error)
            raise
        # In whole numbers of any size: float64 rounds those past 2⁵³.
        begins = (position.steps_in_epoch - 1) * self.batch_size
        sizes = np.full(position.unread, min(self.batch_size, self.n_rows), np.float64)
        sizes[-1] = min(self.batch_size, self.n_rows - begins)
        position.cost += float(losses @ sizes)
        position.unread = 0
        self.steps.counters[1] = 0

    def unread_losses(self) -> np.ndarray:
        """The losses of the latest steps, as many as `position.unread`, in float64. On a GPU this waits for the device.

        Raises TrainingDiverged when one is not finite.
        """
        losses = self._unread()
        wrong = np.flatnonzero(~np.isfinite(losses))
        if len(wrong):
            raise TrainingDiverged(self.optimizer.steps - len(losses) + int(wrong[0]) + 1, float(losses[wrong[0]]))
        return losses

    def _unread(self) -> np.ndarray:
        return self.net.device.to_host(self.steps.losses[: self.position.unread]).astype(np.float64)

    def latest_loss(self) -> float:
        """The mean cost of the latest step's batch. On a GPU this waits for the device."""
        return float(self.steps.losses[self.position.unread - 1])

    def step_record(self) -> StepRecord:
        """Where the training stands; for between two steps."""
        optimizer = self.optimizer
        rate = optimizer.schedule(max(optimizer.steps - 1, 0))
        return StepRecord(len(self.history) + 1, self.position.steps_in_epoch, optimizer.steps, rate)

    def callback_states(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and state of every callback that remembers something."""
        return self._calls.states()

    def stand_at(self, position: resuming.Position, losses: np.ndarray) -> None:
        """Go on from there. losses: those that were not read."""
        self.position = position
        self.random.bit_generator.state = position.random
        self.steps.with_losses(losses)
