"""Ranks over Gloo add up in the order of all others, and one that fails, dies or leaves is noticed by all of them."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from gpu_nn.distributed import gloo
from gpu_nn.distributed.environment import RendezvousAddress
from gpu_nn.errors import DeviceError
from tests.distributed.gloo.processes import Started, clean_environment
from tests.distributed.processes import mpi, ran
from tests.distributed.programs import PROGRAM, STREAMED, SUM_OF_EXTREMES

SECONDS = 30  # for all to end; generous, as this machine may be busy

MEET = """
import os, signal, sys, time
import numpy as np
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group("cpu")
print("ready", flush=True)
"""

SUMS = """
import sys
import ml_dtypes
import numpy as np
from gpu_nn.distributed import init_process_group

communicator, _ = init_process_group("cpu")
with communicator:
    found = []
    for dtype in ("float32", "float64", "int64", "uint8", "float16", ml_dtypes.bfloat16):
        for shape in ((), (0,), (3, 0), (7,), (2, 3), (126,), (64,), (1 << 20,)):
            random = np.random.default_rng(communicator.rank)
            own = np.array(100 + 9 * random.standard_normal(shape)).astype(dtype)
            every = communicator.all_gather_object(own.ravel()[:50].astype("float64").tolist())
            communicator.all_reduce(own)
            rows = [np.array(row).astype(dtype) for row in every]
            while len(rows) > 1:
                pairs = [rows[i] + rows[i + 1] for i in range(0, len(rows) - 1, 2)]
                rows = pairs + rows[len(rows) - len(rows) % 2:]
            assert own.ravel()[:50].tobytes() == rows[0].tobytes(), (dtype, shape)
            found.append(own.tobytes())
    if communicator.rank == 0:
        with open(sys.argv[1], "wb") as file:
            file.write(b"".join(found))
