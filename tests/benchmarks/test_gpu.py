"""The benchmark of a GPU on the emulated device: all of it runs; times mean nothing. With PyTorch: the folder torch."""

import contextlib
import io
import json
import logging
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import results
from benchmarks.gpu import large_m, loss, program, steps
from benchmarks.gpu.clock import Clock
from benchmarks.step import NETWORKS
from tests.cuda_emulator import require
from tests.cuda_emulator.device import emulated_device
from tests.cuda_src import launches
from tests.cuda_src.launches import launches_of

WAYS = (steps.GRAPH, steps.FULL, steps.EAGER, steps.PRODUCTS)
SPREAD = {"low", "median", "high"}


@pytest.fixture(scope="module")
def printed():
    require()
    written = {path.name for path in results.FOLDER.iterdir()}
    out = io.StringIO()
    with emulated_device(nvmath=True) as device, contextlib.redirect_stdout(out):
        assert program.run(device, emulated=True) == 0
    assert {path.name for path in results.FOLDER.iterdir()} == written
    return out.getvalue()


@pytest.fixture
def device():
    with emulated_device(nvmath=True) as found:
        yield found


def test_it_reaches_its_end_and_prints_every_table(printed):
    for row in ("| 1,000 |", "| 1,024 × 2, float32, full |", "| adam, float32 |", "| 64 × 100 × 8 |"):
        assert row in printed
    for way in WAYS:
        assert f"| {way} |" in printed
    assert "| launches | 11 | 19 |" in printed
    assert "emulated; numpy " in printed
    assert "Tests: not run on the emulated device." in printed
    assert "Failed: " not in printed


def test_it_names_what_is_absent_and_why(printed):
    assert "Not measured: PyTorch (no GPU: ours is emulated); Liger (no GPU: ours is emulated); " in printed
    for way in (steps.TORCH_EAGER, steps.REDUCE_OVERHEAD):
        assert f"step of A3, {way} (no GPU: ours is emulated)" in printed
        assert f"| {way} | absent | absent |" in printed


def test_it_names_every_goal(printed):
    lines = [line for line in printed.splitlines() if ", goal " in line]
    assert len([line for line in lines if "classes, least share of copy bandwidth: " in line]) >= 13
    for network in ("A1", "A3"):
        assert f"step of {network} × torch eager: absent, goal 4" in lines
        assert f"step of {network} × torch.compile, reduce-overhead: absent, goal 1.2" in lines
    assert any(line.startswith("step of wide, share of products: ") and "goal ≥ 0.95" in line for line in lines)


def test_its_result_is_the_same_out_of_a_file(device):
    result = program.measurements(device, True, lambda: 0.0)
    assert program.markdown(json.loads(json.dumps(result))) == program.markdown(result)
    assert "steps of wide (no time left)" in result["absent"]
    assert "torch.compile at 2 × 1000, float32, standard (no time left)" in result["absent"]
    assert result["steps"] == []
    versions = result["machine"]["versions"]
    assert {*program.PACKAGES, "cupy", "CUDA runtime"} <= set(versions)
    assert (versions["numpy"], versions["CUDA runtime"]) == (np.__version__, "12.9")
    assert {row["kernel"] for row in result["kernels"]} >= {"adam", "layer_norm", "gather"}
    for row in (*result["loss"], *result["kernels"]):
        assert set(row["microseconds"]["gpu_nn"]) == SPREAD
        assert row["share_of_copy"] == row["times_as_fast"]["copy"] > 0


def test_what_fails_is_named_and_the_rest_goes_on(device, monkeypatch):
    """Minutes of measuring are not lost for one cell, one network or one table; each part is kept when it is there."""
    row_of, loss_row = steps._row, loss.measured

    def broken(setting, *arguments):
        if setting.name == "A3":
            raise RuntimeError("cudaErrorIllegalAddress:\n an illegal memory access")
        return row_of(setting, *arguments)

    def refused(device, clock, workload, compiled):
        if workload.facts.items() >= {"m": 10, "dtype": "float16", "target": "dense", "cost": "full"}.items():
            raise MemoryError
        return loss_row(device, clock, workload, compiled)

    monkeypatch.setattr(steps, "_row", broken)
    monkeypatch.setattr(loss, "measured", refused)
    monkeypatch.setattr(program, "accuracy_on", lambda *_: 1 / 0)
    kept = []
    result = program.measurements(device, True, lambda: 1e9, lambda found: kept.append(json.loads(json.dumps(found))))
    assert [reason.partition(" (")[2] for reason in result["failed"]] == [
        "MemoryError: )",
        "RuntimeError: cudaErrorIllegalAddress: an illegal memory access)",
        "ZeroDivisionError: division by zero)",
    ]
    assert len(result["loss"]) == 4 * 12 - 1
    assert [row["network"] for row in result["steps"]] == ["wide"]
    assert [bool(found["kernels"]) for found in kept] == [False, True, True, True]
    assert kept[-1] == json.loads(json.dumps(result))
    shown = results.shown(program.markdown(result), result)
    assert "; steps of A3 (RuntimeError: cudaErrorIllegalAddress: an illegal memory access); " in shown
    assert shown.endswith("Failed: " + "; ".join(result["failed"]) + ".")


def test_a_failure_ends_the_program_with_1_after_its_tables(device, monkeypatch, capsys):
    monkeypatch.setattr(large_m, "measured", lambda *_: 1 / 0)
    assert program.run(device, emulated=True) == 1
    assert "Failed: a last layer with very many classes (ZeroDivisionError: " in capsys.readouterr().out


def test_a_step_that_is_no_graph_is_said(device, monkeypatch):
    monkeypatch.setattr(steps, "measured", lambda *_: (logging.getLogger("gpu_nn").warning("no graph"), []))
    assert "no graph" in program.measurements(device, True, lambda: 1e9)["absent"]


