"""gpu-nn train"""

import argparse
import math
import os
import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any

from gpu_nn import distributed
from gpu_nn.cli import USAGE, configuration, dry_run
from gpu_nn.cli.interruption import Interrupted, Interruption
from gpu_nn.cli.logs import check_logs
from gpu_nn.cli.parts import Parts, read_parts
from gpu_nn.cli.results import keep_silent, print_json, say, to_stdout
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.cli.train_flags import add_arguments
from gpu_nn.device import resolve_device
from gpu_nn.errors import TrainingDiverged
from gpu_nn.layers import Dense, InputNoise, Layer, Standardize, hidden_layers
from gpu_nn.model_file import load
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer
from gpu_nn.training import (
    Callback,
    Checkpoints,
    CsvLog,
    EarlyStopping,
    EpochRecord,
    History,
    JsonLinesLog,
    TensorBoardLog,
    Trainer,
)
from gpu_nn.training.checkpoint import Checkpoint, newest, written_in
from gpu_nn.training.ranks import ALONE, Ranks


def run(options: argparse.Namespace) -> None:
    if not options.distributed:
        _refuse_many()
    place = options.out if options.resume is None else options.resume
    folder = None if place is None else RunFolder(place)
    if options.dry_run:
        _check(options, folder)
        return
    ranks = ALONE
    if options.distributed:
        ranks, device = distributed.connect(options.device or "auto")
        options.device = device.name
    interruption = Interruption()
    try:
        with interruption.caught(), distributed.together(ranks):
            if options.resume is None:
                _begin(options, folder, interruption, ranks)
            elif folder is not None:
                _resume(options, folder, interruption, ranks)
    except Interrupted as error:
        if ranks.rank:
            raise SystemExit(128 + error.signum) from None  # rank 0 says it
        if folder is None or not folder.is_unfinished:
            raise
        raise Interrupted(error.signum, f"interrupted; {folder.resume_command} goes on") from None


def _refuse_many() -> None:
    """Trainings that know nothing of each other would write one folder."""
    rank, size = distributed.launched()
    if size > 1:
        if rank:
            distributed.end_silently(USAGE)
        raise ValueError(f"a launcher started {size} processes; expected --distributed, by which they train together")


def _check(options: argparse.Namespace, folder: RunFolder | None) -> None:
    """Everything that would come before the first step, but for what writes."""
    if folder is None or options.resume is None:
        settings = configuration.resolved(options, add_arguments)
        if folder is not None:
            folder.check_can_begin()
    else:
        settings = folder.settings(add_arguments)
        configuration.check_agrees(options, settings, folder.path, add_arguments)
        if written_in(folder.checkpoints):
            newest(folder.checkpoints)
    check_logs(settings, options.config, folder)
    device, optimizer = resolve_device(settings.device), _optimizer(settings)
    data = read_parts(settings)
    net = _network(settings, data)
    _callbacks(settings, folder)
    dry_run.report(net, optimizer, settings, data, str(device), options.json)


def _begin(options: argparse.Namespace, folder: RunFolder | None, interruption: Interruption, ranks: Ranks) -> None:
    with ExitStack() as until_done:
        with ranks.agreed():
            settings = configuration.resolved(options, add_arguments)
            if ranks.rank == 0:
                check_logs(settings, options.config, folder)
            if folder is not None and ranks.rank == 0:
                until_done.enter_context(folder.begun(partial(configuration.write, settings=settings)))
        _train(settings, folder, None, interruption, options.json, ranks)


def _resume(options: argparse.Namespace, folder: RunFolder, interruption: Interruption, ranks: Ranks) -> None:
    with ranks.agreed():
        settings = folder.settings(add_arguments)
        if ranks.size > 1:
            settings.device = options.device
        configuration.check_agrees(options, settings, folder.path, add_arguments)
        if ranks.rank == 0:
            check_logs(settings, options.config, folder)
    if folder.is_finished:
        if ranks.rank == 0:
            say(f"the run in {folder.path} is finished")
            _report_finished(settings, folder, options.json)
        return
    checkpoint = None
    if written_in(folder.checkpoints):
        checkpoint, damages = newest(folder.checkpoints)
        for damage in damages:
            say(f"{damage}; the one before is used: {checkpoint.path.name}")
    else:
        say("no checkpoint was written yet: the run begins again")
    _train(settings, folder, checkpoint, interruption, options.json, ranks)


def _train(
    settings: argparse.Namespace,
    folder: RunFolder | None,
    checkpoint: Checkpoint | None,
    interruption: Interruption,
    as_json: bool,
    ranks: Ranks,
) -> None:
    with ranks.agreed():
        device = resolve_device(settings.device)
        optimizer = _optimizer(settings)
        data = read_parts(settings)
        net = _network(settings, data)
    tell = say if ranks.rank == 0 else keep_silent
    if ranks.size > 1:
        # A launcher names the process that died.
        for rank, (process, host, name) in enumerate(ranks.gathered([os.getpid(), gethostname(), device.name])):
            tell(f"rank {rank}: process {process} on {host}, {name}")
    n_training, n_validation, n_test = data.rows
    rows = [f"{n_training} rows to train", f"{n_test} to test"]
    if n_validation:
        rows.insert(1, f"{n_validation} to validate")
    if settings.stream == "always":
        rows[0] += " (streamed)"
    if data.target is not None:
        tell(f"target: column {data.target!r}")
    tell(f"{', '.join(rows)}, {net.n_inputs} inputs, {net.n_classes} classes")
    tell(f"{net.n_parameters} parameters on {device}, {settings.dtype}")

    began = time.perf_counter()
    with ranks.agreed():
        trainer, reports = _trainer(net, optimizer, data, settings, folder, ranks)
    with reports, interruption.training(trainer):
        data.fit(trainer, epochs=settings.epochs, resume=checkpoint)
    seconds = time.perf_counter() - began
    loss, accuracy = data.tested(trainer)
    if not math.isfinite(loss):
        # The last step can do this: the training has met no row since.
        raise TrainingDiverged(optimizer.steps, loss)
    if ranks.rank:
        return
    if folder is not None:
        folder.finish(net, trainer.history)
    model = None if folder is None else folder.model
    _report(as_json, device.name, accuracy, loss, n_test, trainer.history, seconds, model)


