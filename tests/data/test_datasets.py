import numpy as np
import pytest

from gpu_nn.data import digits, read, read_inputs, read_labelled, read_streams, shift_and_scale
from gpu_nn.data.parquet import ParquetTable
from gpu_nn.data.row_readers import ArrayRowReader, ParquetRowReader
from gpu_nn.errors import DataError
from tests.data.files import idx_bytes, write_idx_pair

N = 20
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.arange(N) % 2
IMAGES = np.random.default_rng(1).integers(0, 256, (N, 2, 2), dtype=np.uint8)


@pytest.fixture
def npz(tmp_path):
    """Writes arrays to a file and gives its name."""

    def npz(**arrays) -> str:
        np.savez(tmp_path / "a.npz", **arrays)
        return str(tmp_path / "a.npz")

    return npz


# Reading


def test_the_digits_stand_in_for_no_source():
    data = read(None)
    assert (len(data.x), len(data.x_test), data.x.shape[1], len(data.classes)) == (1437, 360, 64, 10)
    assert data.x.dtype == np.uint8


def test_classes_are_the_labels_in_order_and_y_their_places(npz):
    names = np.array(["dog", "cat"])[Y]
    data = read(npz(x=X, y=names), test_last=5)
    assert data.classes.tolist() == ["cat", "dog"]
    assert data.classes[data.y].tolist() == names[:-5].tolist()
    assert data.classes[data.y_test].tolist() == names[-5:].tolist()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (Y * 10 - 3, [-3, 7]),
        (Y.astype(np.uint64) + 2**63, [2**63, 2**63 + 1]),
        (Y.astype(bool), [False, True]),
        (Y.astype(np.float16), [0, 1]),
        (Y.astype(">i4"), [0, 1]),
        (np.array([b"a", "é".encode()])[Y], ["a", "é"]),
    ],
    ids=["negative", "beyond int64", "bool", "whole floats", "big-endian", "bytes"],
)
def test_labels_of_these_kinds_are_classes(npz, labels, classes):
    assert read(npz(x=X, y=labels)).classes.tolist() == classes


def test_a_test_part_that_the_file_names_is_taken(npz):
    data = read(npz(x=X, y=Y, x_test=X[:4], y_test=Y[:4]))
    assert len(data.x) == N
    np.testing.assert_array_equal(data.x_test, X[:4])


def test_test_last_takes_the_last_rows(npz):
    data = read(npz(x=X, y=Y), test_last=6)
    np.testing.assert_array_equal(data.x_test, X[-6:])
    np.testing.assert_array_equal(data.x, X[:-6])


def test_a_split_is_stratified_complete_and_the_same_for_the_same_seed(npz):
    source = npz(x=X, y=Y)
    data = read(source, 0.2, seed=3)
    assert np.bincount(data.y_test).tolist() == [2, 2]
    np.testing.assert_array_equal(np.sort(np.concatenate([data.x, data.x_test]), axis=0), np.sort(X, axis=0))
    np.testing.assert_array_equal(read(source, 0.2, seed=3).x_test, data.x_test)
    assert (read(source, 0.2, seed=4).x_test != data.x_test).any()


def test_a_class_with_one_row_does_not_stop_the_split(npz):
    assert len(read(npz(x=X, y=np.where(np.arange(N) == 0, 7, Y))).classes) == 3


def test_an_idx_folder_is_read_with_its_own_test_part(tmp_path):
    write_idx_pair(tmp_path, "train", IMAGES, Y.astype(np.uint8))
    write_idx_pair(tmp_path, "t10k", IMAGES[:4], Y[:4].astype(np.uint8))
    data = read(str(tmp_path))
    np.testing.assert_array_equal(data.x, IMAGES.reshape(N, 4))
    np.testing.assert_array_equal(data.y_test, Y[:4])
    x, labels = read_labelled(str(tmp_path))
    assert len(x) == 4
    np.testing.assert_array_equal(labels.classes[labels.codes], Y[:4])


