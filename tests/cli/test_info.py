import json
import platform
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gpu_nn
from gpu_nn import device
from gpu_nn.cli import export_info, output
from gpu_nn.multilabel import Multilabel
from gpu_nn.precision import PRECISIONS
from tests.cuda_emulator.device import emulated_device


@pytest.fixture
def without_gpu(no_gpu, monkeypatch):
    monkeypatch.setattr(export_info, "cuda_unavailable_reason", device.cuda_unavailable_reason)


def test_versions_and_the_choice_of_auto_are_printed(command, without_gpu):
    done = command("info")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"gpu_nn {gpu_nn.__version__}, Python {platform.python_version()}"
    assert f"numpy {np.__version__}" in lines
    assert lines[-1] == "auto chooses cpu (auto: CuPy finds no NVIDIA GPU), which computes in float32, float64"


def test_they_are_written_at_once_so_that_a_part_is_an_error(command, monkeypatch):
    written = []
    monkeypatch.setattr(output, "write_stdout", written.append)
    assert command("info").out == ""
    (text,) = written
    assert text.startswith("gpu_nn ")
    assert text.endswith("\n")


def test_json_says_the_same(command, without_gpu):
    facts = json.loads(command("info", "--json").out)
    assert facts["gpu_nn"] == gpu_nn.__version__
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["gpus"] == []
    assert facts["auto"].startswith("cpu")
    assert facts["dtypes"] == ["float32", "float64"]


def test_a_gpu_with_nvmath_computes_in_every_precision(command, monkeypatch):
    monkeypatch.setattr(export_info, "_gpus", list)
    for nvmath in (True, False):
        with emulated_device(nvmath=nvmath):
            assert json.loads(command("info", "--json").out)["dtypes"] == list(PRECISIONS)[: None if nvmath else 2]


def test_a_package_that_is_not_there_is_said_to_be_missing(command, without_gpu, monkeypatch):
    monkeypatch.setattr(export_info, "_PACKAGES", ("no-such-package-as-this",))
    assert "no-such-package-as-this not installed\n" in command("info").out
    assert json.loads(command("info", "--json").out)["packages"] == {"no-such-package-as-this": None}


def test_gpus_are_listed_with_memory_and_capability(command, monkeypatch):
    properties = {"name": b"H200", "totalGlobalMem": 139 * 2**30, "major": 9, "minor": 0}
    runtime = SimpleNamespace(getDeviceCount=lambda: 2, getDeviceProperties=lambda _: properties)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for module in (device, export_info):
        monkeypatch.setattr(module, "cuda_unavailable_reason", lambda: "")
    monkeypatch.setattr(export_info, "why_no_half_products", lambda device: "")
    out = command("info").out
    assert "cuda:0: H200, 139 GiB, sm_90\ncuda:1: H200, 139 GiB, sm_90\n" in out
    assert "auto chooses cuda:0" in out


def test_a_model_of_several_labels_a_row_is_named_as_one(command, tmp_path):
    net = gpu_nn.Network([5, 4], device="cpu")
    for classes, names in ((None, [0, 1, 2]), (["a", "b", "c"], ["a", "b", "c"])):
        net.classes, net.multilabel = classes, Multilabel()
        gpu_nn.save(net, tmp_path / "m")
        result = json.loads(command("info", tmp_path / "m", "--json").out)
        assert (result["classes"], result["several_labels"]) == (names, True)
        assert f"3 labels, several a row: {', '.join(map(str, names))}\n" in command("info", tmp_path / "m").out
    net = gpu_nn.Network([5, 4], device="cpu")
    gpu_nn.save(net, tmp_path / "m")
    assert json.loads(command("info", tmp_path / "m", "--json").out)["several_labels"] is False
