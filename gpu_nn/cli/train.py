"""gpu-nn train"""

import argparse
import math
import os
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import copy
from functools import partial
from typing import Any

from gpu_nn import distributed
from gpu_nn.cli import USAGE, assembly, configuration, dry_run
from gpu_nn.cli.interruption import Interrupted, Interruption
from gpu_nn.cli.lock import locked
from gpu_nn.cli.logs import check_logs
from gpu_nn.cli.parts import read_parts
from gpu_nn.cli.progress import shown
from gpu_nn.cli.report import Tested, report
from gpu_nn.cli.results import keep_silent, say
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.cli.run_history import read_tested, steps_of
from gpu_nn.cli.train_flags import add_arguments
from gpu_nn.device import resolve_device
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.distributed.hosts import host_name
from gpu_nn.errors import DataError, TrainingDiverged
from gpu_nn.model_file import load
from gpu_nn.training.checkpoint import Checkpoint


def run(options: argparse.Namespace) -> None:
    if not options.distributed:
        _refuse_many()
    place = options.out if options.resume is None else options.resume
    folder = None if place is None else RunFolder(place)
    if options.dry_run:
        # Nothing is summed: one of the ranks says it.
        if not (options.distributed and distributed.rank_and_world_size()[0]):
            _check(options, folder)
        return
    try:
        _run(options, folder)
    except Exception as error:  # any, to be raised again: which rank says it does not depend on its kind
        rank, size = distributed.rank_and_world_size()
        if not distributed.is_raised_on_all_ranks(error):
            options.rank = f" (rank {rank} of {size})" if size > 1 else ""
        elif rank:
            distributed.exit_silently(distributed.EXIT_FAILURE)  # rank 0 says it
        raise


def _run(options: argparse.Namespace, folder: RunFolder | None) -> None:
    communicator, interruption = SINGLE_PROCESS, Interruption()
    if options.distributed:
        communicator, device = distributed.init_process_group(options.device or "auto")
        options.device = device.name
    try:
        with interruption.caught(), communicator:
            if options.resume is None:
                _begin(options, folder, interruption, communicator)
            elif folder is not None:
                _resume(options, folder, interruption, communicator)
    except Interrupted as error:
        if communicator.rank:
            raise SystemExit(128 + error.signum) from None  # rank 0 says it
        if folder is None or not folder.is_unfinished:
            raise
        raise Interrupted(error.signum, f"interrupted; {folder.resume_command} goes on") from None


def _refuse_many() -> None:
    """Trainings that know nothing of each other would write one folder."""
    rank, size = distributed.rank_and_world_size()
    if size > 1:
        if rank:
            distributed.exit_silently(USAGE)
        raise ValueError(f"a launcher started {size} processes; expected --distributed, by which they train together")


def _check(options: argparse.Namespace, folder: RunFolder | None) -> None:
    """Everything that would come before the first step, but for what writes."""
    steps_done = 0
    if folder is None or options.resume is None:
        settings = configuration.resolved(options, add_arguments)
        if folder is not None:
            folder.check_can_begin()
    else:
        saved = folder.settings(add_arguments)
        settings = configuration.gone_on(options, saved, folder.path, folder.anew, add_arguments)
        if folder.is_finished and settings.epochs == saved.epochs:
            dry_run.report_finished(folder, options.json)
            return
        checkpoint, damages = folder.state(goes_further=settings.epochs > saved.epochs)
        steps_done = 0 if checkpoint is None else steps_of(checkpoint)
        for damage in damages:
            say(damage)
    check_logs(settings, options.config, folder)
    device, data = resolve_device(settings.device), read_parts(settings)
    optimizer, net = assembly.optimizer(settings, data), assembly.network(settings, data)
    assembly.callbacks(settings, folder)
    dry_run.report(net, optimizer, settings, data, str(device), steps_done, options.json)


def _begin(
    options: argparse.Namespace, folder: RunFolder | None, interruption: Interruption, communicator: Communicator
) -> None:
    with ExitStack() as until_done:
        with communicator.raise_on_all_ranks():
            settings = configuration.resolved(options, add_arguments)
            if communicator.rank == 0:
                check_logs(settings, options.config, folder)
            if folder is not None and communicator.rank == 0:
                until_done.enter_context(folder.begun(partial(configuration.write, settings=settings)))
        _train(settings, folder, None, interruption, options.json, communicator)


