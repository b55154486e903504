"""Ranks train as one process does, to the same bits where they are bound to, and what ends one ends all."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.programs import PROGRAM, STREAMED

# Sums by layer, each as soon as its gradient is there, as between GPUs for wide layers.
BY_BUCKETS = """
from gpu_nn.distributed.mpi import MpiCommunicator
from gpu_nn.training import gradient_sync

MpiCommunicator.supports_overlap, gradient_sync._BUCKET_BYTES = True, 1
try:
    PROGRAM
finally:
    MpiCommunicator.supports_overlap, gradient_sync._BUCKET_BYTES = False, 16 << 20
""".replace("PROGRAM", PROGRAM.replace("\n", "\n    "))


@pytest.fixture
def trained(on_ranks, tmp_path):
    """What a program leaves that so many ranks run, or, for 0, one process alone."""

    def trained(size, program, *arguments):
        out = tmp_path / ("alone.npz" if size == 0 else f"{size}.npz")
        done = on_ranks(max(size, 1), (program, [*arguments, out]))
        assert [(code, err) for code, _, err in done] == [(0, "")] * max(size, 1)
        return dict(np.load(out))

    return trained


def test_two_and_four_ranks_learn_the_bits_that_one_process_learns(trained):
    alone = trained(0, PROGRAM, "float64", 203, 4)
    for size in (2, 4):
        found = trained(size, PROGRAM, "float64", 203, 4)
        assert found["parameters"].tobytes() == alone["parameters"].tobytes()
        np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-13)


def test_sums_by_buckets_give_the_bits_of_one_sum(trained):
    """Batches of 67 rows leave 2 for the last, of which two of four ranks have none."""
    one_sum = trained(4, PROGRAM, "float64", 67, 4)
    by_buckets = trained(4, BY_BUCKETS, "float64", 67, 4)
    for name, array in one_sum.items():
        assert by_buckets[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [2, 3])
def test_small_batches_and_a_short_last_one_train_to_rounding(trained, size):
    """203 rows in batches of 32 leave 11, which no number of ranks here divides."""
    alone = trained(0, PROGRAM, "float64", 32, 1)
    found = trained(size, PROGRAM, "float64", 32, size)
    np.testing.assert_allclose(found["parameters"], alone["parameters"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-9)
    single = trained(size, PROGRAM, "float32", 32, size)
    np.testing.assert_allclose(single["losses"], alone["losses"], rtol=1e-4)


RESUMED = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group
from gpu_nn.training import Checkpoints, Trigger
from gpu_nn.distributed.communicator import SINGLE_PROCESS

begins_with, out = sys.argv[1:]
communicator, device = (SINGLE_PROCESS, "cpu") if out.endswith("alone.npz") else init_process_group()
with communicator:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((203, 7)), random.integers(0, 5, 203)
    net = gpu_nn.Network([7, 16, 5], activation="tanh", device=device, dtype="float64")
    trainer = gpu_nn.Trainer(net, gpu_nn.Adam(1e-2), batch_size=32, micro_batches=4, communicator=communicator)
    if not begins_with:
        trainer.callbacks.append(Checkpoints("all", Trigger(steps=5), keep=100))
    trainer.fit(x, y, epochs=4, resume=begins_with or None)
    steps = trainer.optimizer.steps
    if communicator.rank == 0:
        np.savez(out, parameters=net.flat_parameters, steps=steps)
"""


def keep_tenth(folder: Path) -> None:
    """Of the checkpoints in "all" that after ten steps, in "tenth"."""
    (folder / "tenth").mkdir()
    (tenth,) = [path for path in (folder / "all").iterdir() if int(re.findall(r"\d+", path.name)[0]) == 10]
    tenth.rename(folder / "tenth" / tenth.name)


def test_a_checkpoint_of_one_process_resumes_in_mid_epoch_on_two_and_four_ranks_to_the_same_bits(trained, tmp_path):
    whole = trained(0, RESUMED, "")
    assert whole["steps"] == 4 * 7
    keep_tenth(tmp_path)
    for size in (2, 4):
        found = trained(size, RESUMED, "tenth")
        assert found["steps"] == whole["steps"]
        assert found["parameters"].tobytes() == whole["parameters"].tobytes()


def test_ranks_resume_with_the_dropout_that_was_due_though_some_had_no_rows_of_a_last_batch(trained, tmp_path):
    """Batches of 101 rows leave 1 of 203, and so none for three parts of four. A checkpoint has rank 0's counter."""
    layers = '[gpu_nn.Dense(16, "tanh"), gpu_nn.Dropout(0.3), gpu_nn.Dense(5)], n_inputs=7'
    program = RESUMED.replace('[7, 16, 5], activation="tanh"', layers).replace("batch_size=32", "batch_size=101")
    whole = trained(2, program, "")
    assert whole["steps"] == 4 * 3
    keep_tenth(tmp_path)
    assert trained(2, program, "tenth")["parameters"].tobytes() == whole["parameters"].tobytes()


