import numpy as np
import pytest

from gpu_nn.plots import WorstMistakes, worst_mistakes
from tests.plots.figure_contents import drawn, figure_bytes, heading, overlaps


def shown(figure):
    """Title, text below and image of each."""
    return [
        (axes.get_title(), axes.texts[0].get_text(), np.asarray(axes.get_images()[0].get_array()))
        for axes in figure.axes
        if axes.get_images()
    ]


P = np.array([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01], [0.2, 0.8]])


def test_the_worst_mistake_comes_first_and_right_rows_not_at_all():
    x = np.arange(16).reshape(4, 4)
    figure = drawn(worst_mistakes(x, [1, 1, 1, 1], P, classes=["cat", "dog"]))
    tiles = shown(figure)
    assert [below for _, below, _ in tiles] == ["row 2: 99 % sure", "row 0: 90 % sure", "row 1: 60 % sure"]
    assert {title for title, _, _ in tiles} == {"dog\nnot cat"}
    assert heading(figure) == "Worst mistakes: 3 of 4 rows"
    np.testing.assert_allclose(tiles[0][2], np.array([[8, 9], [10, 11]]) / 15)


def test_of_many_mistakes_the_worst_are_shown():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), 200)
    y = random.integers(0, 3, 200)
    figure = drawn(worst_mistakes(random.random((200, 9)), y, p, count=7))
    rows = [int(below.split(":")[0].removeprefix("row ")) for _, below, _ in shown(figure)]
    wrong = np.flatnonzero(p.argmax(axis=1) != y)
    assert rows == sorted(wrong, key=lambda i: p[i, y[i]])[:7]
    assert heading(figure) == f"Worst mistakes: 7 of the {len(wrong)} among 200 rows"


def test_no_mistakes_say_so():
    figure = drawn(worst_mistakes(np.zeros((4, 4)), [0, 0, 0, 1], P))
    assert not shown(figure)
    assert [text.get_text() for text in figure.texts[1:]] == ["none: all 4 rows are right"]


@pytest.mark.parametrize(
    ("x_shape", "image_shape", "expected"),
    [
        ((4, 9), None, (3, 3)),
        ((4, 6), (2, 3), (2, 3)),
        ((4, 12), (2, 2, 3), (2, 2, 3)),
        ((4, 2, 3), None, (2, 3)),
        ((4, 2, 3, 4), None, (2, 3, 4)),
        ((4, 100), (100, 1), (100, 1)),
        ((4, 100), (1, 100), (1, 100)),
    ],
)
def test_images_have_the_shape_of_x_or_the_one_that_is_said(x_shape, image_shape, expected):
    x = np.random.default_rng(0).random(x_shape)
    assert shown(drawn(worst_mistakes(x, [1, 1, 1, 1], P, image_shape)))[0][2].shape == expected


def test_black_and_white_are_the_same_for_all_images():
    x = np.zeros((4, 4), np.uint8)
    x[2], x[0] = 255, [0, 51, 102, 255]
    worst, second, _ = shown(drawn(worst_mistakes(x, [1, 1, 1, 1], P)))
    np.testing.assert_allclose(worst[2], 1)
    np.testing.assert_allclose(second[2].ravel(), [0, 0.2, 0.4, 1])


def test_images_of_one_colour_are_drawn():
    np.testing.assert_array_equal(shown(drawn(worst_mistakes(np.full((4, 4), 7.0), [1] * 4, P)))[0][2], 0)


def test_nearly_sure_is_not_a_hundred_percent():
    p = np.array([[1 - 1e-6, 1e-6], [1.0, 0.0]])
    below = [text for _, text, _ in shown(drawn(worst_mistakes(np.zeros((2, 4)), [1, 1], p)))]
    assert below == ["row 1: 100 % sure", "row 0: 99.99 % sure"]


def test_long_names_do_not_run_into_each_other():
    names = ["a very long name of a class indeed", "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"]
    p = np.tile([0.9, 0.1], (24, 1))
    figure = drawn(worst_mistakes(np.zeros((24, 4)), [1] * 24, p, classes=names))
    titles = [axes.title for axes in figure.axes]
    assert overlaps(titles) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 5)), [1] * 4, P), r"rows of x have shape \(5,\), which is not an image; expected image_shape="),
        ((np.zeros((4, 1)), [1] * 4, P), "which is not an image"),
        ((np.zeros((4, 6)), [1] * 4, P, (2, 2)), r"image_shape=\(2, 2\); expected .* with 6 values"),
        ((np.zeros((4, 8)), [1] * 4, P, (2, 2, 2)), r"image_shape=\(2, 2, 2\)"),
        ((np.zeros((4, 4)), [1] * 4, P, (-2, -2)), r"image_shape=\(-2, -2\)"),
        ((np.zeros((3, 4)), [1] * 4, P), "x has 3 rows, probabilities 4; expected as many"),
        ((np.zeros((4, 4)), [1] * 3, P), "y has 3 rows, probabilities 4"),
        ((np.zeros((4, 4)), [1] * 4, P, None, None, 0), "count=0; expected a whole number ≥ 1"),
    ],
)
def test_rows_that_are_not_images_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        worst_mistakes(*arguments)


@pytest.mark.parametrize("levels", [17, 256])
def test_batches_give_the_figure_of_the_whole_and_few_rows_are_kept(levels):
    random = np.random.default_rng(0)
    x, y = random.integers(0, levels, (600, 9), np.uint8), random.integers(0, 3, 600)
    # Of few different probabilities, so that rows are equally wrong.
    p = random.dirichlet([1.0] * 3, 8)[random.integers(0, 8, 600)]
    mistakes = WorstMistakes(count=10)
    for piece in np.array_split(np.arange(600), 7):
        mistakes.add(x[piece], y[piece], p[piece])
        assert len(mistakes._worst) == 10
    assert figure_bytes(mistakes.figure()) == figure_bytes(worst_mistakes(x, y, p, count=10))


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="probabilities has no rows"):
        WorstMistakes().figure()
