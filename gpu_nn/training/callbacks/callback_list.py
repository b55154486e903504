"""The callbacks of one fit, each called when it is due."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from gpu_nn.errors import DataError
from gpu_nn.training.callbacks.callback import Callback, Trigger
from gpu_nn.training.history import EpochRecord

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer


class CallbackList:
    """callbacks: of kind `Callback`, or plain functions callback(trainer, record).

    Raises TypeError for what cannot be called so.
    """

    def __init__(self, trainer: "Trainer", callbacks: Sequence[Any]):
        self._trainer = trainer
        self._begun = ExitStack()
        for i, callback in enumerate(callbacks):
            _check(f"callbacks[{i}]", callback)
        self._callbacks = sorted(callbacks, key=lambda callback: getattr(callback, "last", False))
        every = [getattr(callback, "every", Callback.every) for callback in self._callbacks]
        self._after_epochs = [pair for pair in zip(self._callbacks, every, strict=True) if pair[1].epochs]
        self._after_steps = [pair for pair in zip(self._callbacks, every, strict=True) if not pair[1].epochs]
        # Where nobody listens, a step is not spent on asking.
        self.between_steps = bool(self._after_steps)
        now = time.monotonic()
        self._called_at = [now] * len(self._after_steps)

    def begin(self) -> None:
        for callback in self._callbacks:
            # Half of a begin() is to be closed too.
            self._begun.callback(self._tell, callback, "close")
            self._tell(callback, "begin", self._trainer)

    def end(self) -> None:
        for callback in self._callbacks:
            self._tell(callback, "end", self._trainer)

    def close(self) -> None:
        """Close all that were begun, the latest first, each whatever the others raise."""
        self._begun.close()

    def _tell(self, callback: Any, method: str, *arguments: Any) -> None:
        tell: Callable[..., None] | None = getattr(callback, method, None)
        if tell is not None:
            with self._named(callback, f"in its {method}()"):
                tell(*arguments)

    def after_step(self) -> None:
        """Call those that are due between two steps."""
        trainer, now = self._trainer, time.monotonic()
        for i, (callback, every) in enumerate(self._after_steps):
            if every.steps:
                due = trainer.optimizer.steps % every.steps == 0
            else:
                due = now - self._called_at[i] >= every.seconds
            if due:
                record = trainer.step_record()
                with self._named(callback, f"after step {record.steps}"):
                    callback(trainer, record)
                self._called_at[i] = time.monotonic()

    def after_epoch(self, record: EpochRecord) -> None:
        """Call those that are due after the epoch."""
        for callback, every in self._after_epochs:
            if record.epoch % every.epochs == 0:
                with self._named(callback, f"after epoch {record.epoch}"):
                    callback(self._trainer, record)

    def states(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and state of every callback that remembers something."""
        found = []
        for callback in filter(_remembers, self._callbacks):
            with self._named(callback, "in its state()"):
                found.append((_name(callback), callback.state()))
        return found

    def load_states(self, path: Any, saved: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Give the saved states back. Raises DataError when they are of other callbacks, or no states of theirs."""
        remembering = list(filter(_remembers, self._callbacks))
        there, here = [name for name, _ in saved], [_name(callback) for callback in remembering]
        if there != here:
            listed = ", ".join(there) or "none", ", ".join(here) or "none"
            raise DataError(f"{path} has states of the callbacks: {listed[0]}; this training has: {listed[1]}")
        for callback, (name, state) in zip(remembering, saved, strict=True):
            try:
                callback.load_state(state)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
                raise DataError(f"{path} has a state that callback {name} cannot take: {error!r}") from error

    @contextmanager
    def _named(self, callback: Any, moment: str) -> Iterator[None]:
        """A note on exceptions, whose kind stays: who catches them finds what the callback raised."""
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


def _remembers(callback: Any) -> bool:
    return getattr(type(callback), "state", Callback.state) is not Callback.state


def _name(callback: Any) -> str:
    """A function by its name, an object by that of its class."""
    return getattr(callback, "__qualname__", type(callback).__qualname__)