def test_ranks_learn_of_a_stream_the_bits_that_one_process_learns_and_share_its_validation(trained):
    found = {size: trained(size, STREAMED) for size in (0, 2)}
    assert found[2]["parameters"].tobytes() == found[0]["parameters"].tobytes()
    for name in ("losses", "last"):
        np.testing.assert_allclose(found[2][name], found[0][name], rtol=1e-13)
    assert found[0]["rows"].tolist() == [4 * 151]
    assert found[2]["rows"].tolist() == [4 * 75, 4 * 76]


STREAM_WITH_A_BAD_ROW = """
import json
import numpy as np
import gpu_nn
from gpu_nn.data import stream
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group()
with communicator:
    x, y = np.zeros((40, 3)), np.arange(40) % 2
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, communicator=communicator)
    bad = np.where(np.arange(40)[:, None] == 35, np.nan, x)
    said = None
    try:
        trainer.fit(stream(x, y), epochs=1, validation=stream(bad, y))
    except gpu_nn.DataError as error:
        said = str(error)
    told = communicator.all_gather_object(said)
    if communicator.rank == 0:
        print(json.dumps(told))
"""


def test_a_row_that_one_rank_refuses_is_refused_by_all(on_ranks):
    done, _ = on_ranks(2, (STREAM_WITH_A_BAD_ROW, []))
    first, second = json.loads(done.out)
    assert first.startswith("rank 1: x: x[35, 0] is nan")
    assert second.startswith("x: x[35, 0] is nan")


INTERRUPTED_BETWEEN_EPOCHS = """
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group()
with communicator:
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    between = [lambda trainer, record: trainer.interrupt() if record.epoch == 2 else None]
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, communicator=communicator, callbacks=between)
    history = trainer.fit(x, y, epochs=5)
    found = communicator.all_gather_object([len(history), trainer.interrupted])
    if communicator.rank == 0:
        print(found)
"""


def test_an_interrupt_of_one_rank_between_epochs_ends_all(on_ranks):
    """Callbacks are rank 0's alone, so nobody else knows of it but through rank 0."""
    done, _ = on_ranks(2, (INTERRUPTED_BETWEEN_EPOCHS, []))
    assert done == (0, "[[2, True], [2, True]]\n", "")


STOPPED = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group
from gpu_nn.training import Callback, Trigger

class Stops(Callback):
    every = Trigger(steps=1)

    def begin(self, trainer):
        trainer.stopping = when == "begin"

    def __call__(self, trainer, record):
        if record.steps == 6:
            trainer.stopping = "stop" in when
            if "interrupt" in when:
                trainer.interrupt()

when = sys.argv[1]
communicator, device = init_process_group()
with communicator:
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, communicator=communicator, callbacks=[Stops()])
    history = trainer.fit(x, y, epochs=5)
    here = [len(history), trainer.optimizer.steps, trainer.stopping, trainer.interrupted]
    found = communicator.all_gather_object(here)
    if communicator.rank == 0:
        print(found)
"""


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("begin", [0, 0, True, False]),
        ("stop", [2, 8, True, False]),
        ("interrupt", [1, 7, False, True]),
        ("stop and interrupt", [1, 7, True, True]),
    ],
)
def test_what_a_callback_of_rank_0_ends_between_two_steps_ends_on_all_ranks(on_ranks, when, expected):
    """Of an interruption the others hear with the next step's sum."""
    done, _ = on_ranks(2, (STOPPED, [when]))
    assert done.err == ""
    assert json.loads(done.out.replace("True", "true").replace("False", "false")) == [expected, expected]


def test_ranks_that_would_draw_unlike_orders_of_rows_are_told_apart(on_ranks):
    program = """
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group()
with communicator:
    for shuffle in (False, True):
        net = gpu_nn.Network([3, 2], device=device)
        random = np.random.default_rng(communicator.rank)
        options = {"shuffle": shuffle, "seed": random, "communicator": communicator}
        trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, **options)
        trainer.fit(np.ones((40, 3)), np.arange(40) % 2, epochs=1)
        if communicator.rank == 0:
            print("shuffle:", shuffle)
"""
    first, second = on_ranks(2, (program, []))
    assert first.out == "shuffle: False\n"
    assert "rank 1 has state of the random numbers = " in first.err
    assert second == (1, "", "")
