"""The command `gpu-nn`, also `python -m gpu_nn`: results on stdout, progress and one-line errors on stderr.

Exit codes: 0 success, 1 stdout was closed by its reader, 2 usage, 3 data or files, 4 device, 5 training diverged, 130
SIGINT, 143 SIGTERM.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from gpu_nn import __version__
from gpu_nn.errors import DataError, DeviceError, TrainingDiverged, one_line

if TYPE_CHECKING:
    from gpu_nn.training import Trainer

USAGE, DATA, DEVICE, DIVERGED = 2, 3, 4, 5

# Shells report this code plus the signal's number for a process that a signal ended.
SIGNAL_BASE = 128

# Each has `add_<command>_arguments` and `run_<command>` in a module, imported when the command is used.
_COMMANDS = {
    "train": "train a network; without arguments, on the handwritten digits that scikit-learn ships",
    "evaluate": "accuracy, loss, and precision and recall of each class, of a model on labelled data",
    "predict": "the class of each row, one a line, or the probabilities of all classes as CSV",
    "export": "write a model for other programs: as an ONNX file, or its arrays as npz",
    "plot": "figures of a run: learning curves, confusion matrix, calibration, worst mistakes (the extra plot)",
    "info": "versions, devices, and the device that 'auto' chooses; or what a model contains",
}

# The modules of the commands that have none of their name.
_MODULES = {
    **dict.fromkeys(("evaluate", "predict"), "evaluate_predict"),
    **dict.fromkeys(("export", "info"), "export_info"),
}


class Interrupted(KeyboardInterrupt):
    """The signal `signum` stopped the command."""

    def __init__(self, signum: int, message: str = "interrupted"):
        super().__init__(message)
        self.signum = signum


class SignalHandler:
    """While `installed`, a signal raises Interrupted or, during `training`, stops the fit after the current step.

    signum: the signal that arrived, 0 before. A second SIGINT stops a training at once; a second SIGTERM has no effect,
    because schedulers send several.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._trainer: Trainer | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            # Python lets only the main thread handle signals.
            yield
            return
        previous = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    @contextmanager
    def training(self, trainer: "Trainer") -> Iterator[None]:
        """A fit of `trainer`. Raises Interrupted afterwards when a signal arrived."""
        self._trainer = trainer
        try:
            yield
        finally:
            self._trainer = None
        if self.signum:
            raise Interrupted(self.signum)

    def _handle(self, signum: int, frame: Any) -> None:
        is_second_sigint = signum == self.signum == signal.SIGINT
        self.signum = signum
        if self._trainer is None or is_second_sigint:
            raise Interrupted(signum)
        self._trainer.interrupt()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


class _CommandParser(_Parser):
    """The parser of one command, which imports the command's module and adds its arguments when it parses."""

    command = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.command:
            command, self.command = self.command, ""
            module = import_module(f"{__name__}.{_MODULES.get(command, command)}")
            getattr(module, f"add_{command}_arguments")(self)
            self.set_defaults(run=getattr(module, f"run_{command}"))
        return super().parse_known_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(prog="gpu-nn", description="Train neural-network classifiers with an exact cost, on a GPU or a CPU.")
    top.add_argument("--version", action="version", version=f"gpu_nn {__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="|".join(_COMMANDS), parser_class=_CommandParser
    )
    for name, help in _COMMANDS.items():
        commands.add_parser(name, help=help, description=help).command = name
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(arguments)
    import numpy as np  # --help and usage errors do not need it

    try:
        # The loss is checked: NumPy's warnings of overflow would only repeat that.
        with np.errstate(all="ignore"):
            options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `| head`, has closed stdout.
        _discard_stdout()
        return 1
    except Interrupted as error:
        return _fail(options, error, SIGNAL_BASE + error.signum)
    except KeyboardInterrupt:
        return _fail(options, "interrupted", SIGNAL_BASE + signal.SIGINT)
    except (DataError, OSError) as error:
        _discard_stdout()
        return _fail(options, error, DATA)
    except DeviceError as error:
        return _fail(options, error, DEVICE)
    except TrainingDiverged as error:
        return _fail(options, error, DIVERGED)
    except (ValueError, TypeError) as error:
        return _fail(options, error, USAGE)
    except MemoryError:
        hint = "; a smaller --batch-size or --hidden needs less" if options.command == "train" else ""
        return _fail(options, f"out of memory{hint}", DATA)
    return 0


def _discard_stdout() -> None:
    """Let Python's flush at exit succeed: if stdout cannot be written, redirect it to the null device."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(options: argparse.Namespace, error: object, code: int) -> int:
    print(f"gpu-nn {options.command}{getattr(options, 'rank', '')}: {one_line(error)}", file=sys.stderr)
    return code