# Bad input


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.where(X[4, 1] == X, np.nan, X), r"x\[4, 1\] is nan; expected finite numbers"),
        (np.where(X[0, 2] == X, np.inf, X), r"x\[0, 2\] is inf; expected finite numbers"),
        (np.where(X[5, 0] == X, -1e40, X), r"x\[5, 0\] is -1e\+40; .*up to 1e\+30 in size"),
        (np.where(np.arange(N)[:, None] == 1, np.inf, X).astype(np.float16), r"x\[1, 0\] is inf"),
        (X[:0], r"x has shape \(0, 3\); expected rows of inputs, at least one"),
        (X[:, :0], r"x has shape \(20, 0\)"),
        (X[:, 0], r"x has shape \(20,\)"),
        (np.array(3.0), r"x has shape \(\)"),
        (X.astype("U8"), "x is of <U8; expected numbers"),
        (X.astype(complex), "x is of complex128; expected numbers"),
        (X.astype("M8[s]"), "x is of datetime64"),
    ],
)
def test_inputs_that_no_network_can_take_are_refused(npz, x, message):
    source = npz(x=x, y=Y)
    with pytest.raises(DataError, match=message):
        read(source)
    with pytest.raises(DataError, match=message):
        read_inputs(source)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y + 0.5, r"y\[0\] is 0\.5, not a class; expected whole numbers or names"),
        (np.where(np.arange(N) == 3, np.nan, Y), r"y\[3\] is nan, not a class"),
        (np.where(np.arange(N) == 3, np.inf, Y), r"y\[3\] is inf, not a class"),
        (np.where(np.arange(N) == 3, 1e300, Y), r"y\[3\] is 1e\+300, not a class"),
        (np.where(np.arange(N) == 3, np.inf, Y).astype(np.float16), r"y\[3\] is inf, not a class"),
        (Y.astype(complex), "y is of complex128; expected whole numbers or names"),
        (Y.astype("m8[s]"), "y is of timedelta64"),
        (np.array([b"\xff"] * N), "y holds bytes that are not UTF-8"),
        (Y[:-1], r"y has shape \(19,\); expected \(20,\), one label for each row of x"),
        (Y[:, None], r"y has shape \(20, 1\)"),
        (np.eye(2)[Y], r"y has shape \(20, 2\)"),
        (Y * 0 + 4, "has 1 class, 4; a classifier needs at least 2"),
        (np.array(["only"] * N), "has 1 class, only;"),
    ],
)
def test_labels_that_are_no_classes_are_refused(npz, y, message):
    with pytest.raises(DataError, match=message):
        read(npz(x=X, y=y))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"x_test": X[:4, :2], "y_test": Y[:4]}, "test rows have 2 columns, training rows 3"),
        ({"x_test": X[:4], "y_test": Y[:4] + 1}, "label 2 at row 1 is not a class of the model: 0, 1$"),
        ({"x_test": X[:4], "y_test": np.array(["0", "1", "0", "1"])}, "label 0 at row 0 is not a class"),
        ({"x_test": X[:4]}, "must hold the arrays x_test and y_test; it holds x, x_test, y"),
        ({"y_test": Y[:4]}, "must hold the arrays x_test and y_test; it holds x, y, y_test"),
        ({"x_test": X[:0], "y_test": Y[:0]}, r"x_test has shape \(0, 3\)"),
        ({"x_test": X[:4] * np.nan, "y_test": Y[:4]}, r"x_test\[0, 0\] is nan"),
        ({"x_test": X[:4], "y_test": Y[:3]}, r"y_test has shape \(3,\); expected \(4,\)"),
        ({"x_test": X[:4], "y_test": Y[:4] + 0.5}, r"y_test\[0\] is 0\.5, not a class"),
    ],
)
def test_a_test_part_that_does_not_fit_is_refused(npz, test, message):
    with pytest.raises(DataError, match=message):
        read(npz(x=X, y=Y, **test))


@pytest.mark.parametrize("arrays", [{"y": Y}, {"x": X}, {"data": X, "target": Y}])
def test_a_file_without_x_or_y_is_refused(npz, arrays):
    with pytest.raises(DataError, match="must hold the arrays x and y; it holds"):
        read(npz(**arrays))


def test_prediction_needs_x_alone(npz):
    np.testing.assert_array_equal(read_inputs(npz(x=X)), X)
    with pytest.raises(DataError, match="has no array x; it holds y"):
        read_inputs(npz(y=Y))


def test_test_last_is_refused_where_the_data_bring_a_test_part(npz):
    with pytest.raises(ValueError, match=r"test_last=5, but .*a\.npz has a test part of its own: leave test_last out"):
        read(npz(x=X, y=Y, x_test=X[:4], y_test=Y[:4]), test_last=5)


@pytest.mark.parametrize("count", [N, N + 1])
def test_a_test_part_of_all_rows_is_refused(npz, count):
    with pytest.raises(DataError, match=f"has 20 rows; its test part cannot be the last {count}"):
        read(npz(x=X, y=Y), test_last=count)


@pytest.mark.parametrize("fraction", [0.951, 0.9999])
def test_a_share_that_leaves_no_row_to_train_on_is_refused_by_its_name(npz, fraction):
    message = rf"has 20 rows, of which test_fraction={fraction} leaves none to train on: choose a smaller one$"
    with pytest.raises(DataError, match=message):
        read(npz(x=X, y=Y), test_fraction=fraction)
    assert len(read(npz(x=X, y=Y), test_fraction=0.95).x) == 1