def _resume(
    options: argparse.Namespace, folder: RunFolder, interruption: Interruption, communicator: Communicator
) -> None:
    with ExitStack() as until_done:
        with communicator.raise_on_all_ranks():
            saved, finished = folder.settings(add_arguments), folder.is_finished
            settings = configuration.gone_on(options, saved, folder.path, folder.anew, add_arguments)
            if finished and settings.epochs == saved.epochs:
                if communicator.rank == 0:
                    say(f"the run in {folder.path} is finished")
                    _report_finished(saved, folder, options.json)
                return
            if communicator.rank == 0:
                check_logs(settings, options.config, folder)
                until_done.enter_context(locked(folder.path))
                if (folder.settings(add_arguments), folder.is_finished) != (saved, finished):
                    raise DataError(f"another process has just been at work in {folder.path}; ask again")
            checkpoint, damages = folder.state(goes_further=settings.epochs > saved.epochs)
        with communicator.raise_on_all_ranks():
            # By now all ranks have read what the folder held before.
            if communicator.rank == 0:
                for damage in damages:
                    say(damage)
                kept = copy(settings)
                if communicator.size > 1:
                    # The device of a rank is not that of the run.
                    kept.device = saved.device
                elif settings.device != saved.device:
                    say(f"the run was on {saved.device} and is on {settings.device} now: its bits may differ")
                if kept != saved:
                    until_done.enter_context(folder.checkpoints.gone_on(partial(configuration.write, settings=kept)))
        _train(settings, folder, checkpoint, interruption, options.json, communicator)


def _train(
    settings: argparse.Namespace,
    folder: RunFolder | None,
    checkpoint: Checkpoint | None,
    interruption: Interruption,
    as_json: bool,
    communicator: Communicator,
) -> None:
    with communicator.raise_on_all_ranks():
        device = resolve_device(settings.device)
        data = read_parts(settings)
        optimizer, net = assembly.optimizer(settings, data), assembly.network(settings, data)
    tell = say if communicator.rank == 0 else keep_silent
    if communicator.size > 1:
        # A launcher names the process that died.
        for rank, (process, host, name) in enumerate(
            communicator.all_gather_object([os.getpid(), host_name(), device.name])
        ):
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
    tell(f"{net.flat.n_parameters} parameters on {device}, {settings.dtype}")

    began = time.perf_counter()
    with communicator.raise_on_all_ranks():
        trainer = assembly.trainer(net, optimizer, settings, communicator)
        progress: AbstractContextManager[Any] = nullcontext()
        if communicator.rank == 0:
            trainer.callbacks += assembly.callbacks(settings, folder)
            progress = shown(trainer, settings.epochs, data.rows[0])
    with progress, interruption.training(trainer):
        data.fit(trainer, epochs=settings.epochs, resume=checkpoint, balanced=settings.class_weight == "balanced")
    seconds = time.perf_counter() - began
    tested = Tested(*data.tested(trainer), n_test)
    if not math.isfinite(tested.loss):
        # The last step can do this: the training has met no row since. The loss is that of all ranks.
        raise communicator.mark_raised_on_all_ranks(TrainingDiverged(optimizer.steps, tested.loss))
    if communicator.rank:
        return
    if folder is not None:
        folder.finish(net, trainer.history, tested, {**trainer.data, "test": data.test_fingerprint()})
    report(as_json, device.name, tested, trainer.history, seconds, None if folder is None else folder.model)


def _report_finished(settings: argparse.Namespace, folder: RunFolder, as_json: bool) -> None:
    """What the run reported when it was finished."""
    history, tested = folder.read_history(), read_tested(folder.history)
    if tested is None:
        say("it kept no result of its test: this is on the data as they are now")
        data = read_parts(settings)
        net = load(folder.model, settings.device, settings.dtype)
        trainer = assembly.trainer(net, assembly.optimizer(settings, data), settings)
        tested = Tested(*data.tested(trainer), data.rows[2])
    report(as_json, settings.device, tested, history, sum(history.column("seconds")), folder.model)
