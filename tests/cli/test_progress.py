"""What a terminal, and what a file, shows of a training."""

from types import SimpleNamespace

import pytest

from gpu_nn.cli import training_setup
from tests.cli.test_resume import Raise, with_callback  # noqa: F401

RUN = ("--hidden", 4, "--epochs", 4, "--batch-size", 20, "--device", "cpu")


@pytest.fixture
def terminal(monkeypatch):
    """Lets stderr be one, and gives the bars that are drawn on it, with where each began and ended."""
    import tqdm

    drawn = []

    class Bar(tqdm.tqdm):
        def __init__(self, **options):
            super().__init__(**options, mininterval=0)
            drawn.append(self)
            self.places = []

        def update(self, n=1):
            super().update(n)
            self.places.append(self.n)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(training_setup, "sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True)))
    return drawn


def test_a_file_has_a_line_for_each_epoch(command, data):
    lines = command("train", "--data", data, *RUN).err.splitlines()
    assert [line.partition(",")[0] for line in lines if line.startswith("epoch")] == [f"epoch {i}" for i in range(1, 5)]


def test_a_terminal_has_a_bar_of_the_rows(command, data, terminal):
    done = command("train", "--data", data, *RUN)
    (bar,) = terminal
    assert (done.code, bar.total, bar.disable) == (0, 4 * 72, True)  # closed
    assert bar.places == [0, *(72 * i + n for i in range(4) for n in (20, 40, 60, 72))]
    assert bar.postfix.startswith("epoch 4, loss ")
    assert "\nepoch 4" not in done.err


def test_the_bar_of_a_resumed_run_begins_where_the_run_is(command, data, tmp_path, terminal, with_callback):  # noqa: F811
    with_callback(Raise(7, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", "--data", data, *RUN, "--checkpoint-every", "6steps", "--out", tmp_path / "run")
    with_callback(None)
    assert command("train", "--resume", tmp_path / "run").code == 0
    bar = terminal[-1]
    assert bar.places[:3] == [72 + 40, 72 + 60, 72 + 72]
    assert bar.places[-1] == bar.total
