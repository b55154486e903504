"""gpu-nn train"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from gpu_nn.cli.arguments import number, one_of, whole, widths
from gpu_nn.data import DataSet, read, scaling
from gpu_nn.device import resolve_device
from gpu_nn.errors import DataError, TrainingDiverged
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import Dense, Dropout, Layer, Standardize
from gpu_nn.model_file import save, to_disk, whole_file
from gpu_nn.network import DTYPES, Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer
from gpu_nn.training import EpochRecord, Trainer

_MODEL, _HISTORY = "model.safetensors", "history.json"

HELP = "train a network; without arguments, on the handwritten digits that scikit-learn ships"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", metavar="FILE.npz|IDX-FOLDER", help="arrays x and y, or MNIST-like files; default: the digits")
    share = number(0, 1, above=True, below=True)
    add("--test-fraction", type=share, default=0.2, help="share of the rows to test on (default 0.2)")
    add("--test-last", type=whole(1), metavar="N", help="test on the last N rows instead")
    add("--hidden", type=widths, default=[256], metavar="256,128", help="widths of the hidden layers (default 256)")
    add("--activation", type=one_of(ACTIVATIONS), default="relu", help="of the hidden layers (default relu)")
    add("--dropout", type=number(0, 1, below=True), default=0.0, help="rate after each hidden layer (default 0)")
    add("--epochs", type=whole(0), default=50, help="passes over the training rows (default 50)")
    add("--batch-size", type=whole(1), default=32, help="rows of an optimizer step (default 32)")
    add("--optimizer", type=one_of(OPTIMIZERS), default="adam", help=f"{', '.join(OPTIMIZERS)} (default adam)")
    add("--lr", type=number(0), help="learning rate (default 0.001, sgd 0.1)")
    add("--weight-decay", type=number(0), help="default: the optimizer's")
    add("--max-norm", type=number(0, above=True), help="longest gradient of a step")
    add("--label-smoothing", type=number(0, 1), default=0.0)
    add("--complement-weight", type=number(0), default=1.0, help="weight of the ln(1-p) terms; 0 is the everyday loss")
    add("--seed", type=whole(0, 2**32 - 1), default=0)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    add("--dtype", type=one_of(DTYPES), default="float32", help=f"{', '.join(DTYPES)} (default float32)")
    add("--out", metavar="FOLDER", help="write model.safetensors and history.json there")
    add("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> None:
    with _output(options.out) as folder:
        _train(options, folder)


def _train(options: argparse.Namespace, folder: Path | None) -> None:
    device = resolve_device(options.device)
    optimizer = _optimizer(options)
    layers: list[Layer] = [Standardize()]
    for width in options.hidden:
        layers.append(Dense(width, options.activation))
        if options.dropout:
            layers.append(Dropout(options.dropout))
    data = read(options.data, options.test_fraction, options.test_last, options.seed)
    net = Network(
        [*layers, Dense(len(data.classes))],
        n_inputs=data.x.shape[1],
        device=device,
        dtype=options.dtype,
        seed=options.seed,
    )
    net.classes = data.classes.tolist()
    for name, values in zip(("0.shift", "0.scale"), scaling(data.x), strict=True):
        net.state[name][...] = net.device.asarray(values, net.dtype)
    _say(f"{len(data.x)} rows to train, {len(data.x_test)} to test, {net.n_inputs} inputs, {net.n_classes} classes")
    _say(f"{net.n_parameters} parameters on {device}")

    began = time.perf_counter()
    trainer, reports = _trainer(net, optimizer, data, options)
    with reports:
        trainer.fit(data.x, data.y, epochs=options.epochs)
    seconds = time.perf_counter() - began
    loss, accuracy = trainer.evaluate(net.prepare(data.x_test), net.device.asarray(data.y_test))
    if not math.isfinite(loss):
        # The last step can do this: the training has met no row since.
        raise TrainingDiverged(optimizer.steps, loss)
    if folder is not None:
        with whole_file(folder / _HISTORY) as file:
            file.write(trainer.history.to_json().encode())
            # There is room for it before the model is written: neither comes without the other.
            to_disk(file)
            save(net, folder / _MODEL)
    _report(options, device.name, accuracy, loss, len(data.x_test), seconds, folder)


def _optimizer(options: argparse.Namespace) -> Optimizer:
    chosen: dict[str, Any] = {"max_norm": options.max_norm}
    chosen["lr"] = options.lr if options.lr is not None else (0.1 if options.optimizer == "sgd" else 0.001)
    if options.weight_decay is not None:
        chosen["weight_decay"] = options.weight_decay
    if options.optimizer == "sgd":
        chosen["momentum"] = 0.9
    return OPTIMIZERS[options.optimizer](**chosen)


@contextmanager
def _output(path: str | None) -> Iterator[Path | None]:
    """The folder --out, made if need be and proved to be writable before any work is done.

    What was made is taken away again when the work fails.
    """
    if path is None:
        yield None
        return
    folder = Path(path)
    made: list[Path] = []
    try:
        try:
            for place in (*reversed(folder.parents), folder):
                if not place.exists():
                    place.mkdir()
                    made.append(place)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise DataError(f"--out {folder} cannot be written: {error.strerror}; choose another folder") from None
        for name in (_MODEL, _HISTORY):
            if (folder / name).is_dir():
                raise DataError(f"--out {folder} cannot be written: it holds a folder named {name}")
        yield folder
    except BaseException:
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()
        raise


def _trainer(
    net: Network, optimizer: Optimizer, data: DataSet, options: argparse.Namespace
) -> tuple[Trainer, AbstractContextManager[Any]]:
    """The trainer, and the progress bar on a terminal or a line for each epoch elsewhere."""
    trainer = Trainer(
        net,
        optimizer,
        batch_size=options.batch_size,
        seed=options.seed,
        label_smoothing=options.label_smoothing,
        complement_weight=options.complement_weight,
    )
    if not sys.stderr.isatty():
        trainer.callbacks.append(lambda _, record: _say(record.line()))
        return trainer, nullcontext()
    from tqdm import tqdm

    bar = tqdm(total=options.epochs * len(data.x), unit="rows", unit_scale=True, dynamic_ncols=True)

    def show(_: Trainer, record: EpochRecord) -> None:
        bar.set_postfix_str(f"epoch {record.epoch}, loss {record.loss:.4g}")

    trainer.progress = bar.update
    trainer.callbacks.append(show)
    return trainer, bar


def _report(
    options: argparse.Namespace,
    device: str,
    accuracy: float,
    loss: float,
    n_test: int,
    seconds: float,
    folder: Path | None,
) -> None:
    if options.json:
        result = {
            "test_accuracy": accuracy,
            "test_loss": loss,
            "test_rows": n_test,
            "epochs": options.epochs,
            "seconds": round(seconds, 3),
            "device": device,
            "model": None if folder is None else str(folder / _MODEL),
        }
        print(json.dumps(result))
        return
    print(f"test accuracy {100 * accuracy:.2f} % on {n_test} rows, loss {loss:.4g}, {seconds:.2f} s on {device}")
    if folder is not None:
        print(f"model: {folder / _MODEL}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
