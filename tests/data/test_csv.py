import csv
import io

import numpy as np
import pytest
from sklearn.datasets import load_iris

from gpu_nn.data import read, read_inputs
from gpu_nn.data.csv import read_csv
from gpu_nn.data.table import Target
from gpu_nn.errors import DataError
from tests.data.files import mutations

TEXT = "length,width,species\n5.1,3.5,setosa\n7,-3.2e0,virginica\n 6.3 ,3.3,setosa\n"


@pytest.fixture
def written(tmp_path):
    """Writes text, or bytes, to a file and gives its path."""

    def written(content: str | bytes, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def table(path, target=None, n_inputs=None):
    return read_csv(path, Target(target, n_inputs))


def texts(labels):
    return labels.classes[labels.codes].tolist()


def test_numbers_are_inputs_and_the_last_column_is_the_target(written):
    found = table(written(TEXT))
    assert found.names == ["length", "width"]
    assert found.target == "species"
    assert found.x.tolist() == [[5.1, 3.5], [7, -3.2], [6.3, 3.3]]
    assert texts(found.labels) == ["setosa", "virginica", "setosa"]


def test_numbers_are_those_that_numpy_reads(written):
    x = np.random.default_rng(0).standard_normal((200, 7)) * 10.0 ** np.arange(-150, 200, 50)
    content = io.StringIO()
    np.savetxt(content, x, delimiter=",", fmt="%.17g")
    np.testing.assert_array_equal(table(written(content.getvalue()), n_inputs=7).x, x)


def test_what_pandas_writes_of_iris_is_read(written):
    frame = load_iris(as_frame=True).frame
    data = read(str(written(frame.to_csv(index=False))), test_last=30)
    np.testing.assert_array_equal(data.x, frame.iloc[:-30, :4])
    np.testing.assert_array_equal(data.y_test, frame.target[-30:])
    assert data.target == "target"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (TEXT.replace(",", ";"), "semicolons"),
        (TEXT.replace(",", "\t"), "tabs"),
        (TEXT.replace(",", ", "), "spaces after commas"),
        (TEXT.replace("\n", "\r\n"), "lines of Windows"),
        (TEXT.replace("\n", "\n\n"), "blank lines"),
        (TEXT.rstrip(), "no last line end"),
        ("\ufeff" + TEXT, "byte order mark"),
        (TEXT.replace("setosa", '"setosa"').replace("5.1", '"5.1"'), "quotes"),
    ],
)
def test_it_is_the_same_table(written, content, why):
    found, same = table(written(content)), table(written(TEXT, "b.csv"))
    np.testing.assert_array_equal(found.x, same.x, why)
    assert (found.names, texts(found.labels)) == (same.names, texts(same.labels))


def test_quoted_names_may_hold_commas_quotes_and_lines(written):
    content = io.StringIO()
    names = ["a,b", 'c"d', "e\nf"]
    csv.writer(content).writerows([["x", "class"], *zip("123", names, strict=True)])
    assert texts(table(written(content.getvalue())).labels) == names


class TestNames:
    def test_a_first_line_of_numbers_is_data(self, written):
        found = table(written("1,2,a\n3,4,b\n"))
        assert found.names == ["column 0", "column 1"]
        assert found.x.tolist() == [[1, 2], [3, 4]]

    def test_numbers_that_are_names_are_names_where_the_target_is_named_among_them(self, written):
        found = table(written("0,1,label\n5,6,7\n5,6,8\n"), "label")
        assert (found.names, found.x.tolist()) == (["0", "1"], [[5, 6], [5, 6]])

    @pytest.mark.parametrize("target", ["b", 1, "1", -2, "-2"])
    def test_the_target_is_chosen_by_name_or_index(self, written, target):
        found = table(written("a,b,c\n1,2,3\n4,5,6\n"), target)
        assert (found.names, found.x.tolist(), texts(found.labels)) == (["a", "c"], [[1, 3], [4, 6]], [2, 5])

    @pytest.mark.parametrize("name", ["target", "Label", "CLASS", "y"])
    def test_a_usual_name_is_the_target_wherever_it_is(self, written, name):
        assert table(written(f"{name},b,c\n1,2,3\n")).target == name

    def test_of_two_usual_names_none_is_taken(self, written):
        assert table(written("label,y,c\n1,2,3\n")).target == "c"

    def test_the_nearest_name_is_offered_for_one_that_is_not_there(self, written):
        message = r"a\.csv has no column 'specie', the target; it has length, width, species\. Did you mean 'species'\?"
        with pytest.raises(DataError, match=message):
            table(written(TEXT), "specie")

    def test_a_number_beyond_the_columns_is_refused(self, written):
        with pytest.raises(DataError, match="has 3 columns; there is no column 3, the target"):
            table(written(TEXT), 3)

    def test_two_columns_of_the_targets_name_are_refused(self, written):
        with pytest.raises(DataError, match="has 2 columns 'a'; name one by number"):
            table(written("a,a,b\nx,y,z\n1,2,3\n"), "a")


