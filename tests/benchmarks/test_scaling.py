"""The model of training by many ranks: its work is that of the launches, its sums are the textbook's."""

from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from benchmarks import results
from benchmarks.distributed import model, scaling
from benchmarks.distributed.model import (
    H100,
    NDR,
    NVLINK,
    PCIE_4,
    PCIE_5,
    Cpu,
    all_reduce_seconds,
    buckets,
    rows_for,
    step,
)
from benchmarks.roofline import Training
from benchmarks.step import NETWORKS
from gpu_nn import SGD, Network, Trainer
from tests.cuda_emulator import require
from tests.cuda_src.launches import launches_of


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("mixed_bfloat16", 2)])
@pytest.mark.parametrize(("widths", "batch"), [(NETWORKS["A3"][0], 32), ([160, 96, 64, 32, 10], 64)])
def test_the_work_on_paper_is_that_of_the_launches_that_are_made(widths, batch, dtype, size):
    require()
    made, paper = launches_of(widths, batch, dtype), Training("", widths, batch, size).launches()
    assert sum(launch.kernels for launch in paper) == len(made)
    assert sum(launch.operations for launch in paper) == sum(launch.flops for launch in made)
    assert sum(launch.bytes for launch in paper) == pytest.approx(sum(launch.bytes for launch in made), rel=0.02)


def test_what_the_readme_says_of_the_model_is_what_it_computes_with():
    text = " ".join((Path(results.__file__).parent / "README.md").read_text(encoding="utf-8").split())
    teraflops = [f"{H100.products[size] / 1e12:g}" for size in (4, 2)]
    assert f"({H100.memory / 1e12:g} TB/s; {teraflops[0]} TFLOP/s in float32, {teraflops[1]} in bfloat16)" in text
    assert f"and {1e6 * H100.launch:g} µs a kernel" in text
    hops = [(f"{1e6 * link.ring:g}", f"{1e6 * link.tree:g}") for link in (NVLINK, PCIE_4, NDR)]
    assert "{} and {} µs by NVLink, {} and {} µs by PCIe, {} and {} µs between hosts".format(*chain(*hops)) in text
    assert (PCIE_5.ring, PCIE_5.tree) == (PCIE_4.ring, PCIE_4.tree)


def test_the_gradient_is_that_of_the_network():
    for training in model.PAPER:
        if training.size == 4:
            # Each array begins at 16 bytes.
            padding = Network(training.widths, device="cpu").flat_grads.nbytes - training.gradient_bytes
            assert 0 <= padding < 16 * 2 * len(training.layers)
    mixed = Training("", [8, 4, 2], 1, size=2)
    assert mixed.gradient_bytes == 4 * (8 * 4 + 4 + 4 * 2 + 2)


@pytest.mark.parametrize("p", [2, 8, 16, 1024])
def test_a_large_sum_takes_what_the_slowest_link_needs_for_nearly_twice_the_bytes(p):
    n_bytes = 1e12
    bandwidth = (NVLINK if p <= 8 else NDR).bandwidth
    assert all_reduce_seconds(n_bytes, p) == pytest.approx(2 * (p - 1) / p * n_bytes / bandwidth, rel=1e-3)


def test_a_small_sum_takes_hops_that_grow_as_a_logarithm():
    assert all_reduce_seconds(4, 1) == 0
    doubled = [all_reduce_seconds(4, 2 * p) - all_reduce_seconds(4, p) for p in (16, 64, 512)]
    assert doubled == pytest.approx([2 * NDR.tree] * 3, rel=1e-6)
    assert all_reduce_seconds(4, 8, PCIE_4) > all_reduce_seconds(4, 8, NVLINK)


def test_a_step_of_one_gpu_has_no_sums_and_its_work_shrinks_with_the_rows():
    training = Training("", [4096, 4096, 10], 1024)
    alone = step(training, 1024, 1)
    assert alone.sums == alone.hidden == 0
    assert alone.seconds == alone.work == alone.at_once
    products = 2 * 2 * 1024 * 4096 * 4096 / H100.products[4]
    assert products < alone.work < 2 * products
    assert step(training, 512, 1).work < alone.work


