"""The types of command-line values, the flags that several commands share, and the flags of `gpu-nn train`.

A type rejects a wrong value before any work is done and says what it expects.
"""

import argparse
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_nn.data.datasets import TEST_FRACTION
from gpu_nn.errors import not_one_of
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import NORMALISATIONS
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.precision import DTYPE_ALIASES, PRECISIONS
from gpu_nn.schedules import Constant, Cosine, ReduceOnPlateau, Schedule, Step
from gpu_nn.training import Trigger
from gpu_nn.validation import Interval

# The kernels count columns in 32 bits.
_MAX_WIDTH = 2**31 - 1

# Units of intervals other than a Trigger's own: its field, and the factor.
_UNITS = {"": ("epochs", 1), "s": ("seconds", 1), "m": ("seconds", 60), "h": ("seconds", 3600)}


@dataclass(frozen=True)
class ArgumentType:
    """The type of a flag's value: the `type` of an argparse argument, and of the key in a configuration file.

    parse: raises ArgumentTypeError for text that is no such value.  toml_types, description: the types that a
    configuration file may use for it, and their name in errors.  separator: joins the entries of a TOML list to the
    text of one flag; None where the flag is repeated for each entry.
    """

    parse: Callable[[str], Any]
    toml_types: tuple[type, ...]
    description: str
    separator: str | None = None

    def __call__(self, text: str) -> Any:
        return self.parse(text)


TEXT = ArgumentType(str, (str,), "text")
_COLUMN = ArgumentType(str, (str, int), "a column's name or number, or a file")


def integer(low: int, high: int | None = None) -> ArgumentType:
    """A whole number from low to high, both included."""
    bounds = f"≥ {low}" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise ArgumentTypeError(f"{text!r}; expected a whole number {bounds}")
        return value

    return ArgumentType(parse, (int,), "a whole number")


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> ArgumentType:
    """A finite number from low to high; above, below: exclude low, high itself."""
    allowed = Interval(low, high, above, below)

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if value not in allowed:
            raise ArgumentTypeError(f"{text!r}; expected {allowed}")
        return value

    return ArgumentType(parse, (int, float), "a number")


def one_of(names: Iterable[str], synonyms: Mapping[str, str] | None = None) -> ArgumentType:
    """One of the names; the error suggests the nearest. synonyms: other words for a name, for that suggestion."""
    known = tuple(names)

    def parse(text: str) -> str:
        if text not in known:
            raise ArgumentTypeError(not_one_of(text, known, synonyms))
        return text

    return ArgumentType(parse, (str,), "a name")


def file_name(*suffixes: str) -> ArgumentType:
    """A file's name that ends in one of the suffixes."""

    def parse(text: str) -> str:
        if not text.endswith(suffixes):
            raise ArgumentTypeError(f"{text!r}; expected a name that ends in {' or '.join(suffixes)}")
        return text

    return ArgumentType(parse, (str, list), "a file's name or a list of them")


def _parse_widths(text: str) -> list[int]:
    width = integer(1, _MAX_WIDTH)
    try:
        return [width(entry) for entry in text.split(",")] if text.strip() else []
    except ArgumentTypeError:
        expected = f"whole numbers from 1 to {_MAX_WIDTH}, such as 256,128"
        raise ArgumentTypeError(f"{text!r}; expected {expected}") from None


# Whole numbers such as 256,128; an empty text is an empty list.
widths = ArgumentType(_parse_widths, (int, list), "a list of whole numbers", ",")


def _every(fields: tuple[str, ...], expected: str, description: str) -> ArgumentType:
    def parse(text: str) -> Trigger:
        match = re.fullmatch(r"(\d{1,12}) *(\w*)", text, re.ASCII)
        field, factor = _UNITS.get(match[2], (match[2], 1)) if match else ("", 0)
        if not (match and field in fields and int(match[1])):
            raise ArgumentTypeError(f"{text!r}; expected {expected}")
        return Trigger(**{field: int(match[1]) * factor})

    return ArgumentType(parse, (int, str), description)


interval = _every(
    ("epochs", "steps", "seconds"),
    "epochs, steps or a time, such as 5, 500steps, 30s, 10m, 2h",
    "epochs, or a text such as 30s",
)
duration = _every(("epochs", "steps"), "epochs or steps, such as 2, 500steps", "epochs, or a text such as 500steps")


