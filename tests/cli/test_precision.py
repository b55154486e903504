"""gpu-nn train --dtype, in every precision of the network, on the emulated device."""

import json
import tomllib

import numpy as np
import pytest

from gpu_nn import load
from gpu_nn.precision import PRECISIONS
from tests.cli.test_resume import Raise, outcome, with_callback  # noqa: F401
from tests.cuda_emulator.device import emulated_device
from tests.cuda_emulator.work import watched

FAST = ("--epochs", 3, "--hidden", "8", "--activation", "tanh", "--lr", 0.02, "--device", "cuda")
BEYOND = [name for name in PRECISIONS if name not in ("float32", "float64")]
ALL = pytest.mark.parametrize("dtype", BEYOND)


@pytest.fixture
def gpu():
    with emulated_device(nvmath=True):
        yield


@ALL
def test_a_run_computes_in_it_keeps_its_name_and_writes_float32(command, data, arrays, tmp_path, gpu, dtype):
    with watched() as works:
        done = command("train", "--data", data, *FAST, "--dtype", dtype, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.err.splitlines()[1] == f"75 parameters on cuda:0, {dtype}"
    compute = {array.dtype.name for work in works if work.name.startswith("gemm") for array in work.arguments[:2]}
    assert compute == {PRECISIONS[dtype]}
    assert tomllib.loads((tmp_path / "config.toml").read_text())["dtype"] == dtype
    net = load(tmp_path / "model.safetensors", "cpu")
    assert net.precision.name == "float32"
    exact = json.loads(command("train", "--data", data, *FAST, "--json").out)
    assert json.loads(done.out)["test_loss"] == pytest.approx(exact["test_loss"], rel=0.05)
    assert command("predict", tmp_path / "model.safetensors", "--data", data, "--device", "cpu").code == 0


@ALL
def test_a_configuration_says_it_too(command, data, tmp_path, gpu, dtype):
    (tmp_path / "a.toml").write_text(f'dtype = "{dtype}"\n')
    plan = ("train", "--config", tmp_path / "a.toml", "--data", data, *FAST, "--dry-run")
    assert json.loads(command(*plan, "--json").out)["dtype"] == dtype
    assert f"on cuda:0, {dtype}\n" in command(*plan).out
    assert json.loads(command(*plan, "--dtype", "float32", "--json").out)["dtype"] == "float32"


@ALL
def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(
    command,
    data,
    tmp_path,
    gpu,
    dtype,
    with_callback,  # noqa: F811
):
    settings = ("--data", data, *FAST, "--normalisation", "batch", "--input-noise", 0.1, "--dropout", 0.1)
    settings = (*settings, "--dtype", dtype)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("train", *settings, "--out", whole).code == 0
    with_callback(Raise(5, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", *settings, "--checkpoint-every", "2steps", "--out", broken)
    with_callback(None)
    refusal = command("train", "--resume", broken, "--dtype", "float32")
    assert refusal.code == 2
    assert f"--dtype float32 contradicts the run in {broken}, which has --dtype {dtype}" in refusal.err
    done = command("train", "--resume", broken, "--json")
    assert done.code == 0, done.err
    assert outcome(whole) == outcome(broken)
    # A finished run reports in its own precision what it reported when it was trained.
    again = json.loads(command("train", "--resume", broken, "--json").out)
    for name in ("test_loss", "test_accuracy"):
        assert again[name] == json.loads(done.out)[name]


@ALL
def test_the_cpu_refuses_it_in_one_line_and_nothing_is_written(refused, data, tmp_path, dtype):
    said = f"gpu-nn train: dtype='{dtype}' on cpu, but the CPU computes in float32 and float64: use dtype='float32', or"
    for option in ((), ("--dry-run",)):
        options = ("--data", data, *FAST, "--device", "cpu", "--dtype", dtype, "--out", tmp_path / "run", *option)
        assert refused(4, "train", *options) == f"{said} device='cuda'\n"


def test_a_gpu_without_nvmath_names_the_extra(command, data, tmp_path):
    with emulated_device():
        done = command("train", "--data", data, *FAST, "--dtype", "tf32", "--out", tmp_path / "run")
    assert done.code == 4
    assert done.err.splitlines()[-1].endswith("'gpu_nn[nvmath13]' beside cuda13x")
    assert not (tmp_path / "run").exists()


def test_half_types_alone_are_no_precision(refused, data):
    line = refused(2, "train", "--data", data, "--dtype", "bfloat16")
    assert "argument --dtype: 'bfloat16' is not one of" in line
    assert "Did you mean 'mixed_bfloat16'?" in line


def test_the_seed_gives_the_same_bits_again(command, data, tmp_path, gpu):
    for name in ("one", "two"):
        command("train", "--data", data, *FAST, "--dtype", "mixed_float16", "--out", tmp_path / name)
    models = [load(tmp_path / name / "model.safetensors", "cpu").flat_parameters for name in ("one", "two")]
    np.testing.assert_array_equal(*models)
