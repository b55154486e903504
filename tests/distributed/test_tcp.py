"""Ranks that met by TCP add up, and a rank that fails or dies ends all of them within seconds."""

import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from gpu_nn.distributed.tcp import TcpRanks
from tests.distributed.ports import free_port
from tests.distributed.test_training import PROGRAM, STREAMED, SUM_OF_EXTREMES, environment

SECONDS = 15  # generous: this machine may be busy


class Started:
    """Processes with the environment that torchrun, Ray's or Dask's programs set."""

    def __init__(self, size, *arguments, cwd, **variables):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size), **variables}
        clean = {
            name: value for name, value in environment().items() if not name.startswith(("PMI", "MPI", "OMPI", "SLURM"))
        }
        self.processes = [
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env={**clean, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
            )
            for rank in range(size)
        ]  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def ready(self):
        for process in self.processes:
            assert process.stdout.readline() == "ready\n", process.communicate()

    def ended(self, seconds=120):
        """Of each, its exit code and what it said on stderr."""
        until = time.monotonic() + seconds
        said = [process.communicate(timeout=max(until - time.monotonic(), 0.1))[1] for process in self.processes]
        return [(process.returncode, text) for process, text in zip(self.processes, said, strict=True)]


MEET = """
import os, signal, sys, time
import numpy as np
from gpu_nn.distributed import connect, together

ranks, device = connect("cpu")
ranks.sum(np.ones(1))
print("ready", flush=True)
"""
WAITING_ON_THE_DEVICE = "time.sleep(600)"  # as in NCCL, whose sum does not end when a rank is gone


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("at_work", [WAITING_ON_THE_DEVICE, "while True: ranks.sum(np.ones(100_000))"])
def test_a_killed_rank_ends_all_with_its_name(tmp_path, victim, at_work):
    with Started(3, "-c", MEET + at_work, cwd=tmp_path) as started:
        started.ready()
        began = time.monotonic()
        started.processes[victim].kill()
        ended = started.ended(SECONDS)
        assert time.monotonic() - began < SECONDS
    for rank, (code, said) in enumerate(ended):
        if rank == victim:
            assert code == -signal.SIGKILL
        else:
            assert code == 1
            assert said == f"rank {rank} of 3 ends: rank {victim} died\n"


CUT = """
from gpu_nn.distributed import messages
messages._SILENCE, messages.UNTIL_GIVEN_UP = 1, 3
MEET
if ranks.rank < 2:
    from tests.distributed.cut import cut
    cut(ranks._others[1 - ranks.rank].connection)
"""


@pytest.mark.parametrize("at_work", [WAITING_ON_THE_DEVICE, "while True: ranks.sum(np.ones(1_000_000))"])
def test_a_host_that_is_gone_ends_all_with_the_name_of_its_rank(tmp_path, at_work):
    with Started(3, "-c", CUT.replace("MEET", MEET) + at_work, cwd=tmp_path) as started:
        started.ready()
        (_, first), (_, cut_off), (_, third) = ended = started.ended(SECONDS)
    assert [code for code, _ in ended] == [1, 1, 1]
    assert first == "rank 0 of 3 ends: the host of rank 1 has not answered for 3 seconds\n"
    assert cut_off == "rank 1 of 3 ends: the host of rank 0 has not answered for 3 seconds\n"
    assert third == "rank 2 of 3 ends: the host of rank 1 has not answered for 3 seconds\n"


def test_a_rank_whose_stderr_is_closed_ends_too(tmp_path):
    with Started(2, "-c", f"{MEET}os.close(2); {WAITING_ON_THE_DEVICE}", cwd=tmp_path) as started:
        started.ready()
        time.sleep(0.5)  # until it is closed
        started.processes[1].kill()
        assert started.ended(SECONDS)[0] == (1, "")


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("block", ["with together(ranks):\n    ", ""], ids=["together", "alone"])
def test_a_rank_that_raises_ends_all_with_its_name(tmp_path, victim, block):
    at_work = f"{block}assert ranks.rank != {victim}, 'a bad row'; {WAITING_ON_THE_DEVICE}"
    with Started(3, "-c", MEET + at_work, cwd=tmp_path) as started:
        ended = started.ended(60)
    for rank, (code, said) in enumerate(ended):
        assert code == 1
        if rank == victim:
            assert "a bad row" in said
            assert not block or said == f"rank {victim} of 3 failed: a bad row; all ranks end\n"
        else:
            assert said == f"rank {rank} of 3 ends: rank {victim} failed\n"