def test_buckets_hide_all_but_the_last_of_what_backward_is_longer_than():
    deep = Training("", [4096] * 9, 65_536, size=2)
    found = step(deep, deep.batch, 8)
    assert found.seconds == pytest.approx(found.work + found.bucket_sums[-1])
    assert 0.8 < found.hidden < 1
    small = step(model.PAPER[2], 32, 1024)
    assert small.seconds == small.at_once


def test_buckets_are_those_that_a_step_sums(monkeypatch):
    """Of a network with a layer too small for one of its own, one that takes it along, and one that does not fill."""
    from gpu_nn.distributed.communicator import Communicator
    from gpu_nn.training import gradient_sync

    class Pair(Communicator):
        supports_overlap = True
        begun: ClassVar[list] = []

        def all_gather_object(self, value):
            return [value, value]

        def all_reduce_async(self, *arrays):
            self.begun.append(sum(array.nbytes for array in arrays))

    monkeypatch.setattr(gradient_sync, "_BUCKET_BYTES", 5_000)
    training = Training("", [16, 64, 32, 48, 16, 16], 8)
    net = Network(training.widths, device="cpu")
    trainer = Trainer(net, SGD(), batch_size=8, communicator=Pair(0, 2))
    trainer.fit(np.ones((8, 16)), np.zeros(8, int), epochs=1)
    *paper, rest = [n_bytes for n_bytes in buckets(training) if n_bytes]
    assert Pair.begun[:-1] == paper == [4 * (16 * 16 + 48 * 16 + 32 * 48), 4 * 64 * 32]
    assert Pair.begun[-1] == rest + net.flat.reduce_scalars.nbytes


def test_the_rows_that_a_share_needs_are_the_fewest():
    for training in model.PAPER:
        for p in (2, 1024):
            rows = rows_for(training, p, 0.9)
            at, below = (step(training, r, p) for r in (rows, rows - 1))
            assert at.work / at.seconds >= 0.9 > below.work / below.seconds


def test_ranks_that_share_a_core_work_for_a_part_of_the_time():
    cpu = Cpu(cores=2, fixed=1.0, a_row=0.5, start=0.25, a_byte=0.125, wait=10.0)
    assert [cpu.work(4, p) for p in (1, 2, 4)] == [3, 3, 6]
    assert [cpu.sum(8, p) for p in (1, 2, 4)] == [0, 1.25, 2 * (2 * 1.25 + 10)]
    assert cpu.step(4, 8, 2) == 3 + 1.25


def test_a_line_is_found_and_never_below_0():
    assert scaling.line_through({"1": 5.0, "2": 7.0, "10": 23.0}) == pytest.approx((3, 2))
    start, slope = scaling.line_through({"1": 1.0, "10": 12.0})
    assert start == 0
    assert slope == pytest.approx(1.1, rel=0.05)


def test_predictions_come_from_micro_runs_alone():
    result = results.read("scaling")
    before = scaling.compared(result)
    for found in result["runs"].values():
        for network in found["networks"].values():
            for kind in ("strong", "weak"):
                network[kind] = {"seconds": 1.0, "in_sum": 1.0}
    assert [line["predicted"] for line in scaling.compared(result)] == [line["predicted"] for line in before]


def test_ranks_measure_sums_steps_and_their_work(monkeypatch):
    monkeypatch.setattr(scaling, "STEPS", {"A3": 3})
    alone, pair = (scaling.ranks_measured(p, 3, 1)[0] for p in (1, 2))
    assert (alone["ranks"], alone["sums"]) == (1, {})
    assert len(pair["sums"]) >= 4
    for found in (alone, pair):
        network = found["networks"]["A3"]
        assert set(network["by_rows"]) == {"8", "16", "32"}
        assert all(0 < network[kind]["seconds"] < 1 for kind in ("strong", "weak"))
    assert 0 < pair["networks"]["A3"]["strong"]["in_sum"] < pair["networks"]["A3"]["strong"]["seconds"] * 2
