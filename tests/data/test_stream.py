"""Streams of rows: what is read, in what order, by which thread, and what is refused."""

import os
import threading
import tracemalloc

import numpy as np
import pytest

from gpu_nn import DataError
from gpu_nn.data import stream
from gpu_nn.data.stream import RowRanges

parquet = pytest.importorskip("pyarrow.parquet")
arrow = pytest.importorskip("pyarrow")

ROWS, INPUTS = 1003, 4
X = np.arange(ROWS * INPUTS, dtype=np.float32).reshape(ROWS, INPUTS)
Y = np.arange(ROWS) % 7


def written(folder, kind):
    """(x, y) for `stream`: the rows in files of that kind."""
    if kind == "npy beside":
        np.save(folder / "x.npy", X)
        np.save(folder / "y.npy", Y)
        return folder / "x.npy", str(folder / "y.npy")
    if kind == "npy column":
        np.save(folder / "x.npy", np.insert(X, 2, Y, axis=1))
        return folder / "x.npy", 2
    if kind == "npy column by column":
        np.save(folder / "x.npy", np.asfortranarray(X))
        np.save(folder / "y.npy", Y)
        return folder / "x.npy", str(folder / "y.npy")
    columns = {f"c{i}": X[:, i] for i in range(INPUTS)} | {"label": Y}
    parquet.write_table(arrow.table(columns), folder / "t.parquet", row_group_size=190)
    return folder / "t.parquet", "label"


KINDS = ["npy beside", "npy column", "npy column by column", "parquet"]


