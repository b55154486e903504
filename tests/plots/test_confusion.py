import numpy as np
import pytest
from sklearn import metrics

from gpu_nn.plots import ConfusionCounts, confusion_matrix
from tests.plots.figure_contents import drawn, figure_bytes, heading, overlaps, ticks


def image(axes):
    return np.asarray(axes.get_images()[0].get_array())


def cells(axes):
    return {tuple(int(at) for at in text.get_position()): text.get_text() for text in axes.texts}


def many(m, n, seed=0):
    """Labels of m classes, a fifth of them taken for a near one."""
    random = np.random.default_rng(seed)
    y = random.integers(0, m, n)
    return y, np.where(random.random(n) < 0.8, y, (y + random.integers(1, 4, n)) % m)


def test_colours_are_the_shares_of_the_true_classes_rows():
    y, predicted = many(7, 300)
    axes, _ = drawn(confusion_matrix(y, predicted)).axes
    expected = metrics.confusion_matrix(y, predicted, normalize="true")
    np.testing.assert_allclose(image(axes), expected)


def test_cells_say_counts_and_shares_and_rows_say_how_many_they_are():
    figure = drawn(confusion_matrix([0, 0, 0, 1], [0, 0, 1, 1], ["cat", "dog"]))
    axes = figure.axes[0]
    assert cells(axes) == {(0, 0): "2\n66.7 %", (1, 0): "1\n33.3 %", (1, 1): "1\n100 %"}
    assert ticks(axes.yaxis) == ["cat (3)", "dog (1)"]
    assert ticks(axes.xaxis) == ["cat", "dog"]
    assert heading(figure) == "Confusion matrix: 75.00 % of 4 rows right"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class (rows)")


@pytest.mark.parametrize(
    ("y", "predicted", "classes"),
    [
        ([0, 1, 1], [0, 1, 0], ["cat", "dog"]),
        (["cat", "dog", "dog"], ["cat", "dog", "cat"], ["cat", "dog"]),
        ([7, 9, 9], [7, 9, 7], [7, 9]),
        (np.array(["cat", "dog", "dog"]), np.array(["cat", "dog", "cat"]), None),
        ([False, True, True], [False, True, False], [False, True]),
    ],
    ids=["indices", "names", "numbers", "found", "bools"],
)
def test_labels_are_members_of_the_classes_or_indices_of_names(y, predicted, classes):
    axes = drawn(confusion_matrix(y, predicted, classes)).axes[0]
    np.testing.assert_allclose(image(axes), [[1, 0], [0.5, 0.5]])


def test_a_class_without_rows_is_hatched_and_makes_no_warning():
    axes = drawn(confusion_matrix([0, 0], [0, 2], ["a", "b", "c"])).axes[0]
    np.testing.assert_array_equal(image(axes), [[0.5, 0, 0.5], [0, 0, 0], [0, 0, 0]])
    assert [patch.get_y() for patch in axes.patches if patch.get_hatch()] == [0.5, 1.5]


def test_a_hundred_classes_are_each_named_and_no_name_covers_another():
    y, predicted = many(100, 5000)
    figure = drawn(confusion_matrix(y, predicted, [f"class {i}" for i in range(100)]))
    axes, beside = figure.axes[:2]
    assert image(axes).shape == (100, 100)
    for axis in (axes.xaxis, axes.yaxis):
        assert ticks(axis) == [f"class {i}" for i in range(100)]
        assert overlaps(axis.get_ticklabels()) == []
    assert not axes.texts
    pairs = np.bincount(y * 100 + predicted, minlength=100**2).reshape(100, 100)
    np.fill_diagonal(pairs, 0)
    i, j = np.unravel_index(pairs.argmax(), pairs.shape)
    lines = beside.texts[0].get_text().splitlines()
    assert lines[0] == "Most frequent mistakes"
    assert lines[2:4] == [f"class {i} → class {j}", f"    {pairs.max()} of {(y == i).sum()} rows"]
    assert beside.texts[0].get_window_extent().x1 <= figure.bbox.x1


def test_of_a_thousand_classes_those_of_the_most_frequent_mistakes_are_shown():
    random = np.random.default_rng(0)
    y = random.integers(0, 1000, 5000)
    predicted = y.copy()
    y[:30], predicted[:30] = 700, 3
    for k in range(30):
        y[30 + 2 * k : 32 + 2 * k], predicted[30 + 2 * k : 32 + 2 * k] = 2 * k, 2 * k + 1
    y[90], predicted[90] = 700, 999
    figure = drawn(confusion_matrix(y, predicted, range(1000)))
    axes = figure.axes[0]
    assert len(ticks(axes.xaxis)) == 60
    assert "999" not in ticks(axes.xaxis)
    row, column = ticks(axes.yaxis).index("700"), ticks(axes.xaxis).index("3")
    assert image(axes)[row, column] == pytest.approx(30 / (y == 700).sum())
    assert "60 of 1,000 classes: those of the most frequent mistakes" in heading(figure)
    assert heading(figure).startswith("Confusion matrix: 98.18 % of 5,000 rows right")


