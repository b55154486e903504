import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from gpu_nn.data import parquet, read, read_inputs
from gpu_nn.data.memory import available_bytes
from gpu_nn.data.parquet import ParquetTable, read_parquet
from gpu_nn.data.table import Target
from gpu_nn.errors import DataError

N = 20
X = np.random.default_rng(0).normal(size=(N, 3))
NAMES = np.array(["cat", "dog"])[np.arange(N) % 2]


@pytest.fixture
def written(tmp_path):
    """Writes columns to a file, in row groups of 7, and gives its path."""

    def written(columns, **options):
        pq.write_table(arrow.table(columns), tmp_path / "a.parquet", **{"row_group_size": 7, **options})
        return tmp_path / "a.parquet"

    return written


def columns(y=NAMES, **more):
    return {**{name: X[:, i] for i, name in enumerate("abc")}, **more, "kind": y}


def texts(labels):
    return labels.classes[labels.codes].tolist()


@pytest.mark.parametrize(
    "y",
    [
        arrow.array(NAMES),
        arrow.array(NAMES).dictionary_encode(),
        arrow.array(NAMES).cast(arrow.large_string()),
        arrow.array(NAMES).cast(arrow.string_view()),
    ],
    ids=["text", "dictionary", "large text", "views"],
)
@pytest.mark.parametrize("compression", ["NONE", "SNAPPY", "ZSTD"])
def test_the_columns_come_back(written, y, compression):
    found = read_parquet(written(columns(y), compression=compression), Target())
    np.testing.assert_array_equal(found.x, X)
    assert (found.names, found.target, texts(found.labels)) == (["a", "b", "c"], "kind", NAMES.tolist())


def test_what_pandas_writes_of_categories_is_read(tmp_path):
    import pandas

    frame = pandas.DataFrame({"a": X[:, 0], "target": pandas.Categorical(NAMES, ["bird", "dog", "cat"])})
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    data = read(str(tmp_path / "a.parquet"), test_last=5)
    assert data.classes.tolist() == ["cat", "dog"]
    assert data.classes[data.y].tolist() == NAMES[:-5].tolist()


def test_each_row_group_may_have_its_own_dictionary_of_labels(written):
    y = np.array(["b"] * 7 + ["a"] * 7 + ["cc", "b"] * 3)
    assert texts(read_parquet(written(columns(y)), Target()).labels) == y.tolist()


@pytest.mark.parametrize("groups", [["07", "7", "a"], ["a", "7", "07"], ["1", "1_0", "10"], ["7", "", "7.0"]])
def test_text_that_is_numbers_in_some_row_groups_alone_stays_text(written, groups):
    y = np.repeat(groups, [7, 7, 6])
    table = ParquetTable(written(columns(y)), Target())
    assert texts(table.read().labels) == y.tolist()
    # A row group has the same names when it is read alone.
    assert texts(table.read_group(1, np.empty((7, 3)))) == y[7:14].tolist()


@pytest.mark.parametrize("names", [["a", "b", "a"], ["a", "b", "a.b"], ["a.b", "b", "a"]])
def test_columns_of_one_name_and_of_dotted_names_keep_their_places(tmp_path, names):
    table = arrow.table([arrow.array(column) for column in (*X.T, NAMES)], names=[*names, "kind"])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    found = read_parquet(tmp_path / "a.parquet", Target("kind"))
    assert found.names == names
    np.testing.assert_array_equal(found.x, X)


@pytest.mark.parametrize("name", ["a.b", "a b", "ä", "", "x"])
def test_the_target_may_have_any_name_and_share_it(tmp_path, name):
    table = arrow.table([arrow.array(X[:, 0]), arrow.array(NAMES)], names=["x", name])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    assert texts(read_parquet(tmp_path / "a.parquet", Target(1)).labels) == NAMES.tolist()