def rows_of(some, **options):
    """The rows of a stream, by the first column of x, and their y."""
    parts = [(x[:, 0].copy() // INPUTS, y.copy()) for x, y in some.windows(**options)]
    return np.concatenate([x for x, _ in parts]).astype(int), np.concatenate([y for _, y in parts])


def test_the_file_of_the_labels_may_be_a_path(tmp_path):
    x, y = written(tmp_path, "npy beside")
    np.testing.assert_array_equal(rows_of(stream(x, tmp_path / "y.npy"))[1], rows_of(stream(x, y))[1])


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name == "gpu_nn prefetcher"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("block", "window"), [(16, 64), (100, 333), (1, 1), (5000, 5000), (190, 1003)])
def test_every_row_comes_once_and_in_order(tmp_path, kind, block, window):
    some = stream(*written(tmp_path, kind), block_rows=block, window_rows=window)
    rows, y = rows_of(some)
    np.testing.assert_array_equal(rows, np.arange(ROWS))
    np.testing.assert_array_equal(y, Y)
    assert (some.shape, len(some)) == ((ROWS, INPUTS), ROWS)
    assert not reading_threads()


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_draws_the_blocks_and_keeps_row_groups_together(tmp_path, kind):
    some = stream(*written(tmp_path, kind), block_rows=32)
    one, other = (some.epoch_ranges(np.random.default_rng(seed)).slice(0, ROWS) for seed in (0, 1))
    assert one != other
    for pieces in (one, other):
        covered = np.concatenate([np.arange(*piece) for piece in pieces])
        np.testing.assert_array_equal(np.sort(covered), np.arange(ROWS))
        groups = [start // 190 for start, _ in pieces] if kind == "parquet" else range(len(pieces))
        assert 1 + np.count_nonzero(np.diff(groups)) == len(set(groups))


def test_the_blocks_of_a_row_group_come_in_an_order_of_their_own(tmp_path):
    parquet.write_table(arrow.table({"x": X[:, 0], "label": Y}), tmp_path / "t.parquet", row_group_size=500)
    some = stream(tmp_path / "t.parquet", block_rows=10)
    orders = [np.array(some.epoch_ranges(np.random.default_rng(seed)).slice(0, ROWS))[:, 0] for seed in (0, 1)]
    for order in orders:
        for group in range(2):
            blocks = order[order // 500 == group]
            assert sorted(blocks) == list(range(500 * group, 500 * group + 500, 10))
            # Of a random order few blocks are followed by the next one.
            assert np.count_nonzero(np.diff(blocks) == 10) < 5
    assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize("y", [Y, Y.tolist(), np.eye(7)[Y]], ids=["array", "list", "targets"])
def test_labels_may_be_an_array_beside_a_file(tmp_path, y):
    path, _ = written(tmp_path, "npy beside")
    rows, found = rows_of(stream(path, y, block_rows=30, window_rows=100))
    np.testing.assert_array_equal(rows, np.arange(ROWS))
    np.testing.assert_array_equal(found, y)


def test_a_slice_of_row_ranges_has_the_rows_at_those_positions():
    random = np.random.default_rng(3)
    starts = np.cumsum(random.integers(1, 9, 40))
    ranges = np.stack([starts[:-1], starts[1:]], 1)[random.permutation(39)]
    flat = np.concatenate([np.arange(*piece) for piece in ranges])
    pieces = RowRanges(ranges)
    assert len(pieces) == len(flat)
    assert pieces.slice(4, 4) == pieces.slice(0, 0) == pieces.slice(len(flat), len(flat)) == []
    for begin in range(0, len(flat), 3):
        for end in range(begin + 1, len(flat) + 1, 7):
            found = np.concatenate([np.arange(*piece) for piece in pieces.slice(begin, end)])
            np.testing.assert_array_equal(found, flat[begin:end])


class TestSplit:
    @pytest.mark.parametrize("kind", KINDS)
    def test_parts_share_no_row_and_have_all(self, tmp_path, kind):
        some = stream(*written(tmp_path, kind), block_rows=20)
        first, second = some.split("test", 0.2, seed=4)
        both = [rows_of(part)[0] for part in (first, second)]
        np.testing.assert_array_equal(np.sort(np.concatenate(both)), np.arange(ROWS))
        assert len(second) == round(0.2 * ROWS)
        np.testing.assert_array_equal(rows_of(some.split("test", 0.2, seed=4)[1])[0], both[1])
        assert rows_of(some.split("test", 0.2, seed=5)[1])[0].tolist() != both[1].tolist()

    @pytest.mark.parametrize("last", [1, 19, 20, 500, ROWS - 1])
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_last_rows(self, tmp_path, kind, last):
        first, second = stream(*written(tmp_path, kind), block_rows=20).split("test", 0.5, last)
        np.testing.assert_array_equal(rows_of(first)[0], np.arange(ROWS - last))
        np.testing.assert_array_equal(rows_of(second)[0], np.arange(ROWS - last, ROWS))

    def test_a_part_of_a_part(self):
        training = stream(X, Y, block_rows=20).split("test", 0.3)[0]
        rest, held_out = training.split("validation", 0.3)
        found = np.concatenate([rows_of(part)[0] for part in (rest, held_out)])
        np.testing.assert_array_equal(np.sort(found), rows_of(training)[0])

    @pytest.mark.parametrize("block", [1, 3, 15, 2000])
    @pytest.mark.parametrize("fraction", [1e-9, 0.001, 0.2, 0.5, 0.97, 1 - 1e-9])
    def test_as_many_rows_are_drawn_as_the_fraction_says_but_one_at_least_on_either_side(self, block, fraction):
        first, second = stream(X, Y, block_rows=block).split("test", fraction)
        assert len(second) == min(max(round(fraction * ROWS), 1), ROWS - 1)
        assert sorted([*rows_of(first)[0], *rows_of(second)[0]]) == list(range(ROWS))

    def test_of_rows_in_the_order_of_their_classes_each_class_has_its_share_in_both_parts(self):
        n = 20_000
        y = np.sort(np.random.default_rng(0).choice(10, n, p=np.arange(1, 11) / 55))
        some = stream(np.zeros((n, 1)), y)
        assert some.block_rows < n // 250
        for seed in range(5):
            for part in some.split("test", 0.1, seed=seed):
                counts = np.bincount(rows_of(part)[1], minlength=10)
                # It is short of, or has too much of, what is drawn of the blocks in which it begins and ends.
                atol = 2 * 0.1 * some.block_rows / len(part)
                np.testing.assert_allclose(counts / len(part), np.bincount(y) / n, atol=atol)

    def test_of_rows_whose_classes_take_turns_with_the_blocks_no_class_is_missing_in_either_part(self):
        """Rows at even distances would be of one class."""
        n = 2000
        for part in stream(np.zeros((n, 1)), np.arange(n) % 5, block_rows=1).split("test", 0.2):
            counts = np.bincount(rows_of(part)[1], minlength=5)
            np.testing.assert_allclose(counts / len(part), 0.2, atol=0.06)

    def test_the_rows_drawn_from_a_block_are_consecutive_or_wrap_around(self):
        some = stream(X, Y, block_rows=100)
        for part in some.split("test", 0.3):
            block = part.ranges[:, 0] // 100
            assert (block == (part.ranges[:, 1] - 1) // 100).all()
            assert (np.bincount(block) <= 2).all()

    def test_each_row_is_drawn_as_often_as_any_other(self):
        some, draws = stream(X[:30], Y[:30], block_rows=7), 2000
        counts = np.zeros(30, int)
        for seed in range(draws):
            counts += np.bincount(rows_of(some.split("test", 0.2, seed=seed)[1])[0], minlength=30)
        # Six standard deviations.
        assert np.abs(counts - 0.2 * draws).max() < 6 * np.sqrt(draws * 0.2 * 0.8)

    def test_no_part_is_empty(self):
        with pytest.raises(DataError, match=r"x has 1 row; its test part cannot be 0\.2 of it: add rows"):
            stream(X[:1], Y[:1]).split("test", 0.2)
        for last in (0, ROWS):
            with pytest.raises(DataError, match="cannot be the last"):
                stream(X, Y).split("test", 0.2, last)


class TestPrefetcher:
    def reader(self, some, window=64):
        x, pieces = np.empty((window, INPUTS), np.float32), some.epoch_ranges(None)
        windows = ((pieces.slice(begin, min(begin + window, ROWS)), None) for begin in range(0, ROWS, window))
        return some.prefetch(windows, x)

    def test_a_window_is_read_while_the_one_before_is_in_use(self, monkeypatch):
        some = stream(X, Y, block_rows=16)
        read = threading.Event()
        load = some.reader.load

        def spy(start, stop):
            if start >= 64:
                read.set()
            return load(start, stop)

        monkeypatch.setattr(some.reader, "load", spy)
        with self.reader(some) as ahead:
            with ahead.window() as (x, _):
                assert not read.wait(0.05)  # the buffer is in use
                np.testing.assert_array_equal(x, X[:64])
            assert read.wait(10)

    def test_a_window_is_of_any_ranges_or_some_of_their_rows_or_none(self):
        some, buffers = stream(X, Y, block_rows=16), (np.empty((30, INPUTS)), np.empty(30, np.int64))
        mask = np.arange(30) % 3 == 1
        windows = [([(5, 9), (2, 4)], None), ([], None), ([(100, 116), (700, 714)], mask), ([], mask[:0])]
        with some.prefetch(windows, *buffers, 7) as ahead:
            for ranges, wanted in windows:
                rows = np.concatenate([np.empty(0, int), *(np.arange(*one) for one in ranges)])
                rows = rows if wanted is None else rows[wanted]
                with ahead.window() as (x, y):
                    np.testing.assert_array_equal(x, X[rows])
                    np.testing.assert_array_equal(y, Y[rows])

    @pytest.mark.parametrize("windows", [0, 1, 5, 16])
    def test_no_thread_is_left_wherever_it_ends(self, windows):
        with self.reader(stream(X, Y, block_rows=16)) as ahead:
            for _ in range(windows):
                with ahead.window():
                    pass
            assert len(reading_threads()) <= 1
        assert not reading_threads()

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
    def test_no_thread_is_left_after_an_error_in_a_window(self, kind):
        with pytest.raises(kind), self.reader(stream(X, Y, block_rows=16)) as ahead, ahead.window():
            raise kind
        assert not reading_threads()

    def test_an_error_of_the_thread_is_raised_where_the_window_is_asked_for(self, monkeypatch):
        some = stream(X, Y, block_rows=16)
        load = some.reader.load

        def broken(start, stop):
            if start >= 128:
                raise OSError("the disk is gone")
            return load(start, stop)

        monkeypatch.setattr(some.reader, "load", broken)
        with self.reader(some) as ahead:
            for _ in range(2):
                with ahead.window():
                    pass
            with pytest.raises(OSError, match="the disk is gone"), ahead.window():
                pass
        assert not reading_threads()


class TestValues:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e31])
    def test_inputs_must_be_finite(self, value):
        x = X.astype(np.float64)
        x[777, 2] = value
        with pytest.raises(DataError, match=r"x: x\[777, 2\] is .*; expected finite numbers"):
            rows_of(stream(x, Y, block_rows=50))

    def test_a_null_in_a_row_group_is_refused(self, tmp_path):
        columns = {"a": arrow.array([1.0, None, 3.0]), "label": arrow.array([0, 1, 0])}
        parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
        with pytest.raises(DataError, match="column 'a' has nulls, the first in row 1"):
            rows_of(stream(tmp_path / "t.parquet"))

    def test_a_value_of_a_table_is_named_by_its_column(self, tmp_path):
        columns = {"a": np.where(np.arange(300) == 250, np.nan, 1.0), "label": np.arange(300) % 2}
        parquet.write_table(arrow.table(columns), tmp_path / "t.parquet", row_group_size=100)
        with pytest.raises(DataError, match="row 250, column 'a' is nan"):
            rows_of(stream(tmp_path / "t.parquet", block_rows=30))

    @pytest.mark.parametrize("label", [-1, 7])
    def test_indices_must_be_in_range(self, label):
        y = np.where(np.arange(ROWS) == 900, label, Y)
        with pytest.raises(DataError, match=f"from row 900 on: .* = {label}; expected 0 to 6"):
            rows_of(stream(X, y, block_rows=50), n_classes=7)

    def test_labels_must_be_of_the_classes(self):
        y = np.where(np.arange(ROWS) == 905, 99, 10 * Y)
        with pytest.raises(DataError, match="label 99 at row 905 is not one of the 7 classes"):
            rows_of(stream(X, y, block_rows=50, classes=10 * np.arange(7)), n_classes=7)

    def test_labels_as_text_are_named_by_their_rows(self):
        names = np.array(list("abcdefg"))
        y = np.where(np.arange(ROWS) == 905, "z", names[Y])
        with pytest.raises(DataError, match="label z at row 905 is not a class of the model: a, b"):
            rows_of(stream(X, y, block_rows=50, classes=names), n_classes=7)

    def test_a_label_that_is_no_whole_number_is_named_by_its_row(self):
        y = np.where(np.arange(ROWS) == 905, 0.5, Y)
        with pytest.raises(DataError, match=r"x: y\[905\] is 0\.5, not a class"):
            rows_of(stream(X, y, block_rows=50, classes=np.arange(7)[::-1]), n_classes=7)

    @pytest.mark.parametrize("names", [np.arange(7) * 10, np.arange(7.0) - 3, np.array(list("abcdefg"))])
    def test_labels_become_the_indices_of_their_classes(self, names):
        _, y = rows_of(stream(X, names[Y], block_rows=50, classes=names), n_classes=7)
        np.testing.assert_array_equal(y, Y)

    def test_what_is_no_index_is_refused(self):
        with pytest.raises(DataError, match="y is of float64; expected class indices"):
            rows_of(stream(X, Y / 2), n_classes=7)


class TestRefusals:
    def test_sources_that_cannot_be_streamed(self, tmp_path):
        np.savez(tmp_path / "x.npz", x=X, y=Y)
        with pytest.raises(DataError, match=r"x.npz is npz; npy and Parquet files can be streamed"):
            stream(tmp_path / "x.npz")
        with pytest.raises(DataError, match="does not exist"):
            stream(tmp_path / "nothing.npy")

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            (X[:, 0], Y, "expected rows of numbers"),
            (X.astype(str), Y, "expected rows of numbers"),
            (X[:0], Y[:0], "expected rows of numbers"),
            (X, Y[:-1], r"y has shape \(1002,\); expected \(1003,\)"),
        ],
    )
    def test_arrays_that_do_not_fit(self, x, y, message):
        with pytest.raises(DataError, match=message):
            stream(x, y)

    def test_an_array_of_labels_goes_with_an_npy_file_and_its_rows(self, tmp_path):
        path, _ = written(tmp_path, "npy beside")
        with pytest.raises(DataError, match=r"x\.npy: y has shape \(1002,\); expected \(1003,\), one label"):
            stream(path, Y[:-1])
        path, _ = written(tmp_path, "parquet")
        with pytest.raises(DataError, match=r"t\.parquet is Parquet; .*: name the column of its labels"):
            stream(path, Y)

    @pytest.mark.parametrize("size", [0, -1, 1.5])
    def test_sizes(self, size):
        for name in ("block_rows", "window_rows"):
            with pytest.raises(ValueError, match=f"{name}={size}; expected a whole number ≥ 1"):
                stream(X, Y, **{name: size})