@pytest.mark.parametrize("block", ["with together(ranks): ", ""], ids=["together", "alone"])
def test_ranks_that_end_on_being_told_are_not_taken_for_dead(tmp_path, block):
    slowly = "from gpu_nn.distributed import tcp; tell = tcp._Other.tell\n"
    slowly += "tcp._Other.tell = lambda *said: (tell(*said), time.sleep(0.5))\n"
    at_work = f"{slowly}{block}assert ranks.rank != 0, 'a bad row'; {WAITING_ON_THE_DEVICE}"
    with Started(3, "-c", MEET + at_work, cwd=tmp_path) as started:
        ended = started.ended(60)
    assert [said for _, said in ended[1:]] == [f"rank {rank} of 3 ends: rank 0 failed\n" for rank in (1, 2)]


@pytest.mark.parametrize("at_work", [WAITING_ON_THE_DEVICE, "while True: ranks.sum(np.ones(10))"])
def test_what_was_printed_before_the_end_is_not_lost(tmp_path, at_work):
    print_and_fail = f"print('epoch 7')\nwith together(ranks):\n    assert ranks.rank == 0, 'a bad row'\n    {at_work}"
    with Started(2, "-c", MEET + print_and_fail, cwd=tmp_path, PYTHONUNBUFFERED="") as started:
        printed = [process.communicate(timeout=60)[0] for process in started.processes]
    assert printed == ["ready\nepoch 7\n"] * 2


def test_a_rank_without_memory_for_a_sum_ends_all_with_its_name(tmp_path):
    program = """
from gpu_nn.distributed import messages

def received(connection, own=messages.received):
    kind, content = own(connection)
    if len(content) > 1000:
        raise MemoryError
    return kind, content

messages.received = received
"""
    with Started(3, "-c", f"{program}{MEET}ranks.sum(np.ones(1000))", cwd=tmp_path) as started:
        ended = started.ended(60)
    assert [code for code, _ in ended] == [1, 1, 1]
    for rank, (_, said) in enumerate(ended):
        assert re.fullmatch(
            rf"rank {rank} of 3 ends: rank 0 has no memory left for what rank [12] gave to a sum\n", said
        )


def test_who_comes_while_the_others_are_told_disturbs_nobody():
    ranks, told = TcpRanks(0, 1, "nowhere.invalid", 1), []

    def tell(kind, content):
        told.append(kind)
        ranks._others[2] = None

    ranks._others[1] = SimpleNamespace(tell=tell, tell_no_more=lambda: None)
    ranks._tell_all(b"e")
    assert told == [b"e"]
    ranks._others.clear()


def test_one_that_takes_nothing_more_keeps_no_rank_from_ending(tmp_path):
    for_ever = "from gpu_nn.distributed import tcp; tcp._UNTIL_ENDED = 1\n"
    for_ever += "tcp._Other.tell = lambda *said: time.sleep(1000)\n"
    at_work = f"{for_ever}with together(ranks): assert ranks.rank != 0, 'a bad row'; {WAITING_ON_THE_DEVICE}"
    with Started(2, "-c", MEET + at_work, cwd=tmp_path) as started:
        assert [code for code, _ in started.ended(20)] == [1, 1]


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("block", ["with together(ranks): pass", ""], ids=["together", "alone"])
def test_ranks_that_are_done_end_in_any_order(tmp_path, last, block):
    program = MEET + f"{block}\nif ranks.rank == {last}: time.sleep(2)\nos.write(2, b'done')"
    with Started(3, "-c", program, cwd=tmp_path) as started:
        assert started.ended() == [(0, "done")] * 3


@pytest.mark.parametrize(
    ("flags", "at_work"),
    [
        ([], "import code; code.InteractiveInterpreter().runsource('1/0')"),  # as IPython tells it, and Tk
        (["-i"], "raise ValueError('a slip')"),
    ],
    ids=["in a call", "at a prompt"],
)
def test_an_exception_that_did_not_end_the_program_ends_no_rank(tmp_path, flags, at_work):
    program = MEET + f"ranks.rank and (time.sleep(2), sys.exit())\n{at_work}"
    with Started(2, *flags, "-c", program, cwd=tmp_path) as started:
        (first, said), (second, told) = started.ended(60)  # stdin is closed, which ends a prompt
    assert (first, second) == (0, 0)
    assert "Error: " in said
    assert "rank 1 of 2 ends" not in told


