import numpy as np
import pytest

from gpu_nn.data.labels import encode_labels, labels_from_array, labels_from_text
from gpu_nn.errors import DataError


def test_a_label_that_the_model_does_not_know_is_named_with_some_that_it_does():
    with pytest.raises(DataError, match=r"a: label 99 at row 2 is not a class of the model: 0, 1, .*, 9 …"):
        encode_labels("a", labels_from_array("y", np.array([0, 5, 99, 98])), range(50))


def test_labels_are_encoded_by_value_not_by_position():
    assert encode_labels("a", labels_from_array("y", np.array(["y", "x"])), ["x", "y"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("texts", "classes"),
    [
        (["3", "-1", "3"], [-1, 3]),
        (["1.0", "2", "1e1"], [1, 2, 10]),
        (["1.000000e+00", "2.000000e+01"], [1, 20]),
        (["-0", "3"], [0, 3]),
        (["b", "a", "1"], ["1", "a", "b"]),
        (["01", "1"], ["01", "1"]),
        (["02134", "10001"], ["02134", "10001"]),
        (["1", "+1"], ["+1", "1"]),
        (["1.0", "01"], ["01", "1.0"]),
        (["٣", "3"], ["3", "٣"]),
        (["1_0", "2"], ["1_0", "2"]),
        (["9" * 30, "2"], ["2", "9" * 30]),
        (["yes", "no", "été"], ["no", "yes", "été"]),
    ],
    ids=[
        "whole",
        "whole floats",
        "exponents",
        "minus 0",
        "mixed",
        "zeros before one",
        "postal codes",
        "plus",
        "zeros beside a float",
        "other digits",
        "underscore",
        "beyond int64",
        "names",
    ],
)
def test_text_is_a_number_where_all_of_it_is(texts, classes):
    labels = labels_from_text("a", texts, np.arange(len(texts)))
    assert labels.classes.tolist() == classes
    expected = [type(classes[0])(float(text) if isinstance(classes[0], int) else text) for text in texts]
    assert labels.classes[labels.codes].tolist() == expected


@pytest.mark.parametrize("text", ["2.5", "nan", "inf", "-Infinity"])
def test_numbers_that_are_not_whole_are_no_classes(text):
    with pytest.raises(DataError, match=rf"a has {text}, not a class; expected whole numbers or names"):
        labels_from_text("a", ["1", text], np.arange(2))


def test_a_column_of_prose_is_no_target():
    with pytest.raises(DataError, match=r"a has a label of 300 characters, 'x+' …; .*is another column the target\?"):
        labels_from_text("a", ["short", "x" * 300], np.arange(2))