class TestPrediction:
    @pytest.mark.parametrize("target", [None, "species", 2])
    def test_the_target_may_be_there_or_not(self, written, target):
        there = read_inputs(str(written(TEXT)), target, 2)
        bare = "\n".join(line.rpartition(",")[0] for line in TEXT.splitlines())
        np.testing.assert_array_equal(there, read_inputs(str(written(bare, "b.csv")), target, 2))

    def test_a_target_that_is_named_is_left_out_whatever_it_holds(self, written):
        assert read_inputs(str(written("a,b\n1,\n2,?\n")), "b", 1).tolist() == [[1], [2]]

    def test_one_column_is_enough(self, written):
        assert read_inputs(str(written("a\n1\n2\n")), None, 1).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,y\n1,2,x\n1,2\n", r"line 3 has 2 cells, the lines before 3"),
        ("a,b,y\n\n1,2,x\n1,2,3,x\n", r"line 4 has 4 cells, the lines before 3"),
        ('a,y\n1,"x\nz"\n1,2,3\n', r"line 4 has 3 cells"),
        ("a,b,y\n1,2,x\n1,tall,x\n", r"line 3, column 'b' is 'tall'; expected a number$"),
        ("a,y,b\n1,x,2\n1,x,tall\n", r"line 3, column 'b' is 'tall'; expected a number; the target is column 'y'"),
        ("a,b,y\n1,1_000,x\n", r"line 2, column 'b' is '1_000'; expected a number"),
        ("a,b,y\n1," + "z" * 90 + ",x\n", r"column 'b' is 'z{40} …'; expected a number"),
        ("a,b,y\n1,,x\n", r"line 2, column 'b' is empty; fill it in, or drop the line or the column"),
        ("a,b,y\n1,2,\n", r"line 2, column 'y' is empty"),
        ("a,b,y\n1,2,x\n1,nan,x\n", r"line 3, column 'b' is nan; expected finite numbers"),
        ("a,b,y\n1,1e999,x\n", r"line 2, column 'b' is inf; expected finite numbers"),
        ("a,b,y\n1,2,0.5\n1,2,1\n", r"column 'y' has 0\.5, not a class"),
        ("a,b,y\n", r"has a header, but no lines of numbers"),
        ("", r"is empty; expected lines of numbers"),
        ("\n\n", r"is empty; expected lines of numbers"),
        ("a\nb\n", r"has 1 column; expected inputs and a target"),
        ('a,y\n1,"x\n', r"line 2 is no CSV"),
        ('a,y\n1,"x"z\n', r"line 2 is no CSV"),
        ("a,y\n1," + "x" * 200_000 + "\n", r"line 2 is no CSV: field larger"),
        (
            b"a,y\n1,\xff\n",
            r"is not UTF-8 text: byte 6 of the file cannot be read \(invalid start byte\); save it as UTF-8",
        ),
        (b"\xef\xbb\xbfa,y\n1,\xff\n", r"is not UTF-8 text: byte 9 of the file"),
        ("é".encode() * 100_000 + b"\xe9,y\n", r"is not UTF-8 text: byte 200000 of the file"),
        (b"x" + "é".encode() * 100_000 + b"\xe9,y\n", r"is not UTF-8 text: byte 200001 of the file"),
        (b"a,y\n1,\xc3", r"is not UTF-8 text: it ends within a character \(unexpected end of data\)"),
        ("a,y\n1,2\n".encode("utf-16"), r"is not UTF-8 text but UTF-16: byte 0 of the file"),
        (b"\xfe\xff" + "a,y\n1,2\n".encode("utf-16-be"), r"but UTF-16: byte 0 of the file"),
        ("a,y\n1,2\n".encode("utf-32"), r"is not UTF-8 text but UTF-32: byte 0 of the file"),
        ("a,y\n1,x\n2,x\n", r"has 1 class, x"),
    ],
)
def test_what_is_no_table_is_refused_by_line_and_column(written, content, message):
    with pytest.raises(DataError, match=message) as error:
        read(str(written(content)))
    assert "a.csv" in str(error.value)


def test_changed_bytes_are_read_or_refused_and_nothing_else(written):
    for content in mutations(TEXT.encode(), 500):
        try:
            table(written(content))
        except DataError:
            continue


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        table(tmp_path / "gone.csv")