"""


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_sums_are_of_pairs_then_of_pairs_of_these_as_by_mpi(tmp_path, size):
    with Started(size, "-W", "error", "-c", SUMS, "gloo", cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * size
    if size < 5:
        done = ran(tmp_path, mpi(size, "-W", "error", "-c", SUMS, "mpi"), timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "gloo").read_bytes() == (tmp_path / "mpi").read_bytes()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sums_of_infinities_and_past_the_largest_number_warn_nobody(tmp_path, size):
    with Started(size, "-W", "error", "-c", SUM_OF_EXTREMES, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * size


@pytest.mark.parametrize(("program", "arguments"), [(PROGRAM, ["float64", 203, 4]), (STREAMED, [])], ids=["", "stream"])
def test_ranks_learn_the_bits_that_one_process_learns(tmp_path, program, arguments):
    found = []
    for size in (1, 2, 4) if program is PROGRAM else (1, 2):
        out = tmp_path / f"{size}.npz"
        with Started(size, "-W", "error", "-c", program, *arguments, out, cwd=tmp_path) as started:
            assert started.ended() == [(0, "")] * size
        found.append(dict(np.load(out)))
    for other in found[1:]:
        assert other["parameters"].tobytes() == found[0]["parameters"].tobytes()
        np.testing.assert_allclose(other["losses"], found[0]["losses"], rtol=1e-13)


def test_three_ranks_learn_by_gloo_the_bits_that_they_learn_by_mpi(tmp_path):
    """Batches of 67 rows, which three ranks do not share evenly, and a last one of 2."""
    arguments = ["-c", PROGRAM, "float32", 67, 3]
    with Started(3, *arguments, tmp_path / "gloo.npz", cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * 3
    done = ran(tmp_path, mpi(3, *arguments, tmp_path / "mpi.npz"), timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    by_gloo, by_mpi = (np.load(tmp_path / f"{name}.npz") for name in ("gloo", "mpi"))
    for name in ("parameters", "losses"):
        assert by_gloo[name].tobytes() == by_mpi[name].tobytes()


AT_WORK = [
    "while True: communicator.all_reduce(np.ones(10))",
    "while True: communicator.all_reduce(np.ones(1_000_000))",
]


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("at_work", AT_WORK, ids=["small", "large"])
def test_a_killed_rank_is_an_exception_on_the_others(tmp_path, victim, at_work):
    with Started(3, "-c", f"{MEET}with communicator:\n    {at_work}", cwd=tmp_path) as started:
        started.ready()
        started.processes[victim].kill()
        ended = started.ended(SECONDS)
    assert ended.pop(victim)[0] == -signal.SIGKILL
    for code, said in ended:
        assert code == 1
        assert re.search(r"DeviceError: rank \d of 3 lost rank \d: .*[Cc]onnection", said), said
    assert any(f"lost rank {victim}: " in said for _, said in ended)


HOW_ONE_ENDS = {
    "an exception": ("raise OSError('the disk is full')", 1, r"OSError: the disk is full\n.*on rank 1 of 3\n"),
    "exit 0": ("sys.exit()", 0, "^$"),
    "exit 0 at once": ("os._exit(0)", 0, "^$"),
    "exit 3": ("sys.exit(3)", 3, "^$"),
    "an interrupt": ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
}


@pytest.mark.parametrize("how", HOW_ONE_ENDS)
def test_a_rank_that_ends_alone_is_an_exception_on_the_others(tmp_path, how):
    end, code, said = HOW_ONE_ENDS[how]
    program = f"{MEET}with communicator:\n    if communicator.rank == 1: {end}\n"
    program += "    while True: communicator.all_reduce(np.ones(10))"
    with Started(3, "-c", program, cwd=tmp_path) as started:
        ended = started.ended(SECONDS)
    found = ended.pop(1)
    assert found[0] == code
    assert re.search(said, found[1])
    for code, said in ended:
        assert code == 1
        assert re.search(
            r"DeviceError: rank \d (of 3 lost rank \d: |has closed its communicator)",
            said,
        ), said
        assert "on rank" not in said


@pytest.mark.parametrize("victim", ["os.kill(os.getpid(), signal.SIGKILL)", "raise OSError('the disk is full')"])
def test_a_rank_that_ends_outside_the_block_is_an_exception_on_the_others(tmp_path, victim):
    program = f"{MEET}if communicator.rank == 1: {victim}\nwhile True: communicator.all_reduce(np.ones(10))"
    with Started(3, "-c", program, cwd=tmp_path) as started:
        ended = started.ended(SECONDS)
    assert ended.pop(1)[0] in (1, -signal.SIGKILL)
    for code, said in ended:
        assert code == 1
        assert "DeviceError: rank " in said


def test_a_slow_rank_is_waited_for(tmp_path):
    """The time that ranks have to connect is none that they have between sums."""
    slow = "from datetime import timedelta\nfrom gpu_nn.distributed import gloo\n"
    slow += "gloo._CONNECT_TIMEOUT = timedelta(seconds=2)"
    program = f"{slow}{MEET}with communicator:\n    time.sleep(5 * communicator.rank)\n"
    program += "    communicator.all_reduce(np.ones(1_000))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * 2


def test_a_child_that_a_rank_forked_is_no_rank(tmp_path):
    program = f"{MEET}child = os.fork()\nif not child:\n"
    program += "    communicator.close()\n    communicator.abort(OSError())\n    os._exit(7)\n"
    program += (
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\nwith communicator: communicator.all_reduce(np.ones(1))"
    )
    with Started(2, "-c", program, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * 2


def test_a_rank_that_is_interrupted_in_a_sum_is_an_exception_on_the_others(tmp_path):
    """In the middle of its messages: what it says on leaving would be taken for the rest of them."""
    interrupt = """
receive = type(communicator)._receive

def interrupted(self, other, rank):
    if self.rank == 1 and other.nbytes == 1:
        raise KeyboardInterrupt
    return receive(self, other, rank)

type(communicator)._receive = interrupted
"""
    program = f"{MEET}{interrupt}with communicator: communicator.all_reduce(np.ones(100_000))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        (first, said), (second, _) = started.ended(SECONDS)
    assert (first, second) == (1, -signal.SIGINT)
    assert "DeviceError: rank 0 of 2 lost rank 1: " in said


def test_after_a_sum_that_failed_there_is_none(tmp_path):
    """What is left of its messages would be taken for the next one's."""
    program = (
        MEET
        + """
with communicator:
    for size in (16, 16, 10_000):
        try:
            communicator.all_reduce(np.ones(10 ** (1 + 4 * communicator.rank) if size == 16 else size))
        except RuntimeError as error:
            last = error
    raise last
"""
    )
    with Started(2, "-c", program, cwd=tmp_path) as started:
        ended = started.ended(SECONDS)
    for rank, (code, said) in enumerate(ended):
        assert code == 1
        assert f"DeviceError: rank {rank} has failed in an exchange; it takes part in no more of them" in said


def test_a_program_may_destroy_all_groups_before_it_ends(tmp_path):
    program = f"{MEET}communicator.all_reduce(np.ones(1))\ntime.sleep(2)\n"  # a connection that is closed is reset
    program += "import torch.distributed\ntorch.distributed.destroy_process_group()"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * 2


