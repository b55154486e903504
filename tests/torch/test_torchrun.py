"""Real torchrun starts ranks that meet and train, though its agent listens at MASTER_PORT itself."""

import re
import subprocess
import sys

import pytest

from tests.distributed.ports import free_port
from tests.distributed.test_training import environment

TRAIN = ["-m", "gpu_nn", "train", "--distributed", "--device", "cpu", "--epochs", "2"]


def torchrun(folder, *arguments):
    clean = {name: value for name, value in environment().items() if not name.startswith(("PMI", "MPI", "OMPI"))}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean, timeout=300)


@pytest.mark.parametrize("place", ["--standalone", "nothing", "--master-port"])
def test_ranks_of_torchrun_train(tmp_path, place):
    flags = {"--standalone": ["--standalone"], "nothing": [], "--master-port": [f"--master-port={free_port()}"]}[place]
    done = torchrun(tmp_path, *flags, "--no-python", sys.executable, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert re.findall(r"^rank (\d): process \d+ on \S+, cpu$", done.stderr, re.MULTILINE) == ["0", "1"]


def test_a_rank_that_fails_is_named(tmp_path):
    program = """
from gpu_nn.distributed import connect, together
import time
ranks, device = connect("cpu")
with together(ranks):
    assert ranks.rank != 1, "a bad row"
    time.sleep(600)
"""
    (tmp_path / "program.py").write_text(program)
    done = torchrun(tmp_path, "--standalone", "program.py")
    assert done.returncode != 0
    assert "rank 1 of 2 failed: a bad row; all ranks end\n" in done.stderr
