"""Ranks of MPI add up without warnings and end together, whatever ends one of them."""

import builtins
import os
import re
import sys

import pytest

from gpu_nn import distributed
from gpu_nn.errors import DeviceError
from tests.distributed.processes import environment, mpi, ran
from tests.distributed.programs import SUM_OF_EXTREMES


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sums_of_infinities_and_past_the_largest_number_warn_nobody(on_ranks, size):
    assert on_ranks(size, (SUM_OF_EXTREMES, [])) == [(0, "", "")] * size


MEET = """
import os, sys, time
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group()
"""
FIT = """
        net = gpu_nn.Network([4, 2], device=device)
        trainer = gpu_nn.Trainer(net, gpu_nn.Adam(), batch_size=8, communicator=communicator)
        trainer.fit(np.eye(40, 4), np.arange(40) % 2)
"""

LEFT = r"rank \d has closed its communicator.*; all ranks must make the same exchanges in the same order"
HOW_ONE_ENDS = {
    "an exception": ("raise OSError('the disk is full')", "rank 1 of 3 failed: the disk is full; all ranks end"),
    "exit 0": ("sys.exit()", LEFT),
    "a message": ("sys.exit('no data')", "no data"),
    "an interrupt": ("raise KeyboardInterrupt", LEFT),
    "a skipped fit": ("pass", LEFT),
    "SIGKILL": ("os.kill(os.getpid(), 9)", "signal 9"),
}


def one_ends(folder, size, block, end):
    program = f"{MEET}{block}\n    if communicator.rank == 1:\n        {end}\n    else:{FIT}"
    done = ran(folder, mpi(size, "-c", program), timeout=30)
    return done


@pytest.mark.parametrize("how", HOW_ONE_ENDS)
def test_a_rank_that_ends_alone_ends_all(tmp_path, how):
    end, told = HOW_ONE_ENDS[how]
    done = one_ends(tmp_path, 3, "with communicator:", end)
    assert done.returncode != 0
    assert re.search(told, done.stdout + done.stderr), done


def test_a_rank_that_ends_without_a_word_ends_all(tmp_path):
    """By mpiexec, which kills the others; MPICH's then says 0 or 9, by chance."""
    one_ends(tmp_path, 3, "with communicator:", "os._exit(0)")


@pytest.mark.parametrize("how", ["an exception", "exit 0", "a skipped fit"])
def test_a_rank_that_ends_alone_outside_the_block_ends_all_too(tmp_path, how):
    done = one_ends(tmp_path, 2, "if True:", HOW_ONE_ENDS[how][0])
    assert done.returncode != 0
    assert re.search(LEFT, done.stderr), done.stderr
    assert ("OSError: the disk is full" in done.stderr) == (how == "an exception")


def test_ranks_that_never_come_to_a_sum_end_with_one_that_exits_early(tmp_path):
    program = f"{MEET}gpu_nn.distributed._UNTIL_ALL_ENDED = 1.0\n"
    program += "with communicator:\n    if communicator.rank: sys.exit(3)\n    time.sleep(600)"
    assert ran(tmp_path, mpi(2, "-c", program), timeout=30).returncode != 0


def test_what_all_ranks_end_with_is_their_own(on_ranks):
    for end, code in (("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('no data')", 1), ("pass", 0)):
        told = "no data\n" if code == 1 else ""
        assert on_ranks(3, (f"{MEET}with communicator:\n    {end}", [])) == [(code, "", told)] * 3


def test_what_was_printed_before_the_end_is_not_lost(tmp_path):
    program = f"{MEET}print('epoch 7')\nwith communicator: assert communicator.rank == 0, 'a bad row'\ntime.sleep(600)"
    done = ran(tmp_path, mpi(2, "-c", program), timeout=30, PYTHONUNBUFFERED="")
    assert "epoch 7\n" in done.stdout
    assert "rank 1 of 2 failed: a bad row; all ranks end\n" in done.stderr


