"""The callbacks of one fit, each called when it is due."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from gpu_nn.errors import DataError
from gpu_nn.training.callbacks.callback import Callback, TrainerView, Trigger
from gpu_nn.training.history import EpochRecord


class CallbackList:
    """callbacks: each a `Callback` or a plain function callback(trainer, record). Raises TypeError for anything else.

    between_steps: whether `after_step` has anything to call.
    """

    def __init__(self, callbacks: Sequence[Any]):
        self._to_close = ExitStack()
        for i, callback in enumerate(callbacks):
            _check(f"callbacks[{i}]", callback)
        self._callbacks = sorted(callbacks, key=lambda callback: getattr(callback, "last", False))
        every = [getattr(callback, "every", Callback.every) for callback in self._callbacks]
        self._after_epochs = [pair for pair in zip(self._callbacks, every, strict=True) if pair[1].epochs]
        self._after_steps = [pair for pair in zip(self._callbacks, every, strict=True) if not pair[1].epochs]
        self.between_steps = bool(self._after_steps)
        now = time.monotonic()
        self._called_at = [now] * len(self._after_steps)

    def begin(self, trainer: TrainerView) -> None:
        for callback in self._callbacks:
            # A begin() that raises half-way is closed, too.
            self._to_close.callback(self._call, callback, "close")
            self._call(callback, "begin", trainer)

    def end(self, trainer: TrainerView) -> None:
        for callback in self._callbacks:
            self._call(callback, "end", trainer)

    def close(self) -> None:
        """Close the callbacks that were begun, the latest first, even where some of them raise."""
        self._to_close.close()

    def _call(self, callback: Any, method: str, *arguments: Any) -> None:
        function: Callable[..., None] | None = getattr(callback, method, None)
        if function is not None:
            with self._note(callback, f"in its {method}()"):
                function(*arguments)

    def after_step(self, trainer: TrainerView) -> None:
        """Call the callbacks that are due between two steps."""
        now = time.monotonic()
        for i, (callback, every) in enumerate(self._after_steps):
            if every.steps:
                due = trainer.optimizer.steps % every.steps == 0
            else:
                due = now - self._called_at[i] >= every.seconds
            if due:
                record = trainer.step_record()
                with self._note(callback, f"after step {record.steps}"):
                    callback(trainer, record)
                self._called_at[i] = time.monotonic()

    def after_epoch(self, trainer: TrainerView, record: EpochRecord) -> None:
        """Call the callbacks that are due after the epoch."""
        for callback, every in self._after_epochs:
            if record.epoch % every.epochs == 0:
                with self._note(callback, f"after epoch {record.epoch}"):
                    callback(trainer, record)

    def states(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and state of each callback that has a state."""
        found = []
        for callback in filter(_has_state, self._callbacks):
            with self._note(callback, "in its state()"):
                found.append((_name(callback), callback.state()))
        return found

    def load_states(self, path: Any, saved: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Restore the callbacks. Raises DataError for states of other callbacks and for ones that they cannot load."""
        with_state = list(filter(_has_state, self._callbacks))
        there, here = [name for name, _ in saved], [_name(callback) for callback in with_state]
        if there != here:
            listed = ", ".join(there) or "none", ", ".join(here) or "none"
            raise DataError(f"{path} has states of the callbacks: {listed[0]}; this training has: {listed[1]}")
        for callback, (name, state) in zip(with_state, saved, strict=True):
            try:
                callback.load_state(state)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
                raise DataError(f"{path} has a state that callback {name} cannot take: {error!r}") from error

    @contextmanager
    def _note(self, callback: Any, moment: str) -> Iterator[None]:
        """Add a note to an exception of the block, whose type stays."""
        try:
            yield
        except Exception as error:
            error.add_note(f"raised by the callback {_name(callback)}, {moment}")
            raise


def _check(name: str, callback: Any) -> None:
    expected = "expected a Callback or a function callback(trainer, record)"
    if isinstance(callback, type):
        raise TypeError(f"{name} is the class {callback.__qualname__}; {expected}: an object of it, made with ()")
    if not callable(callback):
        raise TypeError(f"{name} is {callback!r}; {expected}")
    every = getattr(callback, "every", Callback.every)
    if not isinstance(every, Trigger):
        raise TypeError(
            f"{name}, {_name(callback)}, has every={every!r}; expected a Trigger, such as Trigger(epochs=1)"
        )


def _has_state(callback: Any) -> bool:
    return getattr(type(callback), "state", Callback.state) is not Callback.state


def _name(callback: Any) -> str:
    """The name of a function, or of an object's class."""
    return getattr(callback, "__qualname__", type(callback).__qualname__)
