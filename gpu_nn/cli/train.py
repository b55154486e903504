"""gpu-nn train: a new run, a resumed one, or a dry run."""

import argparse
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_nn import distributed
from gpu_nn.cli import SIGNAL_BASE, USAGE, Interrupted, SignalHandler, configuration, training_setup
from gpu_nn.cli.arguments import add_train_arguments
from gpu_nn.cli.input_data import DataSplits, read_splits
from gpu_nn.cli.output import print_result, print_stderr
from gpu_nn.cli.run_files import TestResult, read_test_result, steps_of
from gpu_nn.cli.run_folder import RunFolder, RunState, check_writable, locked
from gpu_nn.device import resolve_device
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.distributed.hosts import host_name
from gpu_nn.errors import DataError, TrainingDiverged
from gpu_nn.model_file import load
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training import History
from gpu_nn.training.checkpoint import Checkpoint

__all__ = ["add_train_arguments", "run_train"]


def run_train(options: argparse.Namespace) -> None:
    if not options.distributed:
        _check_single_process()
    path = options.out if options.resume is None else options.resume
    folder = None if path is None else RunFolder(path)
    if options.dry_run:
        # A dry run does not communicate: rank 0 alone prints it.
        if not (options.distributed and distributed.rank_and_world_size()[0]):
            _dry_run(options, folder)
        return
    try:
        _run(options, folder)
    except Exception as error:  # any, to be raised again: which rank prints it does not depend on its type
        rank, size = distributed.rank_and_world_size()
        if not distributed.is_raised_on_all_ranks(error):
            options.rank = f" (rank {rank} of {size})" if size > 1 else ""
        elif rank:
            distributed.exit_silently(distributed.EXIT_FAILURE)  # rank 0 prints the error
        raise


def _check_single_process() -> None:
    """Raises ValueError for several processes without --distributed: they would train apart and share one folder."""
    rank, size = distributed.rank_and_world_size()
    if size > 1:
        if rank:
            distributed.exit_silently(USAGE)
        raise ValueError(f"a launcher started {size} processes; expected --distributed, by which they train together")


def _run(options: argparse.Namespace, folder: RunFolder | None) -> None:
    communicator, signals = SINGLE_PROCESS, SignalHandler()
    if options.distributed:
        communicator, device = distributed.init_process_group(options.device or "auto")
        options.device = device.name
    try:
        with signals.installed(), communicator:
            if options.resume is None:
                _start(options, folder, signals, communicator)
            elif folder is not None:
                _resume(options, folder, signals, communicator)
    except Interrupted as error:
        if communicator.rank:
            raise SystemExit(SIGNAL_BASE + error.signum) from None  # rank 0 prints the error
        if folder is None or folder.state is not RunState.UNFINISHED:
            raise
        raise Interrupted(error.signum, f"interrupted; {folder.resume_command} continues the run") from None


def _dry_run(options: argparse.Namespace, folder: RunFolder | None) -> None:
    """Make all checks that a training makes before its first step, and write nothing."""
    steps_done = 0
    if folder is None or options.resume is None:
        settings = configuration.new_run_settings(options)
        if folder is not None:
            folder.check_can_start()
    else:
        saved = folder.read_settings()
        settings = configuration.resumed_settings(options, saved, folder.path, folder.new_run_command)
        if folder.state is RunState.FINISHED and settings.epochs == saved.epochs:
            epochs = len(folder.read_history())
            text = f"the run in {folder.path} is finished after {epochs:,} epochs: nothing would be trained\n"
            print_result(options.json, {"dry_run": True, "finished": True, "epochs": epochs}, text)
            return
        checkpoint, messages = folder.resume_point(more_epochs=settings.epochs > saved.epochs)
        steps_done = 0 if checkpoint is None else steps_of(checkpoint)
        for message in messages:
            print_stderr(message)
    _check_logs(settings, options.config, folder)
    data, optimizer, net = _prepare(settings)
    training_setup.make_callbacks(settings, folder)
    training_setup.print_dry_run(net, optimizer, settings, data, steps_done, options.json)


