import errno
import json
import struct

import numpy as np
import pytest

from gpu_nn import DataError, files
from gpu_nn.training import checkpoint
from gpu_nn.training.checkpoint import DamagedCheckpoint, list_checkpoints, read, read_newest, write

TRAINING = {"settings": {"a": 1}, "cost": 0.1 + 0.2, "best": float("inf"), "name": "été"}
ARRAYS = {
    "network.parameters": np.linspace(0, 1, 50, dtype=np.float32),
    "network.1.counter": np.array([2**64 - 1], np.uint64),
    "callback.0.best": np.eye(3),
    "losses": np.zeros(0),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / checkpoint.file_name(7)
    write(path, TRAINING, ARRAYS)
    return path


def with_metadata(path, **changes):
    """The file with other metadata."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] |= changes
    header["__metadata__"] = {name: value for name, value in header["__metadata__"].items() if value is not None}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def test_what_is_written_is_read_again_bit_by_bit(path):
    found = read(path)
    assert found.training == TRAINING
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()


def test_the_format_is_safetensors_with_what_the_documentation_says(path):
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"format", "version", "checksum", "training"}
    assert (metadata["format"], metadata["version"]) == ("gpu_nn.checkpoint", "1")
    assert len(metadata["checksum"]) == 64


class TestDamage:
    def test_a_file_cut_short_anywhere_is_damaged(self, path):
        content = path.read_bytes()
        for size in {0, 1, 7, 8, 9, *range(10, len(content), 37), len(content) - 1}:
            path.write_bytes(content[:size])
            with pytest.raises(DamagedCheckpoint, match=f"{path.name} is damaged"):
                read(path)

    def test_a_bit_changed_anywhere_is_found(self, path):
        content = path.read_bytes()
        for at in range(len(content)):
            changed = bytearray(content)
            changed[at] ^= 1 << at % 8
            path.write_bytes(changed)
            try:
                found = read(path)
            except DataError:
                continue
            # safetensors' own header has room for a change that means nothing, such as a tab for a space.
            assert found.training == TRAINING
            assert {name: array.tobytes() for name, array in found.arrays.items()} == {
                name: array.tobytes() for name, array in ARRAYS.items()
            }

    def test_bytes_at_the_end_are_damage(self, path):
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(DamagedCheckpoint):
            read(path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"checksum": None},
            {"checksum": "0" * 64},
            {"training": None},
            {"training": '{"settings": {"a": 2}}'},
            {"training": "[" * 100_000},
        ],
        ids=str,
    )
    def test_a_header_that_is_not_the_one_written_is_damage(self, path, changes):
        with_metadata(path, **changes)
        with pytest.raises(DamagedCheckpoint):
            read(path)

    @pytest.mark.parametrize("text", ["[]", "1", "{", "", "[" * 100_000])
    def test_a_header_of_another_shape_is_damage_even_with_its_checksum(self, path, text):
        arrays = read(path).arrays
        with_metadata(path, training=text, checksum=checkpoint._checksum(text, arrays))
        with pytest.raises(DamagedCheckpoint):
            read(path)


class TestOtherFiles:
    def test_a_missing_one(self, tmp_path):
        with pytest.raises(DataError, match="gone does not exist"):
            read(tmp_path / "gone")

    def test_one_of_a_newer_version_is_not_taken_for_damaged(self, path, tmp_path):
        write(tmp_path / checkpoint.file_name(3), TRAINING, ARRAYS)
        with_metadata(path, version="2")
        for find in (read, lambda path: read_newest(path.parent)):
            with pytest.raises(DataError, match="format version '2'; this gpu_nn reads version 1: upgrade") as caught:
                find(path)
            assert not isinstance(caught.value, DamagedCheckpoint)

    def test_one_of_another_kind(self, tmp_path):
        from gpu_nn import Network, save

        save(Network([2, 2], device="cpu"), tmp_path / "model")
        with pytest.raises(DataError, match="is a safetensors file, but no checkpoint of gpu_nn"):
            read(tmp_path / "model")


class TestNewest:
    def test_it_is_the_one_of_the_most_steps(self, tmp_path):
        for steps in (9, 1000, 70):
            write(tmp_path / checkpoint.file_name(steps), {"steps": steps}, {})
        (tmp_path / "steps-of-others.safetensors").write_text("")
        (tmp_path / ".steps-000000002000.safetensors.half").write_text("")
        assert list(list_checkpoints(tmp_path)) == [1000, 70, 9]
        found, damages = read_newest(tmp_path)
        assert (found.training["steps"], damages) == (1000, [])

    def test_damaged_ones_are_passed_over_and_told(self, tmp_path):
        for steps in (1, 2, 3):
            write(tmp_path / checkpoint.file_name(steps), {"steps": steps}, {})
        (tmp_path / checkpoint.file_name(2)).write_bytes(b"")
        (tmp_path / checkpoint.file_name(3)).write_bytes(b"\xff" * 100)
        found, damages = read_newest(tmp_path)
        assert found.training["steps"] == 1
        assert [damage.partition(" is damaged")[0] for damage in damages] == [
            str(tmp_path / checkpoint.file_name(steps)) for steps in (3, 2)
        ]

    @pytest.mark.parametrize("changes", [{"format": "gpu_nn.checkpoinu"}, {"version": "q"}, {"version": None}], ids=str)
    def test_one_whose_kind_or_version_is_spoilt_is_passed_over(self, tmp_path, changes):
        for steps in (1, 2):
            write(tmp_path / checkpoint.file_name(steps), {"steps": steps}, {})
        with_metadata(tmp_path / checkpoint.file_name(2), **changes)
        found, damages = read_newest(tmp_path)
        assert (found.training["steps"], len(damages)) == (1, 1)

    def test_one_that_a_training_takes_away_meanwhile_gives_way_to_its_next(self, tmp_path, monkeypatch):
        write(tmp_path / checkpoint.file_name(1), TRAINING, ARRAYS)

        def late(path):
            monkeypatch.setattr(checkpoint, "read", read)
            write(tmp_path / checkpoint.file_name(2), TRAINING, ARRAYS)
            (tmp_path / checkpoint.file_name(1)).unlink()
            return read(path)

        monkeypatch.setattr(checkpoint, "read", late)
        found, damages = read_newest(tmp_path)
        assert (found.path.name, damages) == (checkpoint.file_name(2), [])

    def test_a_name_that_leads_nowhere_is_passed_over(self, tmp_path):
        write(tmp_path / checkpoint.file_name(1), TRAINING, ARRAYS)
        (tmp_path / checkpoint.file_name(2)).symlink_to("nowhere")
        found, damages = read_newest(tmp_path)
        assert (found.path.name, damages) == (
            checkpoint.file_name(1),
            [f"{tmp_path / checkpoint.file_name(2)} does not exist"],
        )

    def test_a_folder_without_a_whole_one(self, tmp_path):
        with pytest.raises(DataError, match="holds no checkpoint"):
            read_newest(tmp_path)
        (tmp_path / checkpoint.file_name(2)).write_bytes(b"")
        with pytest.raises(DataError, match=r"holds no whole checkpoint: .*002.safetensors is damaged"):
            read_newest(tmp_path)


class TestWriting:
    def test_a_full_disk_leaves_the_older_file_whole_and_nothing_else(self, path, monkeypatch):
        before = path.read_bytes()

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(DataError, match=f"cannot write {path}: No space left on device"):
            write(path, {}, {})
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_a_disk_that_takes_only_a_part_leaves_the_older_file_whole_and_nothing_else(self, path):
        resource = pytest.importorskip("resource")
        before = path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(DataError, match=f"cannot write {path}: File too large"):
                write(path, TRAINING, {"network.parameters": np.zeros(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_file_and_folder_are_on_the_disk_in_this_order(self, path, monkeypatch):
        done = []
        real = {name: getattr(files.os, name) for name in ("fsync", "replace", "open")}
        monkeypatch.setattr(files.os, "fsync", lambda handle: done.append("fsync") or real["fsync"](handle))
        monkeypatch.setattr(files.os, "replace", lambda *names: done.append("rename") or real["replace"](*names))
        write(path, TRAINING, ARRAYS)
        assert done == ["fsync", "rename", "fsync"]

    def test_a_folder_that_cannot_be_flushed_is_no_error(self, tmp_path):
        files.fsync_folder(tmp_path / "gone")
