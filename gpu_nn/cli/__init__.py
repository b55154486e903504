"""The command `gpu-nn`, = `python -m gpu_nn`: results on stdout, progress and one-line errors on stderr.

Exit codes: 0 done, 1 the reader of stdout has gone, 2 usage, 3 data or files, 4 device, 5 training diverged, 130
interrupted (SIGINT), 143 asked to end (SIGTERM).
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from gpu_nn import __version__
from gpu_nn.cli.interruption import Interrupted
from gpu_nn.errors import DataError, DeviceError, TrainingDiverged, one_line

USAGE, DATA, DEVICE, DIVERGED = 2, 3, 4, 5

# Shells give this code, and the signal's number on top, to what a signal ended.
_SIGNALLED = 128

# Each is a module beside this one, imported when it is asked for.
_COMMANDS = {
    "train": "train a network; without arguments, on the handwritten digits that scikit-learn ships",
    "evaluate": "accuracy, cost, and precision and recall of each class, of a model on labelled data",
    "predict": "the class of each row, one a line, or the probabilities of all classes as CSV",
    "export": "a model for other programs: an ONNX file, or its arrays as npz",
    "plot": "pictures of a run: learning curves, confusion matrix, calibration, worst mistakes (the extra plot)",
    "info": "versions, devices, and what device 'auto' chooses here; or what a model is of",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


class _CommandParser(_Parser):
    """The parser of one command, which learns its arguments when there is something to parse."""

    module = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module:
            module, self.module = import_module(self.module), ""
            module.add_arguments(self)
            self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(prog="gpu-nn", description="Train neural-network classifiers with an exact cost, on a GPU or a CPU.")
    top.add_argument("--version", action="version", version=f"gpu_nn {__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="|".join(_COMMANDS), parser_class=_CommandParser
    )
    for name, help in _COMMANDS.items():
        commands.add_parser(name, help=help, description=help).module = f"{__name__}.{name}"
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(arguments)
    import numpy as np  # not needed to say how the command is used

    try:
        # Numbers out of range show in the loss, which is checked; NumPy's warnings would only say it less well.
        with np.errstate(all="ignore"):
            options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as `| head` does; there is nobody left to tell.
        _give_up_stdout()
        return 1
    except Interrupted as error:
        return _failed(options, error, _SIGNALLED + error.signum)
    except KeyboardInterrupt:
        return _failed(options, "interrupted", _SIGNALLED + signal.SIGINT)
    except DataError as error:
        return _failed(options, error, DATA)
    except OSError as error:
        _give_up_stdout()
        return _failed(options, error, DATA)
    except DeviceError as error:
        return _failed(options, error, DEVICE)
    except TrainingDiverged as error:
        return _failed(options, error, DIVERGED)
    except (ValueError, TypeError) as error:
        return _failed(options, error, USAGE)
    except MemoryError:
        hint = "; a smaller --batch-size or --hidden needs less" if options.command == "train" else ""
        return _failed(options, f"out of memory{hint}", DATA)
    return 0


def _give_up_stdout() -> None:
    """Leave nothing there that Python would try to write again at its end, and fail to with lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(options: argparse.Namespace, error: object, code: int) -> int:
    print(f"gpu-nn {options.command}{getattr(options, 'rank', '')}: {one_line(error)}", file=sys.stderr)
    return code