# pytest, as far as it matters here: its last lines, also where it is interrupted.
PYTEST = """
import signal, sys, time
def interrupted(*_):
    print("FAILED tests/a.py::b - why", "1 failed in 2 s", sep=chr(10), flush=True)
    sys.exit(2)
signal.signal(signal.SIGINT, interrupted)
assert sys.argv[1:4] == ["-q", "-m", "gpu and not slow"]
time.sleep(REST)
print("7 passed in 1 s")
sys.exit(CODE)
"""


def test_the_tests_have_the_time_that_is_left_and_say_how_far_they_came():
    def said(seconds, **constants):
        code = PYTEST
        for name, value in constants.items():
            code = code.replace(name, repr(value))
        return program.run_tests(seconds, (sys.executable, "-c", code))

    passed = {"summary": "7 passed in 1 s", "wrong": []}
    assert said(60, REST=0, CODE=0) == passed | {"failed": False}
    assert said(60, REST=0, CODE=4) == passed | {"failed": True}
    assert said(3, REST=600, CODE=0) == {
        "summary": "1 failed in 2 s, stopped after 3 s",
        "wrong": ["FAILED tests/a.py::b - why"],
        "failed": True,
    }


def test_the_listed_launches_are_those_of_the_timed_networks():
    assert {name: (widths, batch) for name, (widths, batch, _) in NETWORKS.items()} == launches.NETWORKS


@pytest.mark.parametrize("setting", steps.settings(True), ids=lambda setting: setting.name)
def test_the_floors_of_a_step_are_those_of_the_launches_that_are_made(setting):
    """Bytes are compared in test_scaling.py, at sizes where padding and counters are little beside them."""
    require()
    made = launches_of(setting.widths, setting.batch, "float32" if setting.dtype == "float32" else "mixed_bfloat16")
    found = steps.floors(setting)
    assert found["launches"] == len(made)
    assert found["flops"] == sum(launch.flops for launch in made)


def test_the_products_alone_are_those_of_the_step(device, monkeypatch):
    """Three for each layer, less the gradient of the data."""
    from gpu_nn.kernels import cuda_kernels

    flops = []

    def matmul(a, b, out):
        flops.append(2 * a.shape[0] * a.shape[1] * b.shape[1])

    monkeypatch.setattr(cuda_kernels, "matmul", matmul)
    setting = steps.Setting("", [6, 8, 4], 4, 1)
    steps._products_epoch(device, setting)()
    assert len(flops) == 3 * len(list(pairwise(setting.widths))) - 1
    assert sum(flops) == steps.floors(setting)["flops"]


def test_without_nvmath_ours_is_launched_kernel_by_kernel_and_half_types_are_absent():
    with emulated_device(nvmath=False) as device:
        rows, absent = steps.measured(device, True, 1e9, lambda: True, [])
    assert [row["ours"] for row in rows] == [steps.EAGER]
    assert set(rows[0]["microseconds"]) == {steps.EAGER, steps.PRODUCTS}
    assert absent[0].startswith(f"step of A3, {steps.GRAPH} (nvmath-python is not installed: ")
    assert absent[-1].startswith("step of wide, every way (nvmath-python is not installed: ")


def test_a_way_that_memory_does_not_allow_is_said_in_its_cell(device, monkeypatch):
    run_of = large_m._run

    def refused(arrays, chunk_rows):
        if chunk_rows:
            raise MemoryError
        return run_of(arrays, chunk_rows)

    monkeypatch.setattr(large_m, "_run", refused)
    rows = large_m.measured(device, Clock(device, True), emulated=True)
    assert list(rows[0]["microseconds"]) == [large_m.CHUNKS]
    assert " | not enough memory | " in large_m.markdown({"large_m": rows})


def test_goals_are_the_worst_cell_of_a_length_and_the_graph_beside_each_baseline():
    loss = [{"m": 10, "share_of_copy": share} for share in (0.95, 0.89)] + [{"m": 1000, "share_of_copy": 0.91}]
    faster = {steps.TORCH_EAGER: 4.5, steps.REDUCE_OVERHEAD: 1.1}
    networks = [{"network": "A3", "times_as_fast": faster}, {"network": "wide", "share_of_products": 0.96}]
    networks[1]["times_as_fast"] = {}
    result = {"loss": loss, "steps": networks}
    said = {line.partition(": ")[0]: line.split()[-1] for line in results.against_goals(program.goals(result))}
    assert said["loss, 10 classes, least share of copy bandwidth"] == "MISSED"
    assert said["loss, 1000 classes, least share of copy bandwidth"] == "reached"
    assert said["step of A3 × torch eager"] == "reached"
    assert said["step of A3 × torch.compile, reduce-overhead"] == "MISSED"
    assert said["step of wide, share of products"] == "reached"
    assert said["step of A1 × torch eager"] == "4"  # absent, goal 4


def test_the_gpu_is_told_as_nvidia_smi_has_it(device, monkeypatch):
    line = "NVIDIA Something, 570.1, 1980 MHz, 2619 MHz, 1980 MHz, 700.00 W\n"
    monkeypatch.setattr(program.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=line))
    machine = program._gpu(device, emulated=False)
    assert machine["gpu"] == "NVIDIA Something"
    assert machine["clocks.max.sm"] == "1980 MHz"
    assert machine["versions"]["driver"] == "570.1"
    monkeypatch.setattr(program.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
    assert program._gpu(device, emulated=False)["gpu"] == "unknown"


def test_a_machine_without_nvidia_smi_is_measured_all_the_same(device, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert program._gpu(device, emulated=False)["gpu"] == "unknown"
