from argparse import ArgumentTypeError

import pytest

from gpu_nn.cli.arguments import file_name, integer, interval, number, one_of, widths
from gpu_nn.training import Trigger


@pytest.mark.parametrize(
    ("argument_type", "text", "value"),
    [
        (integer(0), "0", 0),
        (integer(1, 5), "5", 5),
        (number(0), "0", 0.0),
        (number(0), "1e30", 1e30),
        (number(0, 1), "1", 1.0),
        (number(0, 1, above=True, below=True), ".5", 0.5),
        (one_of(("a", "b")), "b", "b"),
        (widths, "256,128", [256, 128]),
        (widths, "256, 128", [256, 128]),
        (widths, "", []),
        (file_name(".csv", ".npy"), "a.npy", "a.npy"),
        (interval, "5", Trigger(epochs=5)),
        (interval, "500steps", Trigger(steps=500)),
        (interval, "30s", Trigger(seconds=30)),
        (interval, "10m", Trigger(seconds=600)),
        (interval, "2h", Trigger(seconds=7200)),
        (interval, str(Trigger(seconds=7200)), Trigger(seconds=7200)),
        (interval, str(Trigger(epochs=1)), Trigger(epochs=1)),
    ],
)
def test_a_right_value_is_taken(argument_type, text, value):
    assert argument_type(text) == value


@pytest.mark.parametrize(
    ("argument_type", "texts", "expected"),
    [
        (integer(1), ["0", "-1", "1.0", "1e3", "one", "", "nan", "9" * 5000], "expected a whole number ≥ 1"),
        (integer(0, 5), ["-1", "6"], "expected a whole number from 0 to 5"),
        (number(0), ["-1e-9", "nan", "inf", "1e400", "x", ""], "expected a finite number ≥ 0"),
        (number(0, above=True), ["0", "-1", "inf"], "expected a finite number above 0"),
        (number(0, 1), ["1.1", "-0.1"], "expected a finite number ≥ 0 and ≤ 1"),
        (number(0, 1, below=True), ["1"], "expected a finite number ≥ 0 and below 1"),
        (one_of(("adam", "sgd")), ["adma", "ADAM"], "is not one of adam, sgd. Did you mean 'adam'?"),
        (widths, ["0", "-5", "256,", ",", "256,,128", "2.5", "a", "2147483648", "1e3"], "such as 256,128"),
        (interval, ["0", "-1", "", "s", "1.5", "5 parsecs", "9" * 13, "1_0"], "such as 5, 500steps, 30s, 10m, 2h"),
        (file_name(".csv", ".npy"), ["a.txt", "csv", ""], "expected a name that ends in .csv or .npy"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(argument_type, texts, expected):
    for text in texts:
        with pytest.raises(ArgumentTypeError) as error:
            argument_type(text)
        assert str(error.value).startswith(repr(text))
        assert expected in str(error.value)
