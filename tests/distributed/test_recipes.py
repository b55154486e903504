"""What the docstring tells users of Ray and Dask to paste: with stand-ins for both, and processes, it trains."""

import ast
import pydoc
import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import gpu_nn
from gpu_nn import distributed
from gpu_nn.distributed import launcher
from tests.distributed.ports import free_port
from tests.distributed.test_training import environment


def program(begin: str) -> str:
    """The block of the docstring that begins so."""
    lines = distributed.__doc__.splitlines()
    first = lines.index(f"    {begin}")
    last = next((i for i in range(first, len(lines)) if lines[i].strip() and not lines[i].startswith("    ")), None)
    return textwrap.dedent("\n".join(lines[first:last]))


TRAIN = program("import os, gpu_nn.distributed")
RECIPES = {"ray": program("import ray"), "dask": program("from urllib.parse import urlsplit")}


def names(code: str) -> list[str]:
    """All of gpu_nn that it mentions, with their dots."""
    found = (ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute))
    return [name for name in found if name.startswith("gpu_nn.") and "(" not in name]


def test_what_it_names_is_there():
    found = names(TRAIN)
    assert {"gpu_nn.distributed.connect", "gpu_nn.distributed.together", "gpu_nn.Trainer"} <= set(found)
    assert [name for name in found if pydoc.locate(name) is None] == []
    assert all(f'"{name}"' in TRAIN for name in (*launcher.VARIABLES, "LOCAL_RANK"))


def ray():
    def remote(num_gpus):
        assert num_gpus == 1
        return lambda cls: SimpleNamespace(remote=lambda: Actor(cls()))

    class Actor:
        def __init__(self, actor):
            self._actor = actor

        def __getattr__(self, name):
            return SimpleNamespace(remote=getattr(self._actor, name))

    def get(given):
        return [get(one) for one in given] if isinstance(given, list) else given

    module = ModuleType("ray")
    module.remote, module.get = remote, get
    module.util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
    return {"ray": module}


def dask():
    class Client:
        def __init__(self, address):
            assert address.startswith("tcp://")

        def nthreads(self):
            return {f"tcp://127.0.0.1:{port}": 1 for port in (9003, 9001, 9004, 9002)}

        def scatter(self, given, broadcast):
            return given

        def submit(self, function, rank, *given, workers, pure):
            assert (workers, pure) == ([f"tcp://127.0.0.1:{9001 + rank}"], False)
            return function(rank, *given)

        def gather(self, started):
            assert len(started) == 4

    module = ModuleType("dask.distributed")
    module.Client = Client
    return {"dask": ModuleType("dask"), "dask.distributed": module}


@pytest.mark.parametrize("stand_in", [ray, dask])
def test_it_trains_by_four_processes(monkeypatch, tmp_path, stand_in):
    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    port, started = free_port(), []
    code = TRAIN.replace("29400", str(port)).replace("connect()", 'connect("cpu")')

    def train(rank, *given):
        np.savez(tmp_path / "data.npz", x=given[2], y=given[3])
        program = f"{code}\nimport numpy\ndata = numpy.load('data.npz')\n"
        program += f"train({rank}, {given[0]}, {given[1]!r}, data['x'], data['y'], {given[4]!r})"
        started.append(subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment()))

    x, y = np.random.default_rng(0).random((600, 5)), np.arange(600) % 10
    scope = {"train": train, "x": x, "y": y, "path": "model.safetensors"}
    exec(RECIPES[stand_in.__name__], scope)
    assert [process.wait(120) for process in started] == [0] * 4
    assert gpu_nn.load(tmp_path / "model.safetensors", "cpu").n_inputs == 5