def _report_finished(settings: argparse.Namespace, folder: RunFolder, as_json: bool) -> None:
    """What the run reported when it was finished."""
    data = read_parts(settings)
    history = folder.read_history()
    trainer = Trainer(load(folder.model, settings.device, settings.dtype), _optimizer(settings), **_cost(settings))
    loss, accuracy = data.tested(trainer)
    seconds = sum(history.column("seconds"))
    _report(as_json, settings.device, accuracy, loss, data.rows[2], history, seconds, folder.model)


def _network(settings: argparse.Namespace, data: Parts) -> Network:
    layers: list[Layer] = [Standardize()]
    if settings.input_noise:
        layers.append(InputNoise(settings.input_noise))
    options = {"normalisation": settings.normalisation, "dropout": settings.dropout}
    net = Network(
        [*layers, *hidden_layers(settings.hidden, settings.activation, **options), Dense(len(data.classes))],
        n_inputs=data.n_inputs,
        device=settings.device,
        dtype=settings.dtype,
        seed=settings.seed,
    )
    net.classes = data.classes.tolist()
    if data.names is not None:
        net.feature_names, net.target_name = data.names, data.target
    for name, values in (("0.shift", data.shift), ("0.scale", data.scale)):
        net.state[name][...] = net.device.asarray(values, net.dtype)
    return net


def _optimizer(settings: argparse.Namespace) -> Optimizer:
    chosen: dict[str, Any] = {"max_norm": settings.max_norm, "lr": settings.lr}
    if settings.weight_decay is not None:
        chosen["weight_decay"] = settings.weight_decay
    if settings.optimizer == "sgd":
        chosen["momentum"] = 0.9
    return OPTIMIZERS[settings.optimizer](**chosen)


def _cost(settings: argparse.Namespace) -> dict[str, Any]:
    return {"label_smoothing": settings.label_smoothing, "complement_weight": settings.complement_weight}


def _trainer(
    net: Network,
    optimizer: Optimizer,
    data: Parts,
    settings: argparse.Namespace,
    folder: RunFolder | None,
    ranks: Ranks,
) -> tuple[Trainer, AbstractContextManager[Any]]:
    """The trainer, and the progress bar on a terminal or a line for each epoch elsewhere."""
    options = {"batch_size": settings.batch_size, "seed": settings.seed, "ranks": ranks, **_cost(settings)}
    trainer = Trainer(net, optimizer, **options)
    if ranks.rank:
        return trainer, nullcontext()
    trainer.callbacks += _callbacks(settings, folder)
    if not sys.stderr.isatty():
        trainer.callbacks.append(lambda _, record: say(record.line()))
        return trainer, nullcontext()
    from tqdm import tqdm

    bar = tqdm(total=settings.epochs * data.rows[0], unit="rows", unit_scale=True, dynamic_ncols=True)
    trainer.progress = bar.update
    trainer.callbacks.append(_Bar(bar, data.rows[0]))
    return trainer, bar


def _callbacks(settings: argparse.Namespace, folder: RunFolder | None) -> list[Callback]:
    callbacks: list[Callback] = []
    if settings.early_stopping is not None:
        callbacks.append(EarlyStopping(patience=settings.early_stopping))
    for path in settings.log or ():
        callbacks.append(CsvLog(path) if Path(path).suffix == ".csv" else JsonLinesLog(path))
    if settings.tensorboard is not None:
        try:
            callbacks.append(TensorBoardLog(settings.tensorboard))
        except ImportError as error:
            raise ValueError(f"--tensorboard: {error}") from None
    if folder is not None:
        callbacks.append(Checkpoints(folder.checkpoints, settings.checkpoint_every))
    return callbacks


class _Bar(Callback):
    """Sets the progress bar to where a training begins, and says what its epochs come to."""

    def __init__(self, bar: Any, rows: int):
        self.bar, self.rows = bar, rows

    def begin(self, trainer: Trainer) -> None:
        in_epoch = min(trainer.position.steps_in_epoch * trainer.batch_size, self.rows)
        self.bar.update(len(trainer.history) * self.rows + in_epoch)

    def __call__(self, trainer: Trainer, record: EpochRecord) -> None:
        self.bar.set_postfix_str(f"epoch {record.epoch}, loss {record.loss:.4g}")


def _report(
    as_json: bool,
    device: str,
    accuracy: float,
    loss: float,
    n_test: int,
    history: History,
    seconds: float,
    model: Path | None,
) -> None:
    if as_json:
        result = {
            "test_accuracy": accuracy,
            "test_loss": loss,
            "test_rows": n_test,
            "epochs": len(history),
            "seconds": round(seconds, 3),
            "device": device,
            "model": None if model is None else str(model),
            "history": [asdict(record) for record in history.epochs],
        }
        print_json(result)
        return
    said = f"test accuracy {100 * accuracy:.2f} % on {n_test} rows, loss {loss:.4g}, {seconds:.2f} s on {device}\n"
    to_stdout(said if model is None else f"{said}model: {model}\n")