def test_after_the_last_sum_there_is_none(tmp_path):
    program = f"{MEET}with communicator: pass\ncommunicator.all_reduce(np.ones(1))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        ended = started.ended()
    for rank, (code, said) in enumerate(ended):
        assert code == 1
        assert f"DeviceError: rank {rank} has closed its communicator; it takes part in no more exchanges" in said


def test_a_rank_that_leaves_before_the_others_is_an_exception_on_them(tmp_path):
    program = f"{MEET}with communicator:\n    if communicator.rank: communicator.all_reduce(np.ones(1))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        (first, _), (second, said) = started.ended()
    assert (first, second) == (0, 1)
    # What it said on leaving may be lost when it closes the connection.
    assert re.search("DeviceError: rank (0 has closed its communicator|1 of 2 lost rank 0: )", said), said


@pytest.mark.parametrize(
    "shapes", ["1 + communicator.rank", "10 ** (3 + communicator.rank)", "10 ** (1 + 4 * communicator.rank)"]
)
def test_arrays_of_unlike_sizes_are_told_apart(tmp_path, shapes):
    """Gloo itself would end the process that is sent more than it asked for."""
    program = f"{MEET}with communicator: communicator.all_reduce(np.ones({shapes}))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        ended = started.ended(SECONDS)
    assert [code for code, _ in ended] == [1, 1]
    unlike = r"DeviceError: rank [01] sent \d+ bytes where rank [01] sent \d+; all ranks must make"
    assert any(re.search(unlike, said) for _, said in ended)


AGAIN = """
import os, sys, threading
import numpy as np
from gpu_nn.distributed import init_process_group, is_raised_on_all_ranks

def held():
    return len(os.listdir("/proc/self/fd")), threading.active_count()

def trained(fails):
    communicator, device = init_process_group("cpu")
    with communicator:
        if f"rank {communicator.rank}" == fails:
            raise OSError("the disk is full")
        if fails == "all":
            with communicator.raise_on_all_ranks():
                raise ValueError("no such thing")
        found = np.ones(1)
        for _ in range(20):
            communicator.all_reduce(found)
        return found[0]

size = int(os.environ["WORLD_SIZE"])
expected = trained(None)
before = held()
for fails in ("rank 1", None, "all", "rank 0", None):
    try:
        assert trained(fails) == expected
    except (OSError, RuntimeError, ValueError) as error:
        assert is_raised_on_all_ranks(error) == (fails == "all")
    else:
        assert fails is None
assert held() == before, (before, held())
assert sys.excepthook is sys.__excepthook__
"""