def test_text_that_is_whole_numbers_in_all_row_groups_is_numbers(written):
    y = np.repeat(["7.0", "7", "1e1"], [7, 7, 6])
    assert texts(read_parquet(written(columns(y)), Target()).labels) == [7] * 14 + [10] * 6


def test_codes_with_zeros_before_them_stay_text(written):
    y = np.repeat(["07", "7", "10"], [7, 7, 6])
    assert texts(read_parquet(written(columns(y)), Target()).labels) == y.tolist()


@pytest.mark.parametrize("y", [np.arange(N) % 3 - 1, np.arange(N) % 2 == 0, (np.arange(N) % 3).astype(float)])
def test_numbers_are_labels(written, y):
    assert texts(read_parquet(written(columns(y)), Target()).labels) == y.tolist()


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        (["u1", "u1"], "u1"),
        (["i1", "i1"], "i1"),
        (["i8", "i8"], "f8"),
        (["u1", "i8"], "f8"),
        (["f4", "f4"], "f4"),
        (["f2", "f4"], "f4"),
        (["f4", "u1"], "f4"),
        (["f4", "f8"], "f8"),
        (["?", "?"], "?"),
    ],
)
def test_inputs_have_the_type_that_holds_them_all(written, types, dtype):
    given = {f"x{i}": np.arange(N).astype(kind) for i, kind in enumerate(types)}
    found = read_parquet(written({**given, "y": NAMES}), Target())
    assert found.x.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.x, np.column_stack(list(given.values())))


def test_decimals_are_numbers(written):
    price = arrow.array([Decimal(f"{i}.25") for i in range(N)])
    assert read_parquet(written(columns(price=price)), Target()).x[:, 3].tolist() == [i + 0.25 for i in range(N)]


@pytest.mark.parametrize("target", ["b", 1, "1", -3])
def test_the_target_is_chosen_by_name_or_index(written, target):
    y = np.arange(N) % 2
    found = read_parquet(written({"a": X[:, 0], "b": y, "c": X[:, 2], "d": X[:, 1]}), Target(target))
    assert (found.target, found.names) == ("b", ["a", "c", "d"])
    np.testing.assert_array_equal(found.x, X[:, [0, 2, 1]])


@pytest.mark.parametrize("target", [None, "kind", 3])
def test_prediction_takes_a_file_with_the_target_or_without(written, target):
    np.testing.assert_array_equal(read_inputs(str(written(columns())), target, 3), X)
    bare = columns()
    del bare["kind"]
    np.testing.assert_array_equal(read_inputs(str(written(bare)), target, 3), X)


@pytest.mark.parametrize(
    ("more", "target", "message"),
    [
        ({"d": [None, *[1.0] * 19]}, None, "column 'd' has nulls, the first in row 0; fill them in"),
        ({"d": [1.0] * 19 + [None]}, None, "column 'd' has nulls, the first in row 19"),
        ({"kind": [*NAMES[:-1], None]}, None, "column 'kind' has nulls, the first in row 19"),
        ({"d": NAMES}, None, r"column 'd' is string; expected numbers; is it the target\? That is 'kind' here"),
        ({"d": [[1.0]] * N}, None, "column 'd' is list<.*>; expected numbers"),
        ({"d": [{"e": 1.0}] * N}, None, "column 'd' is struct<.*>; expected numbers"),
        ({"d": np.arange(N).astype("M8[s]")}, None, r"column 'd' is timestamp\[.*\]; expected numbers"),
        ({"d": arrow.nulls(N)}, None, "column 'd' is null; expected numbers"),
        ({"kind": np.arange(N).astype("M8[s]")}, None, r"column 'kind', the target, is timestamp"),
        ({"kind": X[:, 0]}, None, r"column 'kind'\[0\] is .*, not a class"),
        ({"d": np.where(np.arange(N) == 9, np.nan, 1.0)}, None, "row 9, column 'd' is nan; expected finite numbers"),
        ({"kind": ["x" * 300] * N}, None, "has a label of 300 characters"),
        ({}, "knd", r"no column 'knd', the target; it has a, b, c, kind\. Did you mean 'kind'\?"),
        ({}, 4, "has 4 columns; there is no column 4"),
    ],
)
def test_what_is_no_input_or_no_target_is_refused_by_column(written, more, target, message):
    more = dict(more)
    with pytest.raises(DataError, match=message):
        read(str(written(columns(more.pop("kind", NAMES), **more))), target=target)


