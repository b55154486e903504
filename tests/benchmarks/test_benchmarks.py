"""The benchmark program: every benchmark runs to its end, and its figures are what they say."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth, memory, plots, readme, results, step, timing
from benchmarks.__main__ import MEASURED, OTHERS, main
from benchmarks.results import against_goals
from benchmarks.torch import markdown as torch_table
from gpu_nn.training import trainer

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_every_cpu_benchmark_runs_to_its_end_with_the_installed_baselines():
    before = {path.name: path.read_bytes() for path in results.FOLDER.iterdir()}
    done = run("all", "--quick")
    assert done.returncode == 0, done.stderr
    for name, said in MEASURED.items():
        assert f"{name}: {said}" in done.stdout
    for name in ("scikit-learn", "torch eager", "jax, lax.scan", "thinc"):
        assert f"| {name} |" in done.stdout
    assert {path.name: path.read_bytes() for path in results.FOLDER.iterdir()} == before


def test_every_name_is_a_module_with_an_entry():
    assert all(callable(results.module(name).measure) for name in MEASURED)
    assert all(callable(results.module(name).main) for name in OTHERS)


def test_an_unknown_name_is_a_usage_error():
    assert run("fly").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gpu", "step"), "gpu has a command line of its own and runs alone; run step in another call"),
        (("step", "loss", "readme"), "readme has a command line of its own and runs alone; run step loss in"),
        (("step", "--fast"), "--fast: step takes no option but --quick"),
    ],
)
def test_names_that_do_not_go_together_are_a_usage_error(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["estimators", "gpu", "sums"])
def test_a_benchmark_with_a_command_line_of_its_own_gets_the_arguments_after_its_name(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", name, "--unheard-of"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f" {name}: error: unrecognized arguments: --unheard-of")


def test_without_a_gpu_its_benchmark_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks gpu: device='cuda', but CuPy ")


def test_a_package_that_is_missing_is_named_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("sys.argv", ["benchmarks", "torch"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks torch: torch is not installed: pip install ")


def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.plots", None)
    monkeypatch.setattr("sys.argv", ["benchmarks", "plots"])
    with pytest.raises(ModuleNotFoundError):
        main()


def test_what_is_absent_stands_below_the_table_with_its_reason():
    for path, names in readme.TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name in names:
            absent = results.read(name).get("absent") if (results.FOLDER / f"{name}.json").exists() else None
            block = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
            assert ("Not measured: " in block) == bool(absent and path == readme.DETAILS)
            assert path == readme.README or all(name in block for name in absent or ())
            assert not any("|  |" in line for line in block.splitlines() if line.startswith("|") and name == "memory")


@pytest.mark.parametrize("path", readme.TABLES, ids=["README", "benchmarks"])
def test_the_tables_are_those_of_the_result_files(path):
    assert readme.filled(path) == path.read_text(encoding="utf-8")


def test_a_memory_cell_without_a_figure_says_why():
    row = {"n": 2048, "m": 32_000, "inputs": 256, "logits_bytes": 1, "bytes": {"gpu_nn": 1e6}}
    text = memory.markdown({"losses": [row, row | {"n": 8192, "m": 128_000}], "steps": [], "predictions": []})
    assert "256 | 1.0 | has no such loss | absent | all" in text
    assert "256 | 1.0 | has no such loss | not run: whole logits | all" in text


def test_a_result_says_on_which_code_it_was_measured(monkeypatch, tmp_path):
    code = tmp_path / "kernels.py"
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "_ROOT", tmp_path)
    monkeypatch.setattr(results, "_CPU_CODE", ("*.py",))
    code.write_text('"""Said."""\nx = 1\n')
    results.write("step", {"figure": 1})
    (tmp_path / "results" / "loss.json").write_text("{}")
    code.write_text('"""Said otherwise."""\nx = 1  # why\n')
    assert results.older(["step"]) == []
    code.write_text("x = 2\n")
    assert results.older(["step", "loss"]) == [
        "step.json was measured on other code than *.py is now",
        "loss.json does not say on which code it was measured",
    ]


def test_the_torch_table_has_the_floor_and_our_share_where_they_were_measured():
    time = {"low": 1.0, "median": 2.0, "high": 3.0}
    row = {"rows": 8, "classes": 4, "ratio": 1.5, "milliseconds": {"gpu_nn": time, "log1p(-p)": time}}
    assert "| 1.5 | not measured |  |" in torch_table({"speed": [row], "training": []})
    row["milliseconds"] |= {"copy": {name: value / 4 for name, value in time.items()}}
    assert "| 1.5 | 0.5 (0.25–0.75) | 25 % |" in torch_table({"speed": [row], "training": []})


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
    checked, load = [], trainer.training_loader

    def slow(*arguments):
        time.sleep(0.5)
        checked.append(True)
        return load(*arguments)

    monkeypatch.setattr(trainer, "training_loader", slow)
    assert 0 < epoch() < 0.5
    assert checked == [True]


@pytest.mark.parametrize("who", [who for who in memory.STEPS if memory.here(who)])
def test_memory_of_a_prediction_is_that_beyond_its_result(who):
    rows, widest = 40_000, 256
    found = memory.in_a_process({"who": who, "network": "A1", "rows": rows})
    # Ours goes by 2,048 rows; the others hold at least the widest layer of all rows.
    assert found < 4 * rows * widest / 2 if who == "gpu_nn" else found > 4 * rows * widest / 2


def test_ratios_are_medians_over_the_rounds():
    assert timing.ratios({"gpu_nn": [1.0, 2.0, 4.0], "baseline": [2.0, 8.0, 4.0]}) == {"baseline": 2.0}


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
    parts = step.parts([4, 5, 3], 4, x, y, epochs=2)
    assert {"dense", "dense_backward", "softmax_cross_entropy", "adam", "gather", "between kernels"} <= set(parts)
    assert all(value > 0 for value in parts.values())


def test_a_goal_is_reached_or_missed_from_the_right_side():
    goals = [("a", 1.0, 2.0), ("b", 3.0, 2.0), ("c", None, 2.0)]
    assert [line.split()[-1] for line in against_goals(goals)] == ["MISSED", "reached", "2"]
    assert [line.split()[-1] for line in against_goals(goals, upper_bounds=True)] == ["reached", "MISSED", "2"]


@pytest.mark.parametrize("name", plots.measured())
def test_a_plot_is_that_of_the_result_file(name, tmp_path):
    """By what it says of itself: its bytes change with the release of Matplotlib."""
    result = results.read(name)
    drawn = plots.drawn_from(result)
    assert drawn in (results.FOLDER / f"{name}.svg").read_text(encoding="utf-8"), "run python -m benchmarks plots"
    plots.draw(name, result, tmp_path / "drawn.svg")
    assert drawn in (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert plots.drawn_from(result | {"more": 1}) != drawn


def test_bars_are_medians_with_their_spread_and_the_names_of_the_runs():
    runs = {
        "gpu_nn": {"low": 1.0, "median": 2.0, "high": 4.0},
        "baseline": {"low": 5.0, "median": 6.0, "high": 9.0},
    }
    (axes,) = plots.bars("Title", {"panel": runs}).axes
    assert (axes.get_title(), axes.get_xlabel()) == ("panel", "µs")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["baseline", "gpu_nn"]
    assert [bar.get_width() for bar in axes.patches] == [6.0, 2.0]
    assert [line[:, 0].tolist() for line in axes.collections[0].get_segments()] == [[5.0, 9.0], [1.0, 4.0]]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


@pytest.mark.parametrize(("name", "panels"), [("loss", "shapes"), ("step", "networks")])
def test_every_run_of_a_result_is_a_bar(name, panels):
    result = results.read(name)
    for axes, row in zip(plots.FIGURES[name](result).axes, result[panels], strict=True):
        medians = [spread["median"] for run, spread in row["microseconds"].items() if run != "best jax"]
        assert sorted(bar.get_width() for bar in axes.patches) == sorted(medians)


def test_growth_is_drawn_with_its_exponents():
    row = {"series": "n", "sizes": [1, 2], "microseconds": [3, 6], "bytes": [4, 8]}
    row |= {"time_exponent": 1.0, "memory_exponent": 1.0}
    time, memory = plots.FIGURES["growth"]({"series": [row]}).axes
    for axes, label, y in ((time, "µs", [3, 6]), (memory, "bytes", [4, 8])):
        assert (axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()) == (label, "log", "log")
        (line,) = axes.get_lines()
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], y)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["n: exponent 1.00"]