def test_a_training_part_of_fewer_rows_than_classes_is_drawn_without_regard_to_them(npz):
    assert len(read(npz(x=X, y=np.arange(N) // 2), test_fraction=0.51).x) == 9


@pytest.mark.parametrize("source", ["gone.npz", "gone"])
def test_a_missing_source_is_named(tmp_path, source):
    with pytest.raises(DataError, match=f"{source} does not exist"):
        read(str(tmp_path / source))
    with pytest.raises(DataError, match=f"{source} does not exist"):
        read_inputs(str(tmp_path / source))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:0], Y[:0], r"train images has shape \(0, 2, 2\)"),
        (IMAGES[:, 0, 0], Y, r"train images has shape \(20,\)"),
        (np.full((N, 2), np.nan, np.float32), Y, r"train images\[0, 0\] is nan"),
        (IMAGES, Y + 0.5, r"train labels\[0\] is 0\.5, not a class"),
    ],
)
def test_idx_files_are_held_to_the_same_rules(tmp_path, images, labels, message):
    write_idx_pair(tmp_path, "train", images, labels if labels.dtype.kind == "f" else labels.astype(np.uint8))
    with pytest.raises(DataError, match=message):
        read(str(tmp_path))


def test_a_folder_with_sets_of_other_names_is_refused(tmp_path):
    for name in ("train", "extra"):
        write_idx_pair(tmp_path, name, IMAGES, Y.astype(np.uint8))
    with pytest.raises(DataError, match="holds the sets extra, train; expected one, or train and t10k"):
        read(str(tmp_path))


def test_prediction_reads_one_idx_file_or_all_images_of_a_folder(tmp_path):
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    np.testing.assert_array_equal(read_inputs(str(tmp_path / "a-images-idx3-ubyte")), IMAGES.reshape(N, 4))
    (tmp_path / "b-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[:3]))
    assert read_inputs(str(tmp_path)).shape == (N + 3, 4)
    (tmp_path / "b-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[:, :1]))
    with pytest.raises(DataError, match="holds images of several sizes; name one of its files"):
        read_inputs(str(tmp_path))


def test_labels_are_not_images(tmp_path):
    (tmp_path / "labels").write_bytes(idx_bytes(Y.astype(np.uint8)))
    with pytest.raises(DataError, match=r"its array has shape \(20,\); expected rows of inputs"):
        read_inputs(str(tmp_path / "labels"))


# Scaling


def test_pixels_are_divided_by_the_largest():
    shift, scale = shift_and_scale(digits()[0])
    assert not shift.any()
    np.testing.assert_array_equal(scale, 1 / 16)


def test_other_numbers_are_standardised_by_column():
    shift, scale = shift_and_scale(X)
    scaled = (X - shift) * scale
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize(
    "x", [X * 0, X * 0 + 5, X * 1e-40, X * 1e29, X * 0 - 1, (X * 0).astype(int), (X * 10).astype(int), X > 0]
)
def test_a_scale_is_a_positive_float32_whatever_the_column(x):
    shift, scale = (values.astype(np.float32) for values in shift_and_scale(x))
    assert np.isfinite(shift).all()
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


# Streams


@pytest.fixture(params=["npy", "parquet"])
def large(tmp_path, request):
    """Writes 1000 rows of two columns and their labels to files of a kind; gives the arguments of `read_streams`."""

    def large(y):
        x = np.random.default_rng(2).normal(5, 3, (1000, 2)).astype(np.float32)
        if request.param == "npy":
            np.save(tmp_path / "x.npy", x)
            np.save(tmp_path / "y.npy", y)
            return x, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = arrow.table({"a": x[:, 0], "b": x[:, 1], "label": y})
        parquet.write_table(table, tmp_path / "t.parquet", row_group_size=170)
        return x, str(tmp_path / "t.parquet"), "label"

    return large


def test_one_pass_over_the_rows_is_enough(large, monkeypatch):
    x, source, target = large(np.arange(1000) % 3)
    read = []
    for kind in (ArrayRowReader, ParquetRowReader):

        def spy(self, start, stop, load=kind.load):
            read.append((start, stop))
            return load(self, start, stop)

        monkeypatch.setattr(kind, "load", spy)
    groups, read_group = [], ParquetTable.read_group
    monkeypatch.setattr(ParquetTable, "read_group", lambda self, i, out: groups.append(i) or read_group(self, i, out))
    found = read_streams(source, 0.3, target=target, validation_fraction=0.2, block_rows=64, window_rows=256)
    assert sorted(row for start, stop in read for row in range(start, stop)) == list(range(1000))
    assert groups == ([] if source.endswith("npy") else list(range(6)))
    assert found.classes.tolist() == [0, 1, 2]
    training = np.concatenate([np.arange(*piece) for piece in found.training.ranges])
    assert len(training) == len(found.training) == 560
    np.testing.assert_allclose(found.shift, x[training].mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.scale, 1 / x[training].std(axis=0, dtype=np.float64), rtol=1e-6)


def test_a_label_of_any_part_that_is_none_is_named_by_its_row(large):
    for row in (3, 500, 998):
        _, source, target = large(np.where(np.arange(1000) == row, 0.5, 1.0))
        with pytest.raises(DataError, match=rf"\[{row}\] is 0\.5, not a class"):
            read_streams(source, 0.3, target=target, block_rows=64)
