"""The benchmark program: every verb runs to its end, and its figures are what they say."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth, memory, plots, results, step, step_parts, timing
from benchmarks.__main__ import MEASURED, OTHERS, against_goals
from gpu_nn import Trainer

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_every_measured_verb_runs_to_its_end_with_the_peers_that_are_here():
    before = {path.name: path.read_bytes() for path in results.FOLDER.iterdir()}
    done = run("all", "--quick")
    assert done.returncode == 0, done.stderr
    for verb, said in MEASURED.items():
        assert f"{verb}: {said}" in done.stdout
    for peer in ("scikit-learn", "torch eager", "jax, lax.scan", "thinc"):
        assert f"| {peer} |" in done.stdout
    assert {path.name: path.read_bytes() for path in results.FOLDER.iterdir()} == before


def test_every_verb_is_a_module_with_an_entry():
    from importlib import import_module

    assert all(callable(import_module(f"benchmarks.{verb}").measure) for verb in MEASURED)
    assert all(callable(import_module(f"benchmarks.{verb}").main) for verb in OTHERS)


def test_an_unknown_verb_is_a_usage_error():
    assert run("fly").returncode == 2


def test_runs_are_called_by_turns_after_a_warm_up():
    called: list[str] = []
    runs = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    seconds = timing.interleaved(runs, rounds=2, repeats=2)
    assert called == list("aabb" + "bbaa" + "aabb")
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_a_run_with_its_own_clock_is_believed():
    runs = {"own": timing.OwnClock(lambda: 7.0), "timed": lambda: 7.0}
    seconds = timing.interleaved(runs, rounds=1, repeats=3)
    assert seconds["own"] == [7.0]
    assert seconds["timed"][0] < 1


def test_an_epoch_of_ours_counts_without_the_check_of_the_data(monkeypatch):
    x, y = np.ones((8, 4), np.float32), np.arange(8) % 2
    epoch = step.our_epoch([4, 3, 2], 4, x, y, 1.0)
    epoch()
    enter = Trainer._enter

    def slow(*arguments):
        time.sleep(0.5)
        enter(*arguments)

    monkeypatch.setattr(Trainer, "_enter", slow)
    assert 0 < epoch() < 0.5


@pytest.mark.parametrize("who", [who for who in memory.STEPS if memory.here(who)])
def test_memory_of_a_prediction_is_that_beyond_its_result(who):
    rows, widest = 40_000, 256
    found = memory.in_a_process({"who": who, "network": "A1", "rows": rows})
    # Ours goes by 2,048 rows; the others hold at least the widest layer of all rows.
    assert found < 4 * rows * widest / 2 if who == "gpu_nn" else found > 4 * rows * widest / 2


def test_ratios_are_medians_over_the_rounds():
    assert timing.ratios({"gpu_nn": [1.0, 2.0, 4.0], "peer": [2.0, 8.0, 4.0]}) == {"peer": 2.0}


def test_the_exponent_of_a_power_is_found():
    sizes = [2, 8, 32]
    assert growth.exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_peak_memory_sees_what_was_let_go_and_nothing_older():
    """In a process of its own: this one may have freed memory left, which the array would come from."""
    code = """
import numpy as np
from benchmarks import memory
older = np.ones(50_000_000, np.uint8)
del older
before = memory.resident()
array = np.ones(20_000_000, np.uint8)
del array
print(memory.peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    # The kernel's counters lag by some pages a thread.
    assert 19_000_000 < int(done.stdout) < 40_000_000


def test_the_parts_of_a_step_are_its_kernels_and_what_is_between_them():
    x, y = np.ones((8, 4), np.float32), np.arange(8) % 3
    parts = step_parts.parts([4, 5, 3], 4, x, y, epochs=2)
    assert {"dense", "dense_backward", "softmax_cross_entropy", "adam", "gather", "between kernels"} <= set(parts)
    assert all(value > 0 for value in parts.values())


def test_a_goal_is_reached_or_missed_from_the_right_side():
    class Verb:
        goals = staticmethod(lambda result: [("a", 1.0, 2.0), ("b", 3.0, 2.0), ("c", None, 2.0)])

    assert [line.split()[-1] for line in against_goals(Verb, {})] == ["MISSED", "reached", "2"]
    Verb.GOALS_ARE_UPPER_BOUNDS = True
    assert [line.split()[-1] for line in against_goals(Verb, {})] == ["reached", "MISSED", "2"]


@pytest.mark.parametrize("name", plots.measured())
def test_a_plot_is_that_of_the_result_file(name, tmp_path):
    plots.draw(name, results.read(name), tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_bytes() == (results.FOLDER / f"{name}.svg").read_bytes()


def test_growth_is_drawn_with_its_exponents(tmp_path):
    row = {"series": "n", "sizes": [1, 2], "microseconds": [3, 6], "bytes": [4, 8]}
    row |= {"time_exponent": 1.0, "memory_exponent": 1.0}
    plots.draw("growth", {"series": [row]}, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_text().count("exponent 1.00") == 2