def _start(
    options: argparse.Namespace, folder: RunFolder | None, signals: SignalHandler, communicator: Communicator
) -> None:
    with ExitStack() as stack:
        with communicator.raise_on_all_ranks():
            settings = configuration.new_run_settings(options)
            if communicator.rank == 0:
                _check_logs(settings, options.config, folder)
            if folder is not None and communicator.rank == 0:
                stack.enter_context(folder.start(settings))
        _train(settings, folder, None, signals, options.json, communicator)


def _resume(options: argparse.Namespace, folder: RunFolder, signals: SignalHandler, communicator: Communicator) -> None:
    with ExitStack() as stack:
        with communicator.raise_on_all_ranks():
            saved, state = folder.read_settings(), folder.state
            settings = configuration.resumed_settings(options, saved, folder.path, folder.new_run_command)
            if state is RunState.FINISHED and settings.epochs == saved.epochs:
                if communicator.rank == 0:
                    _report_finished(saved, folder, options.json)
                return
            if communicator.rank == 0:
                _check_logs(settings, options.config, folder)
                stack.enter_context(locked(folder.path))
                if (folder.read_settings(), folder.state) != (saved, state):
                    raise DataError(f"another process has just changed {folder.path}; try again")
            checkpoint, messages = folder.resume_point(more_epochs=settings.epochs > saved.epochs)
        with communicator.raise_on_all_ranks():
            # All ranks have read the folder: rank 0 may change it.
            if communicator.rank == 0:
                for message in messages:
                    print_stderr(message)
                new = copy(settings)
                if communicator.size > 1:
                    # The run keeps its device: that of a rank is its own.
                    new.device = saved.device
                elif settings.device != saved.device:
                    print_stderr(f"the run was on {saved.device} and is on {settings.device} now: its bits may differ")
                if new != saved:
                    stack.enter_context(folder.checkpoints.resume(new))
        _train(settings, folder, checkpoint, signals, options.json, communicator)


def _prepare(settings: argparse.Namespace) -> tuple[DataSplits, Optimizer, Network]:
    resolve_device(settings.device)  # an error for a missing device precedes those of the data
    data = read_splits(settings)
    return data, training_setup.make_optimizer(settings, data), training_setup.make_network(settings, data)


def _train(
    settings: argparse.Namespace,
    folder: RunFolder | None,
    checkpoint: Checkpoint | None,
    signals: SignalHandler,
    as_json: bool,
    communicator: Communicator,
) -> None:
    with communicator.raise_on_all_ranks():
        data, optimizer, net = _prepare(settings)
    # Each rank describes itself, so that the process that a launcher names in an error can be found.
    processes = []
    if communicator.size > 1:
        processes = communicator.all_gather_object([os.getpid(), host_name(), net.device.name])
    if communicator.rank == 0:
        for rank, (process, host, name) in enumerate(processes):
            print_stderr(f"rank {rank}: process {process} on {host}, {name}")
        _print_task(settings, data, net)

    start = time.perf_counter()
    with communicator.raise_on_all_ranks():
        trainer = training_setup.make_trainer(net, optimizer, settings, communicator)
        progress: AbstractContextManager[Any] = nullcontext()
        if communicator.rank == 0:
            trainer.callbacks += training_setup.make_callbacks(settings, folder)
            progress = training_setup.show_progress(trainer, settings.epochs, data.rows[0])
    with progress, signals.training(trainer):
        data.fit(trainer, epochs=settings.epochs, resume=checkpoint, balanced=settings.class_weight == "balanced")
    seconds = time.perf_counter() - start
    test = TestResult(*data.evaluate_test(trainer), data.rows[2])
    if not math.isfinite(test.loss):
        # The last step may diverge: no training row has shown it since. All ranks have the same loss.
        raise communicator.mark_raised_on_all_ranks(TrainingDiverged(optimizer.steps, test.loss))
    if communicator.rank:
        return
    if folder is not None:
        folder.finish(net, trainer.history, test, {**trainer.data, "test": data.test_fingerprint()})
    _print_test(as_json, net.device.name, test, trainer.history, seconds, folder)


