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
from gpu_nn.training import state
from gpu_nn.training.array_loader import ArrayLoader
from gpu_nn.training.callbacks.callback import Callback
from gpu_nn.training.callbacks.callback_list import CallbackList
from gpu_nn.training.checkpoint import Checkpoint, load_checkpoint
from gpu_nn.training.evaluation import Evaluation
from gpu_nn.training.gradient_sync import broadcast_parameters, offset_rng_by_rank
from gpu_nn.training.history import EpochRecord, History, StepRecord
from gpu_nn.training.loader import Loader, training_loader, validation_data
from gpu_nn.training.pending_losses import PendingLosses
from gpu_nn.training.spec import TrainingSpec, assert_same_on_all_ranks, settings_of
from gpu_nn.training.train_step import TrainStep, check_micro_batches
from gpu_nn.validation import check_int, random_generator


class Trainer:
    """Trains `net` with `optimizer`.

    batch_size: rows of a batch; the last batch of an epoch takes what is left.  shuffle: a new order in each epoch,
    from `seed`; a Generator goes on where it was.  callbacks: see `Callback`; a plain function is called as
    callback(trainer, record) after each epoch, and may set `trainer.stopping = True` to end the training.
    complement_weight, class_weight, label_smoothing: the cost's options, as in `functional.softmax_cross_entropy`.
    on_batch_end: called after each batch with the number of its rows.

    micro_batches: a batch is computed as this many micro-batches, one after the other, whose gradients are added in
    pairs; the device needs memory for one of them.  communicator: of the processes that train together (see
    `gpu_nn.distributed`), each of which computes an equal share of the micro-batches. Where each has a power of two of
    them, the gradients, and so the parameters, have on CPUs the same bits for any number of ranks.  Rank 0 alone calls
    the callbacks.

    The cost of a batch is the mean over its rows, so a learning rate means the same for every batch size. But for its
    schedule, the settings of the optimizer are those at the start of a fit: a GPU may hold them in a CUDA graph.

    history: the records so far.  interrupted: whether `interrupt` ended the latest fit.  resumed_from: the file of the
    checkpoint that the latest fit resumed from, or None.  data: the fingerprints of the latest fit's data, "training"
    and "validation".  evaluation: computes the loss and the accuracy of the validation data.
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
        on_batch_end: Callable[[int], object] | None = None,
        micro_batches: int | None = None,
        communicator: Communicator = SINGLE_PROCESS,
    ):
        self.net, self.optimizer, self.communicator = net, optimizer, communicator
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.micro_batches = check_micro_batches(micro_batches, self.batch_size, communicator.size)
        self.shuffle, self.on_batch_end = bool(shuffle), on_batch_end
        self.callbacks: list[Any] = list(callbacks) if communicator.rank == 0 else []
        self.random = random_generator(seed)
        self.history = History()
        self.stopping = self.interrupted = False
        self.resumed_from: Path | None = None
        self.data: dict[str, Any] = {"training": None, "validation": None}
        self._cost = Cost(complement_weight, class_weight, label_smoothing)
        with net.device.active():
            self.cost_options = self._cost.kernel_options(net.device.xp, net.n_classes, net.dtype)
            self._pending_losses = PendingLosses(net.device, net.dtype, 0)
        self.evaluation = Evaluation(net, self.cost_options, communicator)
        self._progress = state.Progress(0, self.random.bit_generator.state)
        self._spec = TrainingSpec({}, self.data)
        self._callback_list = CallbackList(())
        self._interrupt_requested = False

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
        sample_weight: (n,); only ratios matter, as they are scaled to mean 1.

        resume: a checkpoint, its file, or the folder of a `Checkpoints`, whose newest whole one is read. With all
        other arguments as they were, in this process or another, the training resumes where the checkpoint was taken,
        in the middle of an epoch or not, and ends in the same bits as an uninterrupted one.

        Arrays go to the device once, and their values are checked there; those of a stream are checked as they pass.
        Raises ValueError or TypeError for data that do not fit, DataError for a stream with such data and for a
        checkpoint that is damaged or of another training, TrainingDiverged when the loss is no longer finite.
        """
        epochs = check_int("epochs", epochs, 0)
        # An overflow is reported as TrainingDiverged, with the step's number, not as a warning.
        advice = f"a batch_size below {self.batch_size} needs less"
        with self.net.device.active(advice), np.errstate(over="ignore", invalid="ignore"):
            with self.communicator.raise_on_all_ranks():
                checkpoint = load_checkpoint(resume)
                loader = training_loader(x, y, sample_weight, self.net, self.batch_size, self.communicator)
                held_out = validation_data(validation, self.net)
                step = self._start(loader, held_out)
            callback_states = None if checkpoint is None else self._resume(checkpoint)
            if self.communicator.size > 1:
                same = {"last_epoch": self._progress.first_epoch + epochs, "micro_batches": self.micro_batches}
                random = self._progress.random
                assert_same_on_all_ranks(self.communicator, self._spec, self.net, random=random, **same)
                offset_rng_by_rank(self.net, self.communicator.rank)
            # A checkpoint may have set the state of the preprocessing layers; from here on it stays.
            loader.prepare()
            if held_out is not None and not isinstance(held_out, StreamDataset):
                held_out.prepare()
            step.allocate()
            with closing(self._callback_list) as callbacks:
                callbacks.begin(self)
                if callback_states is not None and self.communicator.rank == 0:
                    callbacks.load_states(self.resumed_from, callback_states)
                last_epoch = self._last_epoch(epochs)
                while len(self.history) < last_epoch and not self._is_stopped():
                    if self._train_epoch(step):
                        self._end_epoch(*self.evaluation.of(held_out))
                self.stopping = self.communicator.any_rank(self.stopping)
                self.interrupted = self.communicator.any_rank(self._interrupt_requested)
                self._interrupt_requested = False
                callbacks.end(self)
            if self.communicator.size > 1:
                broadcast_parameters(self.net, self.communicator)
        return self.history

    def interrupt(self) -> None:
        """End the fit after the current step, for a later one that resumes. Signal handlers and threads may call it.

        Several ranks end after the next step; on GPUs after the next step at which they read the losses, which they do
        every 256 steps (once an epoch after a checkpoint of a single GPU).
        """
        self._interrupt_requested = True

    def _train_epoch(self, step: TrainStep) -> bool:
        """Make the remaining steps of the epoch. Returns False where an interrupt left some."""
        progress = self._progress
        if not progress.steps_in_epoch:
            progress.began = time.perf_counter()
        random = self.random if self.shuffle else None
        with closing(step.loader.epoch(random, progress.steps_in_epoch * self.batch_size, step.order)) as windows:
            for first, end in windows:
                begin = min(progress.steps_in_epoch * self.batch_size, end)
                self._pending_losses.start_window(begin - first)
                for start in range(begin, end, self.batch_size):
                    size = min(self.batch_size, end - start)
                    step(size)
                    progress.steps_in_epoch += 1
                    if self.on_batch_end is not None:
                        self.on_batch_end(size)
                    if self._pending_losses.is_full:
                        self._read_losses()
                    if self._callback_list.between_steps:
                        self._after_step()
                    if self._is_interrupted(step):
                        return False
        self._read_losses()
        return True

    def _end_epoch(self, validation_loss: float | None, accuracy: float | None) -> None:
        """Record the epoch, and notify schedule and callbacks."""
        progress = self._progress
        loss = progress.cost / self._spec.n_rows
        record = EpochRecord(
            epoch=len(self.history) + 1,
            steps=self.optimizer.steps,
            loss=loss,
            validation_loss=validation_loss,
            validation_accuracy=accuracy,
            learning_rate=self.step_record().learning_rate,
            seconds=time.perf_counter() - progress.began,
        )
        self.history.epochs.append(record)
        self.optimizer.schedule.observe(loss if validation_loss is None else validation_loss)
        self._progress = state.Progress(progress.first_epoch, self.random.bit_generator.state)
        self._callback_list.after_epoch(self, record)

    def _after_step(self) -> None:
        """Call the callbacks that are due between two steps."""
        try:
            self._callback_list.after_step(self)
        except TrainingDiverged:
            # Where a pending loss is not finite, all ranks raise this in `_read_losses`; rank 0 alone must not.
            if self.communicator.size == 1 or np.isfinite(self._pending_losses.to_host()).all():
                raise

    def _read_losses(self) -> None:
        """Add the pending losses to the cost of the epoch."""
        if not self._pending_losses.count:
            return
        try:
            losses = self._pending_losses.read(self.optimizer.steps)
        except TrainingDiverged as error:
            self.communicator.mark_raised_on_all_ranks(error)
            raise
        self._progress.add(losses, self.batch_size, self._spec.n_rows)
        self._pending_losses.clear()

    def _start(self, loader: Loader, held_out: ArrayLoader | StreamDataset | None) -> TrainStep:
        """Reset the state of the previous fit; returns the step on this fit's data."""
        net = self.net
        self.data = {
            "training": loader.fingerprint(),
            "validation": None if held_out is None else held_out.fingerprint(),
        }
        settings = settings_of(net, self.optimizer, self._cost, batch_size=self.batch_size, shuffle=self.shuffle)
        self._spec = TrainingSpec(settings, self.data)
        self._callback_list = CallbackList(self.callbacks)
        self.stopping = self.interrupted = False
        self.resumed_from = None
        self._progress = state.Progress(len(self.history), self.random.bit_generator.state)
        self._pending_losses = PendingLosses.of_fit(net, self._spec.steps_per_epoch, self.communicator.size)
        return TrainStep(
            net,
            self.optimizer,
            loader,
            self._pending_losses,
            self.cost_options,
            batch_size=self.batch_size,
            micro_batches=self.micro_batches,
            communicator=self.communicator,
            is_interrupted=lambda: self._interrupt_requested,
        )

    def _resume(self, checkpoint: Checkpoint) -> state.CallbackStates:
        """Load the checkpoint; returns the states of its callbacks."""
        loaded = state.load_state_dict(checkpoint, self._spec, self.net, self.optimizer, self.random)
        self._progress, self.history, self.stopping = loaded.progress, loaded.history, loaded.stopping
        self._pending_losses.load(loaded.pending_losses, self._spec.steps_per_epoch)
        self.resumed_from = checkpoint.path
        return loaded.callbacks

    def _last_epoch(self, epochs: int) -> int:
        """The number of the fit's last epoch. Raises TooFewEpochs where the checkpoint is further."""
        first = self._progress.first_epoch
        least = len(self.history) - first + bool(self._progress.steps_in_epoch)
        if epochs < least:
            raise self.communicator.mark_raised_on_all_ranks(state.TooFewEpochs("epochs", epochs, least))
        return first + epochs

    def _is_stopped(self) -> bool:
        """Whether the fit ends before the next epoch. All ranks learn what the callbacks of rank 0 ask for.

        An epoch that a checkpoint has begun is finished before a stop.
        """
        stops = self.stopping and not self._progress.steps_in_epoch
        return self.communicator.any_rank(self._interrupt_requested or stops)

    def _is_interrupted(self, step: TrainStep) -> bool:
        """Whether any rank is interrupted: a rank that ended the epoch by itself would leave the others waiting."""
        if self.communicator.size == 1:
            return self._interrupt_requested
        if self.net.device.kind == "cpu":
            return step.sync.interrupted_on_any_rank
        # On a GPU an exchange makes the host wait, so the ranks ask only where they have read the losses.
        return not self._pending_losses.count and self.communicator.any_rank(self._interrupt_requested)

    def latest_loss(self) -> float:
        """The mean cost of the latest step's batch. On a GPU this waits for the device."""
        return self._pending_losses.latest()

    def step_record(self) -> StepRecord:
        """Where the training is, between two steps."""
        steps, schedule = self.optimizer.steps, self.optimizer.schedule
        return StepRecord(len(self.history) + 1, self._progress.steps_in_epoch, steps, schedule(max(steps - 1, 0)))

    def state_dict(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The JSON and the arrays of a checkpoint of this moment, between two steps (`training.checkpoint.write`).

        On a GPU this waits for the device. Raises TrainingDiverged when a loss is no longer finite.
        """
        losses = self._pending_losses.read(self.optimizer.steps)
        states = self._callback_list.states()
        here = state.TrainingState(self._progress, self.history, self.stopping, losses, states)
        return state.state_dict(self._spec, here, self.net, self.optimizer)
