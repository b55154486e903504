"""Real Ray Train trains without a recipe of ours, reports a rank that is killed, and starts it again where told to."""

import subprocess
import sys
import time

import pytest

import gpu_nn
from tests.distributed.gloo.processes import clean_environment
from tests.distributed.gloo.recipes import recipe, with_a_kill

pytestmark = pytest.mark.slow

# Ray keeps what it has loaded and where; a process of its own leaves nothing of that here.
PROGRAM = """
import numpy as np
import ray

x, y = np.random.default_rng(0).random((600, 5)), np.arange(600) % 10
path = {path!r}
ray.init(num_cpus=2, include_dashboard=False)
CODE
"""


def trained(folder, code):
    """Exit code, what was said, the seconds that it took, and the file of the model."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[train]'")
    path = folder / "model.safetensors"
    code = code.replace("init_process_group()", 'init_process_group("cpu")')
    folders = f"from ray.train import RunConfig\nrun_config = RunConfig(storage_path={str(folder / 'runs')!r})\n"
    code = folders + code.replace("scaling_config=scaling)", "scaling_config=scaling, run_config=run_config)")
    (folder / "program.py").write_text(PROGRAM.format(path=str(path)).replace("CODE", code))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began, path


def test_ray_train_trains(tmp_path):
    code, said, _, path = trained(tmp_path, recipe("Ray"))
    assert code == 0, said
    assert gpu_nn.load(path, "cpu").n_inputs == 5


def test_ray_train_reports_a_kill(tmp_path):
    code, said, seconds, path = trained(tmp_path, with_a_kill(recipe("Ray"), tmp_path / "killed"))
    assert code != 0
    assert "rank 0 of 2 lost rank 1: " in said
    assert "WorkerGroupError" in said
    assert seconds < 120
    assert not path.exists()


def test_ray_train_starts_all_ranks_again_where_it_is_told_to(tmp_path):
    code = with_a_kill(recipe("Ray"), tmp_path / "killed")
    again = "from ray.train import FailureConfig\nrun_config.failure_config = FailureConfig(max_failures=1)\n"
    code, said, _, path = trained(tmp_path, again + code)
    assert code == 0, said
    assert (tmp_path / "killed").exists()
    assert gpu_nn.load(path, "cpu").n_inputs == 5