def _print_task(settings: argparse.Namespace, data: DataSplits, net: Network) -> None:
    n_training, n_validation, n_test = data.rows
    rows = f"{n_training} rows to train{' (streamed)' if settings.stream == 'always' else ''}"
    if n_validation:
        rows += f", {n_validation} to validate"
    if data.target is not None:
        print_stderr(f"target: column {data.target!r}")
    print_stderr(f"{rows}, {n_test} to test, {net.n_inputs} inputs, {net.n_classes} classes")
    print_stderr(f"{net.flat.n_parameters} parameters on {net.device}, {settings.dtype}")


def _report_finished(settings: argparse.Namespace, folder: RunFolder, as_json: bool) -> None:
    """Print the result of a finished run again."""
    print_stderr(f"the run in {folder.path} is finished")
    history, test = folder.read_history(), read_test_result(folder.history)
    if test is None:
        print_stderr("history.json has no test result: this one is on the data as they are now")
        data = read_splits(settings)
        net = load(folder.model, settings.device, settings.dtype)
        trainer = training_setup.make_trainer(net, training_setup.make_optimizer(settings, data), settings)
        test = TestResult(*data.evaluate_test(trainer), data.rows[2])
    _print_test(as_json, settings.device, test, history, sum(history.column("seconds")), folder)


def _print_test(
    as_json: bool, device: str, test: TestResult, history: History, seconds: float, folder: RunFolder | None
) -> None:
    accuracy = f"test accuracy {100 * test.accuracy:.2f} % on {test.rows} rows"
    text = f"{accuracy}, loss {test.loss:.4g}, {seconds:.2f} s on {device}\n"
    result = {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_rows": test.rows,
        "epochs": len(history),
        "seconds": round(seconds, 3),
        "device": device,
        "model": None if folder is None else str(folder.model),
        "history": [asdict(record) for record in history.epochs],
    }
    print_result(as_json, result, text if folder is None else f"{text}model: {folder.model}\n")


def _check_logs(settings: argparse.Namespace, config: str | None, folder: RunFolder | None) -> None:
    """Check the paths of --log and --tensorboard before anything is written.

    config: the file of --config. folder: of the run. Raises ValueError for a log that would overwrite a file of the
    data, of the settings, of the run, or another log; DataError, which names the flag, for a path that is not writable.
    """
    used = [*_input_files(settings, config), *(() if folder is None else folder.files)]
    for path in map(Path, settings.log or ()):
        for file, description in used:
            if _is_same_file(path, file):
                raise ValueError(f"--log {path} is {description}, which it would overwrite; choose another file")
        used.append((path, "another log"))
        is_made_by_run = folder is not None and path.parent.resolve() in folder.created_folders
        if not (path.parent.exists() or is_made_by_run):
            raise DataError(f"--log {path} cannot be written: No such file or directory; choose another folder")
        if path.is_dir():
            raise DataError(f"--log {path} is a folder; choose a file's name")
        check_writable(path.parent, f"--log {path}")
    if settings.tensorboard is not None:
        check_writable(Path(settings.tensorboard), f"--tensorboard {settings.tensorboard}")


def _input_files(settings: argparse.Namespace, config: str | None) -> Iterator[tuple[Path, str]]:
    for flag, name in (("--data", settings.data), ("--target", settings.target), ("--config", config)):
        if name is not None and Path(name).is_file():
            yield Path(name), f"the file of {flag}"
        elif name is not None and flag == "--data" and Path(name).is_dir():
            yield from ((file, "a file of --data") for file in Path(name).iterdir())


def _is_same_file(one: Path, other: Path) -> bool:
    """Compares through links, and also files that do not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one.resolve() == other.resolve()