def test_a_model_without_mistakes_says_so():
    y = np.arange(100, 150)
    figure = drawn(confusion_matrix(y, y, range(150)))
    assert figure.axes[1].texts[0].get_text().strip() == "No mistakes"
    shown = ticks(figure.axes[0].xaxis)
    assert len(shown) == 60
    assert set(shown) >= {str(label) for label in y}


def test_a_single_class_is_a_matrix_of_one():
    axes = drawn(confusion_matrix([5, 5], [5, 5])).axes[0]
    assert cells(axes) == {(0, 0): "2\n100 %"}


def test_dollar_signs_are_not_mathematics_and_long_names_are_truncated():
    names = ["$x_1$", "a\nb", "a name that is much too long for a tick"]
    axes = drawn(confusion_matrix([0, 1, 2], [0, 1, 2], names)).axes[0]
    assert ticks(axes.xaxis) == ["$x_1$", "a b", "a name that is much too l…"]
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())


def test_dollar_signs_are_not_mathematics_in_the_list_of_mistakes():
    y, predicted = many(20, 300)
    beside = drawn(confusion_matrix(y, predicted, [f"$a_{i}$" for i in range(20)])).axes[1].texts[0]
    assert "$a_1$ → " in beside.get_text()
    assert not beside.get_parse_math()


def test_letters_that_only_another_installed_font_has_are_drawn_from_it():
    # Bold mathematical letters: Matplotlib brings fonts that have them; its own sans has them in bold only.
    figure = drawn(confusion_matrix([0, 1], [0, 1], ["plain", "\U0001d400\U0001d401"]))
    label = figure.axes[0].get_xticklabels()[1]
    assert label.get_text() == "\U0001d400\U0001d401"
    assert len(label.get_fontfamily()) > 1


def test_a_name_that_no_font_can_draw_is_its_number_and_a_warning_says_so():
    with pytest.warns(UserWarning, match=r"no installed font has the letters of class 'a\\u0378'; shown as #1"):
        figure = confusion_matrix([0, 1], [0, 1], ["plain", "a\u0378"])  # a code point that means nothing
    assert ticks(drawn(figure).axes[0].xaxis) == ["plain", "#1"]


@pytest.mark.parametrize(
    ("y", "predicted", "classes", "message"),
    [
        ([], [], None, r"y has shape \(0,\); expected \(n,\)"),
        ([[0, 1]], [[0, 1]], None, r"y has shape \(1, 2\)"),
        ([0, 1], [0], None, "predicted has 1 rows, y 2; expected as many"),
        ([0, 2], [0, 1], ["a", "b"], r"y\[1\] is .*2.*; expected an index from 0 to 1"),
        ([0, 1], [0, -1], ["a", "b"], r"predicted\[1\] is .*-1"),
        (["a", "c"], ["a", "b"], ["a", "b"], r"y\[1\] is .*'c'.*; expected one of the classes"),
        ([0, 1], ["a", "b"], None, "expected labels of one kind"),
        ([0.0, np.nan], [0.0, 1.0], [0, 1], r"y\[1\] is .*nan"),
    ],
)
def test_labels_that_are_no_classes_are_named(y, predicted, classes, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(y, predicted, classes)


@pytest.mark.parametrize("m", [2, 30, 150])
def test_batches_give_the_matrix_of_the_whole(m):
    random = np.random.default_rng(0)
    y, predicted = random.integers(0, m, (2, 4000))
    predicted[::2] = y[::2]
    counts = ConfusionCounts(range(m))
    for piece in np.array_split(np.arange(4000), 7):
        counts.add(y[piece], predicted[piece])
    figures = [figure_bytes(figure) for figure in (counts.figure(), confusion_matrix(y, predicted, range(m)))]
    assert figures[0] == figures[1]
    pairs = metrics.confusion_matrix(y, predicted, labels=range(m))
    np.testing.assert_array_equal(counts._matrix(*np.divmod(counts._pairs, m), np.arange(m)), pairs)


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="y has no rows"):
        ConfusionCounts("ab").figure()