def test_a_label_that_is_no_whole_number_is_named_by_its_row_in_the_file(written, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS", 4)
    path = written(columns(np.where(np.arange(N) == 18, 0.5, np.arange(N) % 2)))
    with pytest.raises(DataError, match=r"column 'kind'\[18\] is 0\.5, not a class"):
        read(str(path))
    with pytest.raises(DataError, match=r"column 'kind'\[18\] is 0\.5, not a class"):
        ParquetTable(path, Target()).read_group(2, np.empty((6, 3)))


def test_tables_without_rows_or_columns_are_refused(written):
    with pytest.raises(DataError, match="has no rows"):
        read(str(written({"a": X[:0, 0], "y": NAMES[:0]})))
    with pytest.raises(DataError, match="has 1 columns; expected inputs and a target"):
        read(str(written({"y": NAMES})))
    with pytest.raises(DataError, match="has no columns"):
        read(str(written({})))


@pytest.mark.parametrize("cut", [0, 3, 4, 100, -1, -8])
def test_a_file_cut_short_is_refused(written, cut):
    path = written(columns())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.parquet"):
        read(str(path))


def test_a_table_that_memory_does_not_hold_is_refused_before_it_is_read(written, monkeypatch):
    assert available_bytes() > 1 << 20
    monkeypatch.setattr("gpu_nn.data.memory.available_bytes", lambda: 479)
    with pytest.raises(DataError, match="does not fit in memory"):
        read(str(written(columns())))


READ_ONE_GROUP = """
import sys
from pathlib import Path
import numpy as np, pyarrow
from gpu_nn.data.table import Target
from gpu_nn.data.parquet import ParquetTable
table = ParquetTable(Path(sys.argv[1]), Target())
out = np.empty((table.n_rows, len(table.names)), table.dtype)
table.read_group(0, out)
print(pyarrow.default_memory_pool().max_memory(), float(out.sum(dtype=np.float64)))
"""


def test_a_large_row_group_is_decoded_a_little_at_a_time(tmp_path):
    x = np.random.default_rng(0).random((300_000, 40), np.float32)
    table = arrow.table({**{f"c{i}": x[:, i] for i in range(40)}, "label": np.arange(len(x)) % 2})
    pq.write_table(table, tmp_path / "a.parquet")
    command = [sys.executable, "-c", READ_ONE_GROUP, tmp_path / "a.parquet"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    most, total = done.stdout.split()
    assert float(total) == x.sum(dtype=np.float64)
    assert int(most) < 0.6 * x.nbytes


def test_columns_decoded_in_several_batches_keep_their_positions(written, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS", 2)
    monkeypatch.setattr(parquet, "_COLUMNS", 1)
    monkeypatch.setattr(parquet, "_VALUES", 14)
    path = written({"a": X[:, 0], "kind": NAMES, "a.b": X[:, 1], "c": np.arange(N)})
    found = read_parquet(path, Target("kind"))
    np.testing.assert_array_equal(found.x, np.column_stack([X[:, 0], X[:, 1], np.arange(N)]))
    assert (found.names, texts(found.labels)) == (["a", "a.b", "c"], NAMES.tolist())


def test_without_pyarrow_the_hint_is_named(written, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install 'gpu_nn\[parquet\]'"):
        read(str(written(columns())))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.parquet does not exist"):
        read_parquet(tmp_path / "gone.parquet", Target())
