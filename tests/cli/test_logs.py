"""Places of --log and --tensorboard."""

import csv
import json
import os

import numpy as np
import pytest

FAST = ("--epochs", 2, "--hidden", 4, "--device", "cpu")


@pytest.fixture
def points(arrays, tmp_path):
    """Points in a CSV file, their labels in its last column."""
    path = tmp_path / "points.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([*row, label] for row, label in zip(arrays["x"], arrays["y"], strict=True))
    return path


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])
def test_a_log_over_the_data_is_refused_by_whatever_name(refused, points, tmp_path, monkeypatch, dry):
    (tmp_path / "link.csv").symlink_to(points)
    os.link(points, tmp_path / "hard.csv")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for name in (points, "../points.csv", "../link.csv", "../hard.csv"):
        line = refused(2, "train", "--data", points, *FAST, "--log", "a.jsonl", "--log", name, *dry)
        assert line.endswith(" is the file of --data, which it would overwrite; choose another file\n")


def test_a_log_over_a_file_of_the_settings_or_of_an_idx_folder_is_refused(refused, points, tmp_path):
    target, config, idx = tmp_path / "y.npy", tmp_path / "config.toml", tmp_path / "idx"
    idx.mkdir()
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    np.save(target, np.arange(4))
    for file in (config, idx / "a"):
        file.write_text("")
    for flags, file, what in (
        (("--data", tmp_path / "x.npy", "--target", target), target, "the file of --target"),
        (("--config", config), config, "the file of --config"),
        (("--data", idx), idx / "a", "a file of --data"),
    ):
        (tmp_path / "log.csv").symlink_to(file)
        assert f" is {what}" in refused(2, "train", *flags, "--log", tmp_path / "log.csv")
        (tmp_path / "log.csv").unlink()


def test_two_logs_of_one_file_are_refused(refused, data, tmp_path):
    log = tmp_path / "a.csv"
    line = refused(2, "train", "--data", data, *FAST, "--log", log, "--log", tmp_path / "new" / ".." / "a.csv")
    assert " is another log, which it would overwrite" in line


def test_a_log_over_a_file_of_the_run_is_refused(command, refused, data, tmp_path):
    run = ("--data", data, *FAST, "--out", tmp_path / "run")
    assert command("train", *run).code == 0
    for name in ("model.safetensors", "history.json", "config.toml"):
        log = tmp_path / "log.csv"
        os.link(tmp_path / "run" / name, log)
        assert f" is {name} of the run" in refused(2, "train", *run, "--log", log)
        log.unlink()


@pytest.mark.parametrize("place", ["run", "run/checkpoints", "."])
def test_a_log_in_a_folder_that_the_run_makes_is_planned_as_it_is_made(command, data, tmp_path, place):
    new = tmp_path / "new"
    options = ("--data", data, *FAST, "--out", new / "run", "--log", new / place / "log.csv")
    planned = command("train", *options, "--dry-run")
    assert (planned.code, new.exists()) == (0, False)
    assert command("train", *options).code == 0
    assert len((new / place / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])
def test_places_that_cannot_be_written_are_named_before_anything_is_done(refused, data, tmp_path, dry):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder.csv").mkdir()
    for flag, place, message in (
        ("--tensorboard", "file", "cannot be written: Not a directory; choose another folder"),
        ("--tensorboard", "file/board", "cannot be written: Not a directory; choose another folder"),
        ("--log", "gone/a.csv", "cannot be written: No such file or directory; choose another folder"),
        ("--log", "folder.csv", "is a folder; choose a file's name"),
    ):
        options = ("--out", tmp_path / "new" / "run", flag, tmp_path / place, *dry)
        line = refused(3, "train", "--data", data, *FAST, *options)
        assert line == f"gpu-nn train: {flag} {tmp_path / place} {message}\n"


def test_a_log_beside_the_data_is_written(command, points, tmp_path):
    log = tmp_path / "log.jsonl"
    assert command("train", "--data", points, *FAST, "--log", log, "--log", tmp_path / "log.csv").code == 0
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]
