import csv
import json
from dataclasses import asdict, fields

import pytest

from gpu_nn import SGD, DataError, Network, Trainer
from gpu_nn.training import Callback, Checkpoints, CsvLog, EpochRecord, JsonLinesLog, Trigger
from tests.training.blobs import blobs


def made(*callbacks):
    return Trainer(Network([5, 3], device="cpu"), SGD(), batch_size=32, callbacks=callbacks)


def from_csv(path):
    with open(path, newline="") as file:
        return [{name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file)]


def from_json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


LOGS = pytest.mark.parametrize(("log", "read"), [(CsvLog, from_csv), (JsonLinesLog, from_json_lines)])


@LOGS
def test_every_epoch_is_there_with_every_field(tmp_path, log, read):
    trainer = made(log(tmp_path / "log"))
    trainer.fit(*blobs(), epochs=3, validation=blobs(seed=3))
    assert read(tmp_path / "log") == [asdict(record) for record in trainer.history.epochs]
    assert list(read(tmp_path / "log")[0]) == [field.name for field in fields(EpochRecord)]


@LOGS
def test_no_validation_is_nothing_rather_than_a_number(tmp_path, log, read):
    made(log(tmp_path / "log")).fit(*blobs(), epochs=1)
    assert read(tmp_path / "log")[0]["validation_loss"] is None
    assert "nan" not in (tmp_path / "log").read_text().lower()


@LOGS
def test_a_line_is_in_the_file_as_soon_as_its_epoch_is_over(tmp_path, log, read):
    seen = []
    trainer = made(log(tmp_path / "log"), lambda *_: seen.append(len(read(tmp_path / "log"))))
    trainer.fit(*blobs(), epochs=3)
    assert seen == [1, 2, 3]


@LOGS
def test_a_resumed_training_goes_on_without_doubles_gaps_or_the_half_of_a_line(tmp_path, log, read):
    class Crash(Callback):
        every = Trigger(steps=29)

        def __call__(self, trainer, record):
            raise ZeroDivisionError

    def callbacks():
        # Checkpoints after epochs 2 and 4: the log has epoch 3 when the training breaks off, the checkpoint has not.
        return log(tmp_path / "log"), Checkpoints(tmp_path / "saved", Trigger(epochs=2))

    with pytest.raises(ZeroDivisionError):
        made(*callbacks(), Crash()).fit(*blobs(), epochs=5)
    assert len(read(tmp_path / "log")) == 3
    with open(tmp_path / "log", "a") as file:
        file.write("4,0.1")
    trainer = made(*callbacks())
    trainer.fit(*blobs(), epochs=5, resume=tmp_path / "saved")
    assert [row["epoch"] for row in read(tmp_path / "log")] == [1, 2, 3, 4, 5]
    assert read(tmp_path / "log") == [asdict(record) for record in trainer.history.epochs]


@LOGS
def test_a_new_training_replaces_an_older_log(tmp_path, log, read):
    for epochs in (4, 2):
        made(log(tmp_path / "log")).fit(*blobs(), epochs=epochs)
    assert len(read(tmp_path / "log")) == 2


@LOGS
def test_a_file_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path, log, read):
    trainer = made(log(tmp_path / "gone" / "log"))
    with pytest.raises(DataError, match=r"cannot write .*log: No such file or directory"):
        trainer.fit(*blobs(), epochs=1)
    assert trainer.optimizer.steps == 0


def test_a_log_that_becomes_impossible_to_write_says_so(tmp_path):
    def replace_by_a_folder(*_):
        (tmp_path / "log").unlink(missing_ok=True)
        (tmp_path / "log").mkdir(exist_ok=True)

    trainer = made(replace_by_a_folder, CsvLog(tmp_path / "log"))
    with pytest.raises(DataError, match=r"cannot write .*log: Is a directory"):
        trainer.fit(*blobs(), epochs=1)
