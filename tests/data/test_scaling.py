import sys

import numpy as np
import pytest

from gpu_nn.data.scaling import InputScaler, shift_and_scale


def added(x, parts):
    scaler = InputScaler()
    for part in np.array_split(x, parts):
        scaler.partial_fit(part)
    return scaler.shift_and_scale()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("parts", [1, 2, 37, 500])
def test_batches_give_the_moments_of_all_rows(dtype, parts):
    random = np.random.default_rng(0)
    # A mean a thousand deviations away: sums of squares would lose it in float32.
    x = (random.normal(size=(500, 3)) * [1, 5, 9] + [1e3, -4e3, 0]).astype(dtype)
    shift, scale = added(x, parts)
    exact = x.astype(np.longdouble)
    np.testing.assert_allclose(shift, exact.mean(0).astype(float), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(1 / scale, exact.std(0).astype(float), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_bytes_are_divided_by_the_largest_of_all_batches(dtype):
    x = np.arange(60).reshape(20, 3).astype(dtype)
    shift, scale = added(x[::-1], 7)
    np.testing.assert_array_equal(shift, 0)
    np.testing.assert_array_equal(scale, 1 / 59)


def test_bytes_with_a_negative_value_in_a_later_batch_are_standardised():
    x = np.arange(30, dtype=np.int8).reshape(10, 3)
    x[9, 0] = -1
    np.testing.assert_allclose(added(x, 10)[0], x.mean(0))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("parts", [1, 7])
def test_columns_of_larger_whole_numbers_come_to_the_same_size(dtype, parts, monkeypatch):
    monkeypatch.setattr(sys.modules[InputScaler.__module__], "_VALUES", 30)
    random = np.random.default_rng(0)
    x = np.column_stack([random.integers(0, 2, 100), random.integers(0, 60_000, 100)]).astype(dtype)
    shift, scale = added(x, parts)
    np.testing.assert_allclose((x - shift).mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(((x - shift) * scale).std(0), 1)


def test_a_constant_column_keeps_its_size():
    assert shift_and_scale(np.full((5, 1), 7.0))[1] == 1