def test_behind_the_block_a_process_may_live_on_and_be_killed(tmp_path):
    """As the workers of Ray and Dask do; they also begin again at the same port."""
    program = f"""
{MEET}
with together(ranks):
    pass
again, _ = connect("cpu")
with together(again):
    found = np.ones(2)
    again.sum(found)
    assert found.tolist() == [2, 2]
if ranks.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(3)
"""
    with Started(2, "-c", program, cwd=tmp_path) as started:
        assert started.ended() == [(0, ""), (-signal.SIGKILL, "")]


def test_ranks_that_left_keep_neither_connections_nor_threads(tmp_path):
    program = """
import os, threading, time
import numpy as np
from gpu_nn.distributed import connect, together

def held():
    return len(os.listdir("/proc/self/fd")), threading.active_count()

before = held()
for _ in range(3):
    ranks, _ = connect("cpu")
    with together(ranks):
        ranks.sum(np.ones(1))
    until = time.monotonic() + 30
    while held() != before:
        assert time.monotonic() < until, (before, held())
        time.sleep(0.01)
"""
    with Started(3, "-c", program, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * 3


def test_a_rank_that_left_is_gone_for_every_sum(tmp_path):
    program = (
        MEET
        + """
if ranks.rank == 0:
    ranks.leave()
    time.sleep(3)
else:
    for _ in range(2):
        try:
            ranks.sum(np.ones(1))
        except RuntimeError as error:
            os.write(2, f"{error}\\n".encode())
"""
    )
    with Started(2, "-c", program, cwd=tmp_path) as started:
        said = "rank 0 has left; all ranks must do the same in the same order\n"
        assert started.ended(60) == [(0, ""), (0, 2 * said)]


def test_a_child_that_a_rank_forked_does_not_hide_its_death(tmp_path):
    program = (
        MEET + "child = os.fork()\nif not child: os.close(1); os.close(2); time.sleep(20); os._exit(0)\ntime.sleep(600)"
    )
    with Started(2, "-c", program, cwd=tmp_path) as started:
        started.ready()
        time.sleep(0.5)
        started.processes[0].kill()
        until = time.monotonic() + SECONDS
        while started.processes[1].poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert started.processes[1].returncode == 1


def test_a_child_that_ends_does_not_end_its_rank(tmp_path):
    program = MEET + "if not os.fork(): sys.exit('a child')\nos.wait()\nranks.sum(np.ones(1))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        assert [code for code, _ in started.ended()] == [0, 0]


def test_a_rank_that_goes_on_without_the_others_is_told(tmp_path):
    program = MEET + "with together(ranks):\n    if ranks.rank: ranks.sum(np.ones(1))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        (first, _), (second, said) = started.ended()
    assert (first, second) == (0, 1)
    assert said == "rank 1 of 2 failed: rank 0 has left; all ranks must do the same in the same order; all ranks end\n"


def test_arrays_of_unlike_sizes_are_told_apart(tmp_path):
    program = MEET + "with together(ranks): ranks.sum(np.ones(1 + ranks.rank))"
    with Started(2, "-c", program, cwd=tmp_path) as started:
        ended = started.ended()
    assert [code for code, _ in ended] == [1, 1]
    assert "rank 0 of 2 failed: rank 1 gave 16 bytes to a sum where this one gave 8" in ended[0][1]
    assert ended[1][1] == "rank 1 of 2 ends: rank 0 failed\n"


def test_a_rank_that_does_not_come_is_told_to_those_that_did(tmp_path):
    program = """
import os
import numpy as np
from gpu_nn.distributed.tcp import TcpRanks
rank = int(os.environ["RANK"])
if rank != 2:
    TcpRanks(rank, 3, "127.0.0.1", int(os.environ["MASTER_PORT"]), patience=4).sum(np.ones(1))
"""
    with Started(3, "-c", program, cwd=tmp_path) as started:
        ended = started.ended()
    assert [code for code, _ in ended] == [1, 1, 0]
    assert re.search(r"DeviceError: rank 0 of 3 waited 4 seconds at \S+ for rank 2; see what", ended[0][1])
    assert ended[1][1].startswith("rank 1 of 3 ends: rank 0 of 3 waited 4 seconds at ")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (2, 3), (1 << 18,)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_one_rank_alone_sums_nothing_and_needs_no_port(shape, dtype):
    array = np.ones(shape, dtype)
    TcpRanks(0, 1, "nowhere.invalid", 1).sum(array)
    assert (array == 1).all()


SUMS = (
    MEET
    + """
for dtype in ("float32", "float64", "int64", "uint8"):
    for shape in ((), (0,), (3, 0), (7,), (2, 3), (1 << 20,)):
        random = np.random.default_rng(ranks.rank)
        own = np.array(100 + 9 * random.standard_normal(shape)).astype(dtype)
        every = ranks.gathered(np.atleast_1d(own).ravel()[:50].tolist())
        ranks.sum(own)
        found = np.atleast_1d(own).ravel()[:50]
        rows = [np.array(row, dtype) for row in every]
        while len(rows) > 1:
            pairs = [rows[i] + rows[i + 1] for i in range(0, len(rows) - 1, 2)]
            rows = pairs + rows[len(rows) - len(rows) % 2:]
        assert found.tobytes() == rows[0].tobytes(), (dtype, shape)
"""
)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_sums_are_of_pairs_then_of_pairs_of_these(tmp_path, size):
    with Started(size, "-c", SUMS, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * size


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sums_of_infinities_and_past_the_largest_number_warn_nobody(tmp_path, size):
    with Started(size, "-W", "error", "-c", SUM_OF_EXTREMES, cwd=tmp_path) as started:
        assert started.ended() == [(0, "")] * size


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_learn_the_bits_that_one_process_learns(tmp_path, size):
    found = []
    for n in (1, size):
        out = tmp_path / ("alone.npz" if n == 1 else "ranks.npz")
        with Started(n, "-c", PROGRAM, "float64", 203, 4, out, cwd=tmp_path) as started:
            assert started.ended() == [(0, "")] * n
        found.append(dict(np.load(out)))
    assert found[0]["parameters"].tobytes() == found[1]["parameters"].tobytes()
    np.testing.assert_allclose(found[0]["losses"], found[1]["losses"], rtol=1e-13)


def test_ranks_learn_of_a_stream(tmp_path):
    found = []
    for n in (1, 2):
        out = tmp_path / ("alone.npz" if n == 1 else "ranks.npz")
        with Started(n, "-c", STREAMED, out, cwd=tmp_path) as started:
            assert started.ended() == [(0, "")] * n
        found.append(dict(np.load(out)))
    assert found[0]["parameters"].tobytes() == found[1]["parameters"].tobytes()


def test_the_command_trains_and_reports_once(tmp_path):
    command = ["-m", "gpu_nn", "train", "--distributed", "--device", "cpu", "--epochs", 2, "--out", tmp_path / "run"]
    with Started(2, *command, cwd=tmp_path) as started:
        (first, said), (second, nothing) = started.ended()
    assert (first, second, nothing) == (0, 0, "")
    assert said.count("epoch 2") == 1
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_what_fails_after_ranks_met_is_told_by_rank_0_alone(tmp_path):
    command = ["-m", "gpu_nn", "train", "--distributed", "--device", "cuda"]
    with Started(2, *command, cwd=tmp_path, CUDA_VISIBLE_DEVICES="") as started:
        (first, said), (second, nothing) = started.ended()
    assert (first, second, nothing) == (4, 1, "")
    assert said.startswith("gpu-nn train: ")
    assert said.count("\n") == 1


def test_a_rank_of_another_run_of_torchrun_ends_alone(tmp_path):
    program = "import os\nos.environ['TORCHELASTIC_RUN_ID'] = os.environ['RANK']\n" + MEET
    with Started(2, "-c", program, cwd=tmp_path) as started:
        _, said = started.processes[1].communicate(timeout=60)
        cure = "another job meets there; choose another port by MASTER_PORT"
        assert re.search(rf"DeviceError: rank 1 of 2 did not meet the others at \S+:\d+: {cure}\n$", said)
        assert started.processes[0].poll() is None


def test_a_port_in_use_is_told_with_the_variable_to_change(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {"GPU_NN_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        command = ["-m", "gpu_nn", "train", "--distributed", "--device", "cpu"]
        with Started(2, *command, cwd=tmp_path, **variables) as started:
            code, said = started.processes[0].wait(60), started.processes[0].stderr.read()
    assert code == 4
    assert f"rank 0 cannot listen at 127.0.0.1:{port}: Address already in use" in said
    assert "choose another port by GPU_NN_PORT" in said
