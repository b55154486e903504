"""What passes for a number, and that nothing else does where a caller gives one."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest

from gpu_nn import SGD, Adam, AdamW, MLPClassifier, Network, Trainer, plots, schedules
from gpu_nn import functional as F
from gpu_nn.data import read, read_streams, stream
from gpu_nn.layers import BatchNorm, Dense, Dropout, InputNoise, LayerNorm
from gpu_nn.multilabel import Multilabel
from gpu_nn.training import Checkpoints, EarlyStopping, LearningRateMonitor, Trigger
from gpu_nn.validation import Interval, check_int, check_json_int, check_number, is_int

NO_NUMBERS = [True, np.True_, "1", None, [1], np.ones(1), 1j, np.complex64(1), math.nan, np.float32("nan"), 10**400]
NO_NUMBERS += [math.inf, -math.inf, np.float16("inf"), Fraction(1, 2), object]
X, Y = np.zeros((8, 2), np.float32), np.arange(8) % 2


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_finite_number_is_in_no_range(value):
    assert value not in Interval(-math.inf)


@pytest.mark.parametrize("kind", [int, float, np.int8, np.uint64, np.float16, np.float32, np.float64, np.longdouble])
def test_numbers_of_all_types_are_compared_by_value(kind):
    assert [kind(value) in Interval(0, 1) for value in (0, 1, 2)] == [True, True, False]
    assert [kind(value) in Interval(0, 1, above=True, below=True) for value in (0, 1)] == [False, False]
    assert (check_number("a", kind(1)), type(check_number("a", kind(1)))) == (1.0, float)


def test_ends_are_exact():
    assert math.nextafter(1, 0) in Interval(0, 1, below=True)
    assert math.nextafter(1, 2) not in Interval(0, 1)
    assert 5e-324 in Interval(0, above=True)
    assert -5e-324 not in Interval(0)
    assert np.float16(65504) in Interval(0)
    assert 2**1000 in Interval()


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (Interval(), "a finite number ≥ 0"),
        (Interval(0, above=True), "a finite number above 0"),
        (Interval(0, 1), "a finite number ≥ 0 and ≤ 1"),
        (Interval(0, 1, below=True), "a finite number ≥ 0 and below 1"),
        (Interval(-math.inf), "a finite number"),
        (Interval(-math.inf, 2.5), "a finite number ≤ 2.5"),
    ],
)
def test_the_error_names_what_came_and_what_was_expected(within, said):
    with pytest.raises(ValueError, match=f"^rate='high'; expected {said}, such as 1$"):
        check_number("rate", "high", within, ", such as 1")


def test_integers_of_json_are_whole_and_exact():
    assert (check_json_int("steps", 0), check_json_int("steps", 2**53 - 1, 1)) == (0, 2**53 - 1)
    for value, expected in ((2**53, "below 2⁵³"), (0, "≥ 1"), (1.0, "≥ 1"), (True, "≥ 1"), ("1", "≥ 1"), (None, "≥ 1")):
        with pytest.raises(ValueError, match=re.escape(f"steps={value!r}; expected a whole number {expected}")):
            check_json_int("steps", value, 1)


def test_whole_numbers_are_whole_by_their_type():
    assert [value for value in (1, np.int8(1), np.uint64(1)) if not is_int(value)] == []
    assert [value for value in (1.0, np.float64(1), True, np.True_, "1", None) if is_int(value)] == []
    assert type(check_int("a", np.int16(3), 1)) is int
    with pytest.raises(ValueError, match=r"^a=0; expected a whole number ≥ 1 or 'auto'$"):
        check_int("a", 0, 1, " or 'auto'")


def net():
    return Network([2, 2], device="cpu")


WHOLE = {
    "every": lambda value: schedules.Step(1, value),
    "steps of Cosine": lambda value: schedules.Cosine(1, value),
    "steps of WarmUp": lambda value: schedules.WarmUp(value, schedules.Constant(1)),
    "patience of ReduceOnPlateau": lambda value: schedules.ReduceOnPlateau(1, patience=value),
    "units": Dense,
    "n_inputs": lambda value: Network([Dense(2)], n_inputs=value, device="cpu"),
    "batch_size": lambda value: Trainer(net(), SGD(), batch_size=value),
    "epochs": lambda value: Trainer(net(), SGD()).fit(X, Y, epochs=value),
    "parts": lambda value: Trainer(net(), SGD(), micro_batches=value),
    "patience": lambda value: EarlyStopping(patience=value),
    "keep": lambda value: Checkpoints("folder", keep=value),
    "Every epochs": lambda value: Trigger(epochs=value),
    "Every steps": lambda value: Trigger(steps=value),
    "LearningRateMonitor": LearningRateMonitor,
    "block_rows": lambda value: stream(X, Y, block_rows=value),
    "window_rows": lambda value: stream(X, Y, window_rows=value),
    "test_last": lambda value: read(None, test_last=value),
    "bins": lambda value: plots.CalibrationBins(bins=value),
    "count": lambda value: plots.WorstMistakes(count=value),
    "max_iter": lambda value: MLPClassifier(max_iter=value, device="cpu").fit(X, Y),
    "n_iter_no_change": lambda value: MLPClassifier(n_iter_no_change=value, device="cpu").fit(X, Y),
    "batch_size of MLPClassifier": lambda value: MLPClassifier(batch_size=value, device="cpu").fit(X, Y),
    "hidden_layer_sizes": lambda value: MLPClassifier(hidden_layer_sizes=(value,), device="cpu").fit(X, Y),
    "ignore_index": lambda value: F.softmax_cross_entropy(X, Y, ignore_index=value),
}
NUMBERS = {
    "lr": SGD,
    "lr of Constant": schedules.Constant,
    "lr of Step": lambda value: schedules.Step(value, 1),
    "factor of Step": lambda value: schedules.Step(1, 1, value),
    "lr of Cosine": lambda value: schedules.Cosine(value, 1),
    "final": lambda value: schedules.Cosine(1, 1, value),
    "lr of ReduceOnPlateau": schedules.ReduceOnPlateau,
    "factor of ReduceOnPlateau": lambda value: schedules.ReduceOnPlateau(1, factor=value),
    "min_delta of ReduceOnPlateau": lambda value: schedules.ReduceOnPlateau(1, min_delta=value),
    "min_lr": lambda value: schedules.ReduceOnPlateau(1, min_lr=value),
    "momentum": lambda value: SGD(momentum=value),
    "weight_decay": lambda value: AdamW(weight_decay=value),
    "beta1": lambda value: Adam(beta1=value),
    "beta2": lambda value: Adam(beta2=value),
    "eps": lambda value: Adam(eps=value),
    "max_norm": lambda value: Adam(max_norm=value),
    "rate": Dropout,
    "deviation": InputNoise,
    "eps of LayerNorm": lambda value: LayerNorm(eps=value),
    "momentum of BatchNorm": lambda value: BatchNorm(momentum=value),
    "complement_weight": lambda value: F.softmax_cross_entropy(X, Y, complement_weight=value),
    "label_smoothing": lambda value: F.softmax_cross_entropy(X, Y, label_smoothing=value),
    "label_smoothing of Trainer": lambda value: Trainer(net(), SGD(), label_smoothing=value),
    "Multilabel": Multilabel,
    "min_delta": lambda value: EarlyStopping(min_delta=value),
    "Every seconds": lambda value: Trigger(seconds=value),
    "test_fraction": lambda value: read(None, value),
    "validation_fraction": lambda value: read_streams("gone.npy", validation_fraction=value),
    "alpha": lambda value: MLPClassifier(alpha=value, device="cpu").fit(X, Y),
    "class_weight": lambda value: MLPClassifier(class_weight={0: value}, device="cpu").fit(X, Y),
}
# None is right there; and so is infinity.
MAY_BE_NONE = {"block_rows", "window_rows", "ignore_index", "max_norm", "test_last", "parts"}
MAY_BE_NONE |= {"test_fraction", "validation_fraction"}
MAY_BE_INFINITE = {"n_iter_no_change"}


@pytest.mark.parametrize("name", [*WHOLE, *NUMBERS])
def test_no_argument_takes_what_is_no_number(name):
    give = {**WHOLE, **NUMBERS}[name]
    for value in [
        True,
        False,
        np.True_,
        math.nan,
        -math.inf,
        math.inf,
        "1",
        None,
        *([1.5, 2.0] if name in WHOLE else []),
    ]:
        if (value is None and name in MAY_BE_NONE) or (value == math.inf and name in MAY_BE_INFINITE):
            continue
        with pytest.raises((ValueError, TypeError), match=r"expected|is not one of"):
            give(value)


@pytest.mark.parametrize(
    "give",
    [
        lambda seed: Network([2, 2], device="cpu", seed=seed),
        lambda seed: Trainer(net(), SGD(), seed=seed),
        lambda seed: stream(X, Y).split("test", 0.5, seed=seed),
    ],
    ids=["Network", "Trainer", "split"],
)
def test_a_seed_is_a_whole_number_or_what_draws(give):
    for seed in (True, np.True_, 1.5, math.nan, -1, "1", object()):
        with pytest.raises(ValueError, match=r"^seed=.*; expected a whole number ≥ 0, a numpy\.random\.Generator"):
            give(seed)
    for seed in (0, np.int64(3), 2**100, None, [1, 2], np.random.default_rng(0), np.random.SeedSequence(1)):
        give(seed)
