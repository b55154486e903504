"""The benchmarks that PyTorch takes part in. On the emulated device it stands beside ours on the CPU."""

import pytest
import torch

from benchmarks import baselines
from benchmarks.gpu import loss, steps
from benchmarks.gpu.clock import Clock
from benchmarks.torch import speed, training
from tests.cuda_emulator.device import emulated_device

WAYS = (steps.GRAPH, steps.FULL, steps.EAGER, steps.PRODUCTS)


@pytest.fixture
def device():
    with emulated_device(nvmath=True) as found:
        yield found


@pytest.fixture
def torch_on_the_cpu(monkeypatch):
    """PyTorch's code beside ours, on the CPU and not compiled; Liger's cost is PyTorch's."""
    monkeypatch.setattr(baselines, "TORCH_DEVICE", "cpu")
    monkeypatch.setattr(baselines, "why_no_torch", lambda emulated: "")
    monkeypatch.setattr(baselines, "why_no_liger", lambda emulated: "")
    monkeypatch.setattr(loss, "_liger", lambda: baselines.torch_standard)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def test_a_copy_of_the_logits_is_timed_by_turns_with_the_costs():
    found = speed(64, 10, rounds=1)["milliseconds"]
    assert set(found) == {"gpu_nn", "log1p(-p)", "log(-expm1(log p))", "copy"}
    assert 0 < found["copy"]["median"] < found["gpu_nn"]["median"]


@pytest.mark.parametrize("cost", ["standard", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_baselines_compute_our_cost_of_our_logits(device, torch_on_the_cpu, dtype, cost):
    facts = {"m": 1000, "dtype": dtype, "target": "index", "cost": cost}
    workload = next(w for w in loss.workloads(device, 1 << 14, True) if facts.items() <= w.facts.items())
    row, absent = loss.measured(device, Clock(device, True), workload, compiled=True)
    assert absent == []
    theirs = {"torch eager", "torch.compile"} | ({"Liger"} if cost == "standard" else set())
    assert set(row["microseconds"]) == {"gpu_nn", "copy", *theirs}
    assert all(row["times_as_fast"][name] > 0 for name in theirs)
    assert loss.markdown({"loss": [row]}).count(" × |") == len(theirs)


def test_a_baseline_with_another_cost_is_left_out_and_named(device, torch_on_the_cpu, monkeypatch):
    monkeypatch.setattr(baselines, "torch_standard", lambda z, y: 2 * z.sum())
    workload = next(loss.workloads(device, 1 << 14, True))
    row, absent = loss.measured(device, Clock(device, True), workload, compiled=False)
    assert set(row["microseconds"]) == {"gpu_nn", "copy"}
    assert [name.partition(" at ")[0] for name in absent] == ["torch eager", "Liger"]
    assert all("not the same cost" in reason for reason in absent)


def test_a_step_is_timed_beside_torch_and_its_floors(device, torch_on_the_cpu):
    rows, absent = steps.measured(device, True, 1e9, lambda: True, [])
    assert absent == []
    for row, setting in zip(rows, steps.settings(True), strict=True):
        assert set(row["microseconds"]) == {*WAYS, steps.TORCH_EAGER, steps.REDUCE_OVERHEAD}
        assert row["ours"] == steps.GRAPH
        assert row["share_of_products"] == row["times_as_fast"][steps.PRODUCTS]
        seconds = row["microseconds"][steps.GRAPH]["median"] / 1e6
        assert row["share_of_copy"] == pytest.approx(row["bytes"] / 1e9 / seconds)
        assert (row["network"], row["batch"]) == (setting.name, setting.batch)


def test_a_baseline_that_compiles_waits_for_no_time_that_is_not_left(device, torch_on_the_cpu):
    left = iter([True, False, False])
    rows, absent = steps.measured(device, True, 1e9, lambda: next(left), [])
    assert absent == [f"step of A3, {steps.REDUCE_OVERHEAD} (no time left)", "steps of wide (no time left)"]
    assert steps.TORCH_EAGER in rows[0]["microseconds"]


def test_a_script_that_ends_in_nan_with_the_composition_stays_finite():
    composed = training("log(-expm1(log p))", steps=1000)
    assert composed["not_finite_at"] is not None
    ours = training("gpu_nn", steps=1000)
    assert ours["not_finite_at"] is None
    assert ours["accuracy"] > 0.99