@pytest.mark.parametrize("sizes", ["1 + communicator.rank", "2 - communicator.rank"])
def test_arrays_of_unlike_sizes_are_told_apart(tmp_path, sizes):
    done = ran(
        tmp_path, mpi(2, "-c", f"{MEET}with communicator: communicator.all_reduce(np.ones({sizes}))"), timeout=30
    )
    assert done.returncode != 0
    unlike = r"rank \d of 2 failed: rank \d sent (\d+|more) bytes where rank \d sent \d+; all ranks must"
    assert re.search(unlike, done.stderr), done.stderr


def test_a_child_that_a_rank_forked_is_no_rank(on_ranks):
    program = f"{MEET}child = os.fork()\nif not child:\n    communicator.close()\n    os._exit(7)\n"
    program += (
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\nwith communicator: communicator.all_reduce(np.ones(1))"
    )
    assert on_ranks(2, (program, [])) == [(0, "", "")] * 2


@pytest.mark.parametrize("moment", ["end", "__call__"])
def test_a_divergence_that_no_other_rank_finds_ends_all_ranks(tmp_path, moment):
    program = f"""
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group
from gpu_nn.training import Callback, Trigger

class Limit(Callback):
    every = Trigger(steps=3)

    def {moment}(self, *arguments):
        raise gpu_nn.TrainingDiverged(3, float("inf"))

    if "{moment}" == "end":
        def __call__(self, trainer, record):
            trainer.interrupt()

communicator, device = init_process_group()
with communicator:
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, communicator=communicator, callbacks=[Limit()])
    trainer.fit(np.ones((40, 3)), np.arange(40) % 2, epochs=2)
    print("through")
"""
    done = ran(tmp_path, mpi(2, "-c", program), timeout=60)
    assert done.returncode != 0
    assert "rank 0 of 2 failed: the loss became inf at step 3" in done.stderr
    assert "through" not in done.stdout


def test_a_missing_mpi_is_told_once_a_host(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('no MPI here')")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = ran(tmp_path, mpi(3, "-m", "gpu_nn", "train", "--distributed"), PYTHONPATH=path)
    assert done.returncode != 0
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("gpu-nn train")]
    assert "(no MPI here): pip install 'gpu_nn[mpi]'" in told


def test_a_gpu_on_some_hosts_alone_is_told_with_the_rank_that_lacks_it(on_ranks):
    program = """
from gpu_nn import distributed
from mpi4py import MPI
if MPI.COMM_WORLD.Get_rank() == 0:
    cuda_unavailable_reason, distributed.cuda_unavailable_reason = distributed.cuda_unavailable_reason, lambda: ""
try:
    distributed.init_process_group()
finally:
    if MPI.COMM_WORLD.Get_rank() == 0:
        distributed.cuda_unavailable_reason = cuda_unavailable_reason
"""
    first, second = on_ranks(2, (program, []), CUDA_VISIBLE_DEVICES="")
    assert "rank 1 has a GPU = False, rank 0 has True" in first.err
    assert second == (1, "", "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'mpi4py'"), "No module named 'mpi4py'"),
        (ImportError("libmpi.so.12: cannot open shared object file\nmore"), "libmpi.so.12: cannot open shared object"),
    ],
)
def test_without_mpi_the_extra_is_named(monkeypatch, error, reason):
    original = builtins.__import__

    def failing(name, *arguments, **options):
        if name == "mpi4py":
            raise error
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", failing)
    monkeypatch.delitem(sys.modules, "mpi4py", raising=False)
    monkeypatch.setenv("PMI_RANK", "0")  # as mpiexec sets it
    with pytest.raises(DeviceError) as raised:
        distributed.init_process_group("cpu")
    assert reason in str(raised.value)
    assert str(raised.value).endswith("pip install 'gpu_nn[mpi]'")
    assert "more" not in str(raised.value)


def test_a_device_that_is_no_choice_for_ranks_is_named():
    with pytest.raises(ValueError, match="device='cuda:1'; expected auto, cpu or cuda: each rank takes the GPU of its"):
        distributed.init_process_group("cuda:1")