def flag_text(value: Any) -> str:
    """The value as it is written after its flag."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


# Flags of several commands

SOURCES = "npz, npy, CSV, Parquet or IDX"
TARGET_HELP = (
    "column with the labels, by name or number (default: target, label, class or y, else the last); for npy their file"
)
_STREAM_HELP = (
    "read npy and Parquet rows while they are used: auto, for data larger than half of the free memory; always; never"
)
_STREAM: dict[str, Any] = {"nargs": "?", "const": "always", "type": one_of(("auto", "always", "never"))}


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")


def add_data_arguments(
    parser: argparse.ArgumentParser,
    data_help: str,
    target_help: str,
    target_metavar: str = "COLUMN|FILE",
    required: bool = True,
) -> None:
    """--data, --target, --stream and --device."""
    parser.add_argument("--data", required=required, metavar="FILE|IDX-FOLDER", help=data_help)
    parser.add_argument("--target", metavar=target_metavar, help=target_help)
    parser.add_argument("--stream", default="auto", help=f"{_STREAM_HELP} (default auto)", **_STREAM)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")


# Flags of `gpu-nn train`, which are also the keys of a configuration file

# Each makes a schedule from the learning rate and the number of steps of the run.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, steps: Constant(lr),
    "cosine": Cosine,
    "step": lambda lr, steps: Step(lr, every=-(-steps // 3)),
    "exponential": lambda lr, steps: Step(lr, every=1, factor=0.01 ** (1 / steps)),
    "plateau": lambda lr, steps: ReduceOnPlateau(lr),
}

DEFAULTS: dict[str, Any] = {
    "stream": "auto",
    "hidden": [256],
    "activation": "relu",
    "dropout": 0.0,
    "input_noise": 0.0,
    "epochs": 50,
    "batch_size": 32,
    "optimizer": "adam",
    "schedule": "constant",
    "label_smoothing": 0.0,
    "complement_weight": 1.0,
    "seed": 0,
    "device": "auto",
    "dtype": "float32",
}
SGD_LR, LR = 0.1, 0.001
VALIDATION_FRACTION = 0.1
CHECKPOINT_EVERY = Trigger(seconds=60)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The default of every flag is None, so that flags that were given differ from defaults."""

    def add(flag: str, help: str, **options: Any) -> None:
        default = DEFAULTS.get(flag.removeprefix("--").replace("-", "_"))
        if default is not None:
            help = f"{help} (default {flag_text(default).removesuffix('.0')})"
        parser.add_argument(flag, help=help, **options)

    fraction = number(0, 1, above=True, below=True)
    config = "settings by the names of these flags, such as batch-size = 32; flags override the file"
    add("--config", config, metavar="FILE.toml")
    add("--data", f"{SOURCES}; default: the digits", metavar="FILE|IDX-FOLDER")
    add("--target", TARGET_HELP, type=_COLUMN, metavar="COLUMN|FILE")
    add("--stream", _STREAM_HELP, **_STREAM)
    add("--test-fraction", f"fraction of the rows to test on (default {TEST_FRACTION})", type=fraction)
    add("--test-last", "test on the last N rows instead", type=integer(1), metavar="N")
    default = f"(default none; with --early-stopping {VALIDATION_FRACTION})"
    add("--validation-fraction", f"fraction of the training rows to validate on {default}", type=fraction)
    add("--early-stopping", "stop after N epochs without a lower validation loss", type=integer(1), metavar="N")
    add("--hidden", "widths of the hidden layers", type=widths, metavar="256,128")
    add("--activation", "activation of the hidden layers", type=one_of(ACTIVATIONS))
    normalisation = "layer or batch normalisation before each activation (default none)"
    add("--normalisation", normalisation, type=one_of(NORMALISATIONS))
    add("--dropout", "dropout rate after each hidden layer", type=number(0, 1, below=True))
    add("--input-noise", "standard deviation of Gaussian noise on the standardized inputs", type=number(0))
    add("--epochs", "passes over the training rows", type=integer(0))
    add("--batch-size", "rows of an optimizer step", type=integer(1))
    add("--optimizer", ", ".join(OPTIMIZERS), type=one_of(OPTIMIZERS))
    add("--lr", f"learning rate (default {LR}, sgd {SGD_LR})", type=number(0))
    schedule = "schedule of the learning rate: constant; cosine, to 0; step, times 0.1 after each third of the run; "
    schedule += "exponential, to 0.01 of it; plateau, halved after 5 epochs without a lower loss (validation loss, if "
    schedule += "there is one)"
    add("--schedule", schedule, type=one_of(SCHEDULES))
    warm_up = "raise the learning rate linearly during the first epochs (2) or steps (500steps)"
    add("--warm-up", warm_up, type=duration, metavar="N")
    add("--weight-decay", "default: the optimizer's", type=number(0))
    add("--max-norm", "clip the gradient of a step to this norm", type=number(0, above=True))
    add("--label-smoothing", "fraction of each target that is spread over all classes", type=number(0, 1))
    add("--complement-weight", "weight of the ln(1-p) terms; 0 is the standard cross entropy", type=number(0))
    balanced = "balanced: weight each row by rows / (classes · rows of its class), as scikit-learn does"
    add("--class-weight", balanced, type=one_of(("balanced",)))
    seed = "seed of the split, the initial weights, the order of rows, dropout and noise"
    add("--seed", seed, type=integer(0, 2**32 - 1))
    add("--device", "auto, cpu, cuda, cuda:1")
    add("--dtype", ", ".join(PRECISIONS), type=one_of(PRECISIONS, DTYPE_ALIASES))
    add("--out", "write model.safetensors, history.json and config.toml to this folder", metavar="FOLDER")
    every = "save a checkpoint for --resume in FOLDER/checkpoints at this interval: epochs (5), steps (500steps) or a "
    every += f"time (30s, 2h); a finished run keeps the last one (default {CHECKPOINT_EVERY})"
    add("--checkpoint-every", every, type=interval, metavar="N")
    resume = "continue the run in FOLDER with its settings; --epochs may raise its epochs, --device change its device"
    add("--resume", resume, metavar="FOLDER")
    log = "write a line for each epoch to this file; may be repeated"
    add("--log", log, type=file_name(".csv", ".jsonl"), action="append", metavar="FILE.csv|FILE.jsonl")
    add("--tensorboard", "write TensorBoard events to this folder (the extra tensorboard)", metavar="FOLDER")
    distributed = "train as one of the ranks that mpiexec or torchrun started: each takes its shard of every batch"
    add("--distributed", distributed, action="store_true")
    add("--dry-run", "check everything, print what would be trained, and write nothing", action="store_true")
    add("--json", "print the result, with the history, as JSON", action="store_true")
