"""Real Dask trains by what README tells to paste, reports a rank that is killed, and trains again after that."""

import time

import numpy as np
import pytest

import gpu_nn
from tests.distributed.gloo.recipes import recipe, with_a_kill
from tests.distributed.ports import free_port

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.random((600, 5)), np.arange(600) % 10


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs the recipe on two workers, which live on, and returns the file of the model that they write."""
    dask = pytest.importorskip("dask", reason="Dask is not installed: pip install distributed")
    from dask.distributed import LocalCluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path)}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), LocalCluster(**options) as cluster:

        def train(code, name):
            path = tmp_path / name
            code = code.replace("tcp://scheduler:8786", cluster.scheduler_address)
            code = code.replace("init_process_group()", 'init_process_group("cpu")').replace("29400", str(free_port()))
            scope = {"x": X, "y": Y, "path": str(path), "__name__": "__main__"}
            try:
                exec(code, scope)
            finally:
                scope["client"].close()
            return path

        yield train


def test_dask_trains_reports_a_kill_and_trains_again(train, tmp_path):
    code = recipe("Dask")
    assert gpu_nn.load(train(code, "first"), "cpu").n_inputs == 5
    began = time.monotonic()
    with pytest.raises(Exception, match=r"lost rank 1|workers died while running it"):
        train(with_a_kill(code, tmp_path / "killed"), "second")
    assert time.monotonic() - began < 30
    assert (tmp_path / "killed").exists()
    assert gpu_nn.load(train(code, "third"), "cpu").n_inputs == 5
    assert not (tmp_path / "second").exists()


def test_an_exception_of_one_rank_is_raised_and_the_same_workers_train_again(train):
    code = recipe("Dask")
    block = "    with communicator:\n"
    failing = code.replace(block, f"{block}        assert rank, 'a bad row'\n")
    with pytest.raises(Exception, match=r"a bad row|lost rank 0"):
        train(failing, "first")
    assert gpu_nn.load(train(code, "second"), "cpu").n_inputs == 5