def test_processes_that_live_on_meet_again_after_failures_and_keep_no_connections(tmp_path):
    """As the workers of Ray and Dask do."""
    with Started(3, "-W", "error", "-c", AGAIN, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * 3


@pytest.mark.slow
def test_clean_runs_say_nothing(tmp_path):
    for block, runs in (("with communicator:", 20), ("if True:", 5)):
        program = f"{MEET}{block} communicator.all_reduce(np.ones(1_000_000))"
        for _ in range(runs):
            with Started(3, "-W", "error", "-c", program, cwd=tmp_path) as started:
                assert started.ended() == [(0, "")] * 3


OF_THE_PROGRAM = """
import numpy as np
import torch.distributed as dist
from gpu_nn.distributed import init_process_group

dist.init_process_group("gloo")
for fails in (False, True, False):
    try:
        communicator, _ = init_process_group("cpu")
        with communicator:
            found = np.ones(1)
            communicator.all_reduce(found)
            assert found == dist.get_world_size()
            if fails:
                with communicator.raise_on_all_ranks():
                    raise ValueError("a bad row")
    except ValueError:
        assert fails
    dist.barrier()  # it is left standing
dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [1, 2])
def test_a_group_that_the_program_made_is_used_and_left_standing(tmp_path, size):
    with Started(size, "-W", "ignore", "-c", OF_THE_PROGRAM, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * size


def test_the_command_trains_and_reports_once(tmp_path):
    command = ["-m", "gpu_nn", "train", "--distributed", "--device", "cpu", "--epochs", 2, "--out", tmp_path / "run"]
    with Started(2, *command, cwd=tmp_path) as started:
        (first, said), (second, nothing) = started.ended()
    assert (first, second, nothing) == (0, 0, "")
    assert said.count("epoch 2") == 1
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--device", "cuda"], 4, "gpu-nn train: device='cuda', but "),
        (["--device", "cpu", "--data", "/absent.npz"], 3, "gpu-nn train: /absent.npz does not exist"),
    ],
)
def test_what_all_ranks_find_the_command_says_once(tmp_path, flags, code, said):
    command = ["-m", "gpu_nn", "train", "--distributed", *flags]
    with Started(2, *command, cwd=tmp_path, CUDA_VISIBLE_DEVICES="") as started:
        (first, told), (second, nothing) = started.ended()
    assert (first, second, nothing) == (code, 1, "")
    assert told.startswith(said)
    assert told.count("\n") == 1


FULL_DISK = """
import sys
from gpu_nn.cli import main
from gpu_nn.training import Trainer

train_epoch = Trainer._train_epoch

def failing(trainer, step):
    if trainer.communicator.rank == 1 and len(trainer.history) == 2:
        raise OSError("the disk is full")
    return train_epoch(trainer, step)

Trainer._train_epoch = failing
sys.exit(main(["train", "--distributed", "--device", "cpu"]))
"""


def test_what_one_rank_finds_the_command_says_with_its_number(tmp_path):
    with Started(2, "-c", FULL_DISK, cwd=tmp_path) as started:
        (first, lost), (second, said) = started.ended()
    assert (first, second) == (4, 3)
    assert said == "gpu-nn train (rank 1 of 2): the disk is full\n"
    assert re.fullmatch(r"gpu-nn train \(rank 0 of 2\): rank 0 of 2 lost rank 1: .*", lost.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_whose_rank_was_killed_goes_on_in_one_process(tmp_path, victim):
    run = tmp_path / "run"
    flags = ["--out", run, "--epochs", 400, "--early-stopping", 400, "--checkpoint-every", "20steps"]
    command = ["-m", "gpu_nn", "train", "--distributed", "--device", "cpu", *flags]
    with Started(2, *command, cwd=tmp_path) as started:
        until = time.monotonic() + 120
        while len(list((run / "checkpoints").glob("steps-*"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        started.processes[victim].kill()
        codes = [code for code, _ in started.ended(SECONDS)]
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 4
    resume = [sys.executable, "-m", "gpu_nn", "train", "--resume", str(run)]
    done = subprocess.run(resume, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (run / "model.safetensors").exists()


class TestLocalRank:
    """The number among those of the same host, by its name where no launcher says it."""

    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch):
        monkeypatch.delenv("LOCAL_RANK", raising=False)

    def communicator(self, rank, hosts):
        found = object.__new__(gloo.GlooCommunicator)
        found.rank, found.all_gather_object = rank, lambda _: hosts
        return found

    def test_it_counts_lower_ranks_on_the_same_host(self):
        hosts = ["a", "b", "a", "b", "c"]
        assert [self.communicator(rank, hosts).local_rank() for rank in range(5)] == [0, 0, 1, 1, 0]

    def test_a_launcher_knows_it_better(self, monkeypatch):
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert self.communicator(0, ["a"]).local_rank() == 3


HERE = RendezvousAddress(0, 2, "127.0.0.1", 29400, "gpu_nn ", False)


def test_one_rank_alone_needs_neither_torch_nor_a_port(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert gloo.from_environment(HERE._replace(size=1)).size == 1


@pytest.mark.parametrize("module", ["torch", "torch.distributed"])
def test_without_torch_the_extra_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match=r"PyTorch, which cannot be loaded \(.*\): pip install 'gpu_nn\[ranks\]'$"):
        gloo.from_environment(HERE)


def test_a_torch_without_distributed_is_named(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="this PyTorch is built without"):
        gloo.from_environment(HERE)


def test_importing_torch_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(os, "environ", {"RANK": "0"})
    monkeypatch.setitem(sys.modules, "torch", torch)
    gloo.import_torch()
    assert os.environ == {"RANK": "0"}


def test_hosts_that_do_not_reach_each_other_are_told_of_the_interface(monkeypatch):
    """What is not known before, as of a firewall between them."""

    def refuse(*_, **__):
        raise RuntimeError(
            "Gloo connectFullMesh failed with [/gloo/transport/tcp/pair.cc:144] no error. Check the logs\nframes"
        )

    class Store:
        def set_timeout(self, timeout):
            pass

    monkeypatch.setattr(gloo.rendezvous, "open_store", lambda *_: Store())
    monkeypatch.setattr(torch.distributed, "init_process_group", refuse)
    with pytest.raises(DeviceError) as raised:
        gloo.from_environment(HERE)
    said = str(raised.value)
    assert re.match(r"rank 0 of 2 on \S+ did not connect to the others: Gloo connectFullMesh failed with ", said)
    assert "set GLOO_SOCKET_IFNAME on each host to the network interface that the other hosts reach" in said
    assert "\n" not in said


def test_the_reason_is_torchs_without_places_in_its_sources():
    error = RuntimeError("[/pytorch/gloo/pair.cc:553] Connection closed by peer [::1]:8583. This is typically")
    assert gloo.reason(error) == "Connection closed by peer [::1]:8583"
