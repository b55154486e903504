"""The flags of `gpu-nn train`, which are also the keys of a configuration file."""

import argparse
from typing import Any

from gpu_nn.cli import configuration
from gpu_nn.cli.arguments import (
    COLUMN,
    SOURCES,
    STREAM,
    STREAMED,
    TARGET,
    duration,
    file_name,
    interval,
    number,
    one_of,
    whole,
    widths,
)
from gpu_nn.cli.configuration import CHECKPOINT_EVERY, DEFAULTS, SGD_LR, VALIDATION_FRACTION
from gpu_nn.cli.schedule import SCHEDULES
from gpu_nn.data.datasets import TEST_FRACTION
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import NORMALISATIONS
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.precision import DTYPE_ALIASES, PRECISIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; those that were not given are None, so that a run's own settings are told from its defaults."""

    def add(flag: str, *, help: str = "", **options: Any) -> None:
        default = DEFAULTS.get(flag.removeprefix("--").replace("-", "_"))
        if default is not None:
            said = ",".join(map(str, default)) if isinstance(default, list) else f"{default}"
            help = f"{help} (default {said.removesuffix('.0')})".strip()
        parser.add_argument(flag, help=help, **options)

    file_help = "settings by the names of these flags, such as batch-size = 32; a flag that is given goes before them"
    add("--config", metavar="FILE.toml", help=file_help)
    share = number(0, 1, above=True, below=True)
    add("--data", metavar="FILE|IDX-FOLDER", help=f"{SOURCES}; default: the digits")
    add("--target", type=COLUMN, metavar="COLUMN|FILE", help=TARGET)
    add("--stream", nargs="?", const="always", type=STREAM, help=STREAMED)
    add("--test-fraction", type=share, help=f"share of the rows to test on (default {TEST_FRACTION})")
    add("--test-last", type=whole(1), metavar="N", help="test on the last N rows instead")
    held_out = f"share of the training rows to validate on (default none; with --early-stopping {VALIDATION_FRACTION})"
    add("--validation-fraction", type=share, help=held_out)
    add("--early-stopping", type=whole(1), metavar="N", help="stop after N epochs without a lower validation loss")
    add("--hidden", type=widths, metavar="256,128", help="widths of the hidden layers")
    add("--activation", type=one_of(ACTIVATIONS), help="of the hidden layers")
    add("--normalisation", type=one_of(NORMALISATIONS), help="before the activation: layer or batch (default none)")
    add("--dropout", type=number(0, 1, below=True), help="rate after each hidden layer")
    add("--input-noise", type=number(0), help="deviation of Gaussian noise on the inputs, which have deviation 1")
    add("--epochs", type=whole(0), help="passes over the training rows")
    add("--batch-size", type=whole(1), help="rows of an optimizer step")
    add("--optimizer", type=one_of(OPTIMIZERS), help=", ".join(OPTIMIZERS))
    add("--lr", type=number(0), help=f"learning rate (default {configuration.LR}, sgd {SGD_LR})")
    schedule = (
        "of the learning rate: constant; cosine, to 0; step, a tenth after each third of the run; exponential, to a "
    )
    schedule += "hundredth; plateau, half after 5 epochs without a lower loss, of validation if there is one"
    add("--schedule", type=one_of(SCHEDULES), help=schedule)
    warm_up = "begin with a learning rate that rises for so many epochs (2) or steps (500steps)"
    add("--warm-up", type=duration, metavar="N", help=warm_up)
    add("--weight-decay", type=number(0), help="default: the optimizer's")
    add("--max-norm", type=number(0, above=True), help="longest gradient of a step")
    add("--label-smoothing", type=number(0, 1), help="share of each target that goes to all classes")
    add("--complement-weight", type=number(0), help="weight of the ln(1-p) terms; 0 is the standard cross entropy")
    balanced = "balanced: a row weighs rows / (classes · rows of its class), as in MLPClassifier"
    add("--class-weight", type=one_of(("balanced",)), help=balanced)
    add("--seed", type=whole(0, 2**32 - 1), help="of the split, the weights, the order, dropout and noise")
    add("--device", help="auto, cpu, cuda, cuda:1")
    add("--dtype", type=one_of(PRECISIONS, DTYPE_ALIASES), help=", ".join(PRECISIONS))
    add("--out", metavar="FOLDER", help="write model.safetensors, history.json and config.toml there")
    every = "for --resume, save in FOLDER/checkpoints every so many epochs (5), steps (500steps) or so often (30s, 2h)"
    every += f"; when the run is finished the last one stays (default {CHECKPOINT_EVERY})"
    add("--checkpoint-every", type=interval, metavar="N", help=every)
    resume = "go on with the run in FOLDER, whose settings hold; with --epochs to more epochs, with --device elsewhere"
    add("--resume", metavar="FOLDER", help=resume)
    log = "write a line for each epoch there; may be given again"
    add("--log", type=file_name(".csv", ".jsonl"), action="append", metavar="FILE.csv|FILE.jsonl", help=log)
    add("--tensorboard", metavar="FOLDER", help="write events for TensorBoard there (the extra tensorboard)")
    ranks = "one of several ranks, which mpiexec or torchrun started: each takes its part of every batch"
    add("--distributed", action="store_true", help=ranks)
    add("--dry-run", action="store_true", help="check everything, say what would be trained, and write nothing")
    add("--json", action="store_true", help="print the result, with the history, as JSON")
