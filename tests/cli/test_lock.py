import os

import pytest

from gpu_nn.cli.run_folder import LOCK_FILE, locked
from gpu_nn.errors import DataError


def test_one_holds_it_at_a_time_and_leaves_nothing(tmp_path):
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(DataError, match="another process trains in"), locked(tmp_path):
                pass
    with locked(tmp_path):
        assert os.listdir(tmp_path) == [LOCK_FILE]
    assert os.listdir(tmp_path) == []


def test_a_file_that_was_left_holds_nobody_up(tmp_path):
    (tmp_path / LOCK_FILE).touch()
    with locked(tmp_path):
        pass


def test_a_file_that_went_away_while_it_was_waited_for_counts_for_nothing(tmp_path, monkeypatch):
    import fcntl

    real, taken = fcntl.flock, []

    def late(file, what):
        if not taken:
            (tmp_path / LOCK_FILE).unlink()
        taken.append(file)
        real(file, what)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(taken) == 2
        assert (tmp_path / LOCK_FILE).exists()


def test_where_there_are_no_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    import fcntl

    def none(file, what):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path), locked(tmp_path):
        pass
    with locked(tmp_path / "gone"):
        pass


def test_the_lock_of_another_program_stays(tmp_path):
    (tmp_path / ".lock").write_text("of another")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "of another"
