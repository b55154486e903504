"""The dropout mask, word for word NumPy's Philox."""

import ml_dtypes
import numpy as np
import pytest

# Every residue of the eight elements of a draw, a block's 2048, and the 65536 of a block on the CPU.
SIZES = (*range(18), 255, 257, 2047, 2048, 2049, 65535, 65537, 70_001)


def words(seed, draw, size):
    """32-bit words of Philox4x64-10 with key `seed`; the first block has counter (1, 0, 0, draw)."""
    generator = np.random.Philox(key=seed, counter=np.array([0, 0, 0, draw], np.uint64))
    return generator.random_raw(-(-size // 2)).astype("<u8").view("<u4")[:size]


def drop(backend, a, rate, seed=0, draw=0):
    before, out, mask = backend.array(a.copy()), backend.zeros(a.shape, a.dtype), backend.zeros(a.shape, bool)
    backend.kernels.dropout(before, out, mask, rate, seed, backend.array(np.array([draw], np.uint64)))
    np.testing.assert_array_equal(backend.host(before).astype(np.float64), a.astype(np.float64))
    return backend.host(out), backend.host(mask)


def test_philox_has_its_published_words():
    """Known answer of the authors' Random123 (kat_vectors, philox4x64 10): counter and key all ones."""
    ones = 2**64 - 1
    generator = np.random.Philox(
        key=np.array([ones] * 2, np.uint64), counter=np.array([ones - 1] + [ones] * 3, np.uint64)
    )
    expected = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert generator.random_raw(4).tolist() == expected


@pytest.mark.parametrize("size", SIZES)
def test_mask_is_philox_word_for_word(backend, size):
    a = np.random.default_rng(size).normal(0, 1, size).astype(np.float32)
    dropped, mask = drop(backend, a, 0.3, seed=2024, draw=5)
    stays = words(2024, 5, size) >= np.uint32(0.3 * 2**32)
    np.testing.assert_array_equal(mask, stays)
    np.testing.assert_array_equal(dropped, np.where(stays, a * np.float32(1 / 0.7), 0))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1, 2**64, 2**127 + 12345])
@pytest.mark.parametrize("draw", [0, 1, 2**32 + 7, 2**64 - 1])
def test_all_bits_of_seed_and_draw_count(backend, seed, draw):
    _, mask = drop(backend, np.ones(999, np.float32), 0.5, seed, draw)
    np.testing.assert_array_equal(mask, words(seed, draw, 999) >= 2**31)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.1, 0.5, 0.9, 1 - 2**-33])
def test_share_of_dropped_elements_is_the_rate(backend, rate):
    n = 100_000
    dropped, mask = drop(backend, np.ones((100, 1000)), rate, seed=3)
    assert (~mask).sum() == pytest.approx(rate * n, abs=5 * np.sqrt(rate * (1 - rate) * n) + 1e-6)
    np.testing.assert_array_equal(dropped, mask * (1 / (1 - rate)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backward_drops_and_scales_what_forward_did(backend, size, dtype):
    a = np.random.default_rng(size).normal(0, 1, size).astype(dtype)
    dropped, mask = drop(backend, a, 0.4, seed=7, draw=1)
    da = backend.array(a.copy())
    backend.kernels.dropout_backward(da, backend.array(mask), 0.4)
    np.testing.assert_array_equal(backend.host(da), dropped)


def test_unaligned_views_give_the_same_and_touch_nothing_else(backend):
    a = np.random.default_rng(0).normal(0, 1, 2100).astype(np.float32)
    expected, mask = drop(backend, a, 0.5, seed=9)
    for shift in (0, 1, 2, 3, 4):
        for mask_shift in (0, 1, 4, 7, 8):
            memory, mask_memory = np.full(2116, 7, np.float32), np.ones(2116, bool)
            memory[shift : shift + 2100] = a
            memory, mask_memory = backend.array(memory), backend.array(mask_memory)
            view, mask_view = memory[shift : shift + 2100], mask_memory[mask_shift : mask_shift + 2100]
            out = backend.zeros(2100, np.float32)  # aligned, whatever the others are
            backend.kernels.dropout(view, out, mask_view, 0.5, 9, backend.array(np.zeros(1, np.uint64)))
            np.testing.assert_array_equal(backend.host(out), expected)
            backend.kernels.dropout(view, view, mask_view, 0.5, 9, backend.array(np.zeros(1, np.uint64)))
            np.testing.assert_array_equal(backend.host(view), expected)
            np.testing.assert_array_equal(backend.host(mask_view), mask)
            backend.kernels.dropout_backward(view, mask_view, 0.5)
            np.testing.assert_array_equal(backend.host(view), expected * 2)
            assert (np.delete(backend.host(memory), np.arange(shift, shift + 2100)) == 7).all()
            assert np.delete(backend.host(mask_memory), np.arange(mask_shift, mask_shift + 2100)).all()


@pytest.mark.parametrize("backend", ["emulated", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_types_have_the_same_mask(backend, dtype):
    a = np.random.default_rng(0).normal(0, 1, 3001).astype(dtype)
    dropped, mask = drop(backend, a, 0.3, seed=4)
    np.testing.assert_array_equal(mask, words(4, 0, 3001) >= np.uint32(0.3 * 2**32))
    expected = (np.where(mask, a.astype(np.float32) * np.float32(1 / 0.7), 0)).astype(dtype)
    np.testing.assert_array_equal(dropped.astype(np.float32), expected.astype(np.float32))
    da = backend.array(a.copy())
    backend.kernels.dropout_backward(da, backend.array(mask), 0.3)
    np.testing.assert_array_equal(backend.host(da).astype(np.float32), expected.astype(np.float32))
