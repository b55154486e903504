"""Real torchrun starts ranks that meet at its agent's store and train, and starts them again when one dies."""

import re
import subprocess
import sys

import numpy as np
import pytest

from tests.distributed.gloo.processes import clean_environment
from tests.distributed.ports import free_port
from tests.distributed.programs import PROGRAM

TRAIN = ["-m", "gpu_nn", "train", "--distributed", "--device", "cpu", "--epochs", "2"]


def started(folder, *arguments, size=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", size, *arguments]
    return subprocess.Popen(
        [*map(str, command)],
        cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def torchrun(folder, *arguments, size=2):
    process = started(folder, *arguments, size=size)
    out, told = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, told)


@pytest.mark.parametrize("place", ["--standalone", "nothing", "--master-port"])
def test_ranks_of_torchrun_train(tmp_path, place):
    flags = {"--standalone": ["--standalone"], "nothing": [], "--master-port": [f"--master-port={free_port()}"]}[place]
    done = torchrun(tmp_path, *flags, "--no-python", sys.executable, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert re.findall(r"^rank (\d): process \d+ on \S+, cpu$", done.stderr, re.MULTILINE) == ["0", "1"]


def test_ranks_of_torchrun_learn_the_bits_that_one_process_learns(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    found = []
    for size in (1, 2, 4):
        out = tmp_path / f"{size}.npz"
        done = torchrun(tmp_path, "--standalone", "program.py", "float64", 203, 4, out, size=size)
        assert done.returncode == 0, done.stderr
        found.append(np.load(out)["parameters"].tobytes())
    assert found[0] == found[1] == found[2]


FAIL = """
import os, signal, sys, time
import numpy as np
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group("cpu")
with communicator:
    if communicator.rank == 1:
        {end}
    while True:
        communicator.all_reduce(np.ones(1))
"""
ENDS = {
    "an exception": ("raise OSError('a bad row')", "OSError: a bad row"),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", r"exitcode\s*: -9"),
    "exit 0": (
        "sys.exit()",
        "DeviceError: rank (1 has closed its communicator|0 of 2 lost rank 1: )",
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_rank_that_ends_alone_ends_all(tmp_path, how):
    end, told = ENDS[how]
    (tmp_path / "program.py").write_text(FAIL.format(end=end))
    done = torchrun(tmp_path, "--standalone", "program.py")
    assert done.returncode != 0
    assert re.search(told, done.stderr), done.stderr


RESTARTED = """
import os, signal, sys
import numpy as np
from gpu_nn.distributed import init_process_group

again = os.path.exists(sys.argv[1])
if not again and sys.argv[2] == "before" and os.environ["RANK"] == "1":
    open(sys.argv[1], "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
communicator, device = init_process_group("cpu")
with communicator:
    found = np.ones(1)
    for step in range(50):
        communicator.all_reduce(found)
        if step == 20 and not again and communicator.rank == 1:
            open(sys.argv[1], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    if communicator.rank == 0:
        print("through", communicator.size)
"""


@pytest.mark.parametrize("when", ["before", "within"])
def test_ranks_that_torchrun_starts_again_meet_again(tmp_path, when):
    (tmp_path / "program.py").write_text(RESTARTED)
    done = torchrun(tmp_path, "--standalone", "--max-restarts", 1, "program.py", tmp_path / "killed", when)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "through 2\n"


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
def test_two_nodes_of_which_one_loses_a_rank_meet_again(tmp_path, attempt):
    """Their agents start all ranks again, though only the one that lost a rank counts that."""
    (tmp_path / "program.py").write_text(RESTARTED)
    place = ["--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "job"]
    arguments = [*place, "--max-restarts", 1, "program.py", tmp_path / "killed", "within"]
    nodes = [started(tmp_path, *arguments, size=1) for _ in range(2)]
    done = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], done
    assert sorted(out for out, _ in done) == ["", "through 2\n"]


@pytest.mark.slow
def test_two_jobs_at_the_endpoint_of_one_store_do_not_mix(tmp_path):
    """The agent of one job has the store of both: a job is through here before the other one's agent ends."""
    (tmp_path / "program.py").write_text("""
import os
import time
from gpu_nn.distributed import init_process_group

communicator, device = init_process_group("cpu")
with communicator:
    job = os.environ["TORCHELASTIC_RUN_ID"]
    for _ in range(200):
        communicator.assert_same_on_all_ranks({"job": job})
    open(f"through {job} {communicator.rank}", "w").close()
until = time.monotonic() + 120
while sum(name.startswith("through") for name in os.listdir()) < 4:
    assert time.monotonic() < until
    time.sleep(0.1)
""")
    endpoint = f"127.0.0.1:{free_port()}"
    place = ["--nnodes", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    jobs = [started(tmp_path, *place, "--rdzv-id", job, "program.py") for job in ("one", "other")]
    told = [job.communicate(timeout=300)[1] for job in jobs]
    assert len(list(tmp_path.glob("through *"))) == 4, told
    assert 0 in [job.returncode for job in jobs], told