def test_a_description_tells_other_data(tmp_path):
    def described(x=X, y=Y, **sizes):
        return stream(x, y, **sizes).fingerprint()

    one = described()
    assert one == described(X.astype(np.float64))
    others = [described(X + 1), described(y=(Y + 1) % 7), described(X[:-1], Y[:-1])]
    others += [described(block_rows=7), described(window_rows=99)]
    others += [part.fingerprint() for part in stream(X, Y, block_rows=20).split("test", 0.5)]
    alike = stream(np.ones_like(X), np.ones_like(Y))
    drawn = [alike.split("test", 0.5, seed=seed)[0].fingerprint() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert all(other != one for other in others)
    path, target = written(tmp_path, "parquet")
    assert described(path, target)["checksum"] == described(path, target)["checksum"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_without_rows_has_an_order_and_a_description(tmp_path, kind):
    some = stream(*written(tmp_path, kind))
    empty = some.row_slice(5, 5)
    for random in (None, np.random.default_rng(0)):
        assert len(empty.epoch_ranges(random)) == 0
    assert list(empty.windows()) == []
    described = empty.fingerprint()
    assert (described["rows"], described["columns"]) == (0, INPUTS)
    assert described["checksum"] != some.fingerprint()["checksum"]


def test_one_row_group_is_in_memory_at_a_time(tmp_path):
    n, inputs = 40_000, 20
    x = np.random.default_rng(0).random((n, inputs), np.float32)
    table = arrow.table({**{f"c{i}": x[:, i] for i in range(inputs)}, "label": np.arange(n) % 2})
    parquet.write_table(table, tmp_path / "t.parquet")
    tracemalloc.start()
    try:
        some = stream(tmp_path / "t.parquet", block_rows=100, window_rows=1000)
        some.fingerprint()
        for _ in some.windows():
            pass
        assert x.nbytes < tracemalloc.get_traced_memory()[1] < 1.8 * x.nbytes
    finally:
        tracemalloc.stop()


def text_labels(path, names, **options):
    columns = {"x": np.arange(len(names), dtype=np.float32), "label": names}
    parquet.write_table(arrow.table(columns), path, row_group_size=100, **options)
    return path


def test_labels_of_text_are_gathered_once_for_all_readers_of_a_file(tmp_path, monkeypatch):
    path = text_labels(tmp_path / "t.parquet", np.array(["a", "b", "7"])[np.arange(300) % 3])
    read, iter_batches = [], parquet.ParquetFile.iter_batches

    def spy(file, rows, groups, columns):
        read.append((tuple(columns), *groups))
        return iter_batches(file, rows, groups, columns)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spy)
    some = stream(path, block_rows=30)
    assert not read  # what is asked for its shape alone costs no pass
    for part in (some, *some.split("test", 0.4)):
        assert set(rows_of(part)[1]) == {"7", "a", "b"}
        part.fingerprint()
    assert sorted(columns for columns in read if columns[0] == ("label",)) == [(("label",), i) for i in range(3)]


def test_a_text_that_a_file_did_not_have_before_is_an_error(tmp_path):
    names = np.array(["a", "c"])[np.arange(300) % 2]
    some = stream(text_labels(tmp_path / "t.parquet", names))
    rows_of(some)
    for text in ("b", "d", ""):
        text_labels(tmp_path / "t.parquet", np.where(np.arange(300) == 250, text, names))
        with pytest.raises(DataError, match=f"column 'label' has '{text}', which it had not before; the file has ch"):
            rows_of(some)


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path):
    source, target = written(tmp_path, "npy beside")
    some = stream(source, target, block_rows=50, window_rows=100)
    windows = some.windows()
    next(windows)
    os.truncate(source, 4096)
    with pytest.raises(DataError, match=r"x\.npy was cut short while it was read"):
        list(windows)
    with pytest.raises(DataError, match="more than its bytes"):
        list(some.windows())
    assert not reading_threads()
