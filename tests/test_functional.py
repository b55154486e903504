"""The public mathematics: options, reductions, masked classes, and what is refused. Equations: test_derivation."""

import tracemalloc

import numpy as np
import pytest

from gpu_nn import functional as F
from gpu_nn.testing.accuracy import BOUNDS, LABELS, cells, rows
from gpu_nn.testing.reference import cost_and_grad

TINY = {dtype: float(np.finfo(dtype).tiny) for dtype in ("float32", "float64")}


def logits(n=6, m=5, scale=10.0, dtype=np.float64, seed=0):
    return (np.random.default_rng(seed).standard_normal((n, m)) * scale).astype(dtype)


def assert_exact(z, y, loss, dz, **options):
    """Rows of loss and gradient (reduction="none") against mpmath."""
    dense = y if np.ndim(y) == 2 else np.eye(z.shape[1])[y]
    dtype = z.dtype.name
    for r in range(len(z)):
        exact = cost_and_grad(z[r], dense[r], **options)
        assert exact.cost_error(loss[r], TINY[dtype]) <= BOUNDS[dtype]
        assert exact.grad_error(dz[r], TINY[dtype]) <= BOUNDS[dtype]


class TestAccuracy:
    def test_errors_stay_under_the_bounds_where_the_compositions_break(self):
        found = [*cells(classes=(2, 3, 10), scales=(1, 50, 1000)), *cells(classes=(100,), scales=(50,))]
        for cell in found:
            for dtype, bound in BOUNDS.items():
                assert cell[dtype]["grad_error"] <= bound, cell
                assert cell[dtype]["cost_error"] <= bound, cell
                assert cell[dtype]["non_finite"] == 0, cell
        for name in ("log1p(-p)", "log(-expm1(log p))"):
            assert max(cell[name]["non_finite"] for cell in found) > 0.5

    @pytest.mark.slow
    def test_errors_stay_under_the_bounds_in_every_cell(self):
        for cell in cells():
            for dtype, bound in BOUNDS.items():
                assert max(cell[dtype]["grad_error"], cell[dtype]["cost_error"]) <= bound, cell
                assert cell[dtype]["non_finite"] == 0, cell

    @pytest.mark.parametrize("dtype", BOUNDS)
    @pytest.mark.parametrize("labels", ["right", "wrong"])
    @pytest.mark.parametrize("m", [2, 10, 64])
    @pytest.mark.parametrize("scale", [1, 50, 1000])
    def test_class_indices_are_as_exact_as_targets(self, dtype, labels, m, scale):
        """Alone, where a small batch takes another way, and among many rows."""
        z, y = rows(m, scale, labels, dtype, 8)
        many = np.tile(z, (700, 1))
        label = y.argmax(axis=1)
        for logits in (z, many):
            loss, dz = F.softmax_cross_entropy_with_grad(logits, np.resize(label, len(logits)), reduction="none")
            assert_exact(z, y, loss[-8:], dz[-8:])
        for r in range(8):  # one unusual row sends a whole batch the other way
            loss, dz = F.softmax_cross_entropy_with_grad(z[[r]], label[[r]], reduction="none")
            assert_exact(z[[r]], y[[r]], loss, dz)

    @pytest.mark.parametrize("complement_weight", [0.0, 0.25, 1.0, 1e6])
    @pytest.mark.parametrize("largest", [299.9, 300.1, 720.0, 1e37])
    def test_a_small_batch_is_exact_on_either_side_of_the_largest_logit_it_takes(self, largest, complement_weight):
        z = np.array([[largest, -largest, 0, 1], [largest, largest, -largest, 2], [0, 1, 2, 3]], np.float32)
        z, y = np.repeat(z, 4, axis=0), np.tile(np.arange(4), 3)
        if largest > 1000:
            z[:8, 1] = z[:8, 0]  # differences that float32 can hold
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, complement_weight=complement_weight, reduction="none")
        assert_exact(z, y, loss, dz, complement_weight=complement_weight)

    @pytest.mark.parametrize("labels", LABELS)
    def test_float16_is_the_float32_result_rounded_once(self, labels):
        z, y = rows(10, 10, labels, "float32", 24)
        half = z.astype(np.float16)
        loss, dz = F.softmax_cross_entropy_with_grad(half, y, reduction="none")
        full_loss, full_dz = F.softmax_cross_entropy_with_grad(half.astype(np.float32), y, reduction="none")
        assert loss.dtype == np.float32
        assert dz.dtype == np.float16
        np.testing.assert_array_equal(loss, full_loss)
        np.testing.assert_array_equal(dz, full_dz.astype(np.float16))

    @pytest.mark.parametrize("m", [63, 64, 65, 70_000])
    def test_long_rows_and_both_layouts_agree_with_float64(self, m):
        """Class-major blocks up to 64 classes, row-major ones above, and rows longer than a block."""
        z = logits(5, m, 5.0, np.float32)
        y = np.array([0, m - 1, 1, m // 2, 2])
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, reduction="none")
        exact_loss, exact_dz = F.softmax_cross_entropy_with_grad(z.astype(np.float64), y, reduction="none")
        np.testing.assert_allclose(loss, exact_loss, rtol=4e-6)
        assert np.max(np.abs(dz - exact_dz), axis=1) == pytest.approx(0, abs=4e-6)

    @pytest.mark.parametrize(("n", "m"), [(20_000, 10), (7_000, 40), (70, 2_000)])
    def test_rows_do_not_depend_on_the_block_they_are_computed_in(self, n, m):
        z, y = logits(n, m, 20.0, np.float32), np.random.default_rng(1).integers(0, m, n)
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, reduction="none")
        some = np.random.default_rng(2).integers(0, n, 50)
        few_loss, few_dz = F.softmax_cross_entropy_with_grad(z[some], y[some], reduction="none")
        np.testing.assert_allclose(loss[some], few_loss, rtol=2e-6)
        np.testing.assert_allclose(dz[some], few_dz, rtol=1e-4, atol=1e-6)


class TestOptions:
    @pytest.mark.parametrize("complement_weight", [0.0, 0.25, 1.0, 3.0])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_complement_weight_weighs_the_terms_of_one_minus_p(self, complement_weight, dtype):
        z, y = logits(dtype=dtype), np.array([0, 1, 2, 3, 4, 0])
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, complement_weight=complement_weight, reduction="none")
        assert_exact(z, y, loss, dz, complement_weight=complement_weight)

    def test_without_complement_it_is_the_standard_cross_entropy(self):
        z, y = logits(), np.array([0, 1, 2, 3, 4, 0])
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, complement_weight=0)
        assert loss == pytest.approx(-F.log_softmax(z)[np.arange(6), y].sum(), rel=1e-14)
        np.testing.assert_allclose(dz, F.softmax(z) - np.eye(5)[y], atol=1e-15)

    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_y_is_smoothed_first_and_a_class_weight_multiplies_both_terms_of_its_class(
        self, label_smoothing, weighted, dense, dtype
    ):
        z, y = logits(dtype=dtype), np.array([0, 1, 2, 3, 4, 0])
        weight = np.array([0.5, 3.0, 0.0, 1.0, 20.0]) if weighted else None
        options = {"label_smoothing": label_smoothing, "class_weight": weight}
        given = np.eye(5)[y] if dense else y
        loss, dz = F.softmax_cross_entropy_with_grad(z, given, reduction="none", **options)
        assert_exact(z, y, loss, dz, **options)

    def test_a_sample_weight_multiplies_the_whole_cost_of_its_row(self):
        z, y, v = logits(), np.array([0, 1, 2, 3, 4, 0]), np.array([1.0, 0.0, 2.5, 1, 1, 7])
        rows_loss, rows_dz = F.softmax_cross_entropy_with_grad(z, y, reduction="none")
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, sample_weight=v)
        assert loss == pytest.approx(v @ rows_loss, rel=1e-14)
        np.testing.assert_allclose(dz, v[:, None] * rows_dz, rtol=1e-14)
        mean, mean_dz = F.softmax_cross_entropy_with_grad(z, y, sample_weight=v, reduction="mean")
        assert mean == pytest.approx(v @ rows_loss / v.sum(), rel=1e-14)
        np.testing.assert_allclose(mean_dz, (v / v.sum())[:, None] * rows_dz, rtol=1e-13)

    @pytest.mark.parametrize("index_type", [np.int32, np.int64, np.uint8])
    def test_an_ignored_label_counts_nothing_not_even_in_the_mean(self, index_type):
        ignore = 250
        z, y = logits(), np.array([0, ignore, 2, 3, ignore, 0], index_type)
        kept = y != ignore
        z[1] = np.nan  # never read
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, ignore_index=ignore, reduction="mean")
        exact, exact_dz = F.softmax_cross_entropy_with_grad(z[kept], y[kept], reduction="mean")
        assert loss == pytest.approx(exact, rel=1e-14)
        np.testing.assert_allclose(dz[kept], exact_dz, rtol=1e-14)
        assert not dz[~kept].any()

    def test_a_negative_ignore_index_works_as_in_pytorch(self):
        loss = F.softmax_cross_entropy(logits(3), np.array([0, -100, 2]), ignore_index=-100, reduction="none")
        assert loss[1] == 0
        assert (loss[[0, 2]] > 0).all()

    def test_a_mean_over_nothing_is_zero(self):
        z = logits(2)
        loss, dz = F.softmax_cross_entropy_with_grad(z, np.array([9, 9]), ignore_index=9, reduction="mean")
        assert loss == 0
        assert not dz.any()

    @pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
    def test_an_empty_batch_has_no_cost(self, reduction):
        loss, dz = F.softmax_cross_entropy_with_grad(np.empty((0, 3)), np.empty(0, int), reduction=reduction)
        assert np.shape(loss) == ((0,) if reduction == "none" else ())
        assert np.sum(loss) == 0
        assert dz.shape == (0, 3)

    def test_out_may_be_the_logits_themselves(self):
        z, y = logits(9000, 12, dtype=np.float32), np.random.default_rng(0).integers(0, 12, 9000)
        _, dz = F.softmax_cross_entropy_with_grad(z, y)
        _, same = F.softmax_cross_entropy_with_grad(z, y, out=z)
        assert same is z
        np.testing.assert_array_equal(z, dz)

    def test_logits_are_left_as_they_were_without_out(self):
        z = logits()
        before = z.copy()
        F.softmax_cross_entropy_with_grad(z, np.zeros(6, int))
        np.testing.assert_array_equal(z, before)

    def test_logits_that_are_not_contiguous_give_the_same(self):
        z, y = logits(8, 6), np.arange(4)
        np.testing.assert_array_equal(
            F.softmax_cross_entropy_with_grad(z[::2, ::2], y % 3)[1],
            F.softmax_cross_entropy_with_grad(z[::2, ::2].copy(), y % 3)[1],
        )

    def test_the_cost_alone_is_the_cost_with_gradient(self):
        z, y = logits(), np.array([0, 1, 2, 3, 4, 0])
        assert F.softmax_cross_entropy(z, y) == F.softmax_cross_entropy_with_grad(z, y)[0]


class TestMaskedClasses:
    def test_a_masked_class_has_no_probability_and_no_gradient(self):
        z = np.array([[1.0, -np.inf, 2.0, 0.5]])
        open_z = z[:, [0, 2, 3]]
        np.testing.assert_allclose(F.softmax(z)[:, [0, 2, 3]], F.softmax(open_z), rtol=1e-15)
        assert F.softmax(z)[0, 1] == 0
        assert F.log_softmax(z)[0, 1] == -np.inf
        assert F.log1m_softmax(z)[0, 1] == 0
        loss, dz = F.softmax_cross_entropy_with_grad(z, [2])
        open_loss, open_dz = F.softmax_cross_entropy_with_grad(open_z, [1])
        assert loss == pytest.approx(open_loss, rel=1e-15)
        np.testing.assert_allclose(dz[:, [0, 2, 3]], open_dz, rtol=1e-14)
        assert dz[0, 1] == 0

    @pytest.mark.parametrize("m", [2, 4, 100])
    def test_a_row_with_one_open_class_is_certain(self, m):
        z = np.full((1, m), -np.inf)
        z[0, 1] = 3.0
        np.testing.assert_array_equal(F.softmax(z), np.eye(m)[[1]])
        loss, dz = F.softmax_cross_entropy_with_grad(z, [1])
        assert loss == 0
        assert not dz.any()

    def test_a_row_with_no_open_class_has_no_probabilities_and_no_gradient(self):
        z = np.full((1, 3), -np.inf)
        assert not F.softmax(z).any()
        loss, dz = F.softmax_cross_entropy_with_grad(z, [1])
        assert loss == np.inf
        assert not dz.any()

    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_a_label_on_a_masked_class_costs_infinitely_and_has_a_finite_gradient(self, dense, smoothing):
        z = np.array([[1.0, -np.inf, 2.0], [1.0, 0.0, 2.0]])
        y = np.array([1, 1])
        given = np.eye(3)[y] if dense else y
        loss, dz = F.softmax_cross_entropy_with_grad(z, given, label_smoothing=smoothing, reduction="none")
        assert loss[0] == np.inf
        assert np.isfinite(loss[1])
        assert np.isfinite(dz).all()
        assert dz[0, 1] == 0

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("m", [3, 100])
    def test_a_broken_row_is_nan_and_no_other(self, bad, m):
        z = logits(4, m)
        z[2, 1] = bad
        loss, dz = F.softmax_cross_entropy_with_grad(z, np.zeros(4, int), reduction="none")
        family = [F.softmax(z), F.log_softmax(z), F.log1m_softmax(z), F.all_but_one_softmax(z, 0)]
        assert np.isnan(loss[2])
        for values in [dz, *family]:
            assert np.isnan(values[2]).any()
            assert np.isfinite(np.delete(values, 2, axis=0)).all()


class TestAllButOne:
    def test_t_may_differ_from_row_to_row(self):
        z, t = logits(5, 4), np.array([0, 3, 1, 2, 0])
        each = np.concatenate([F.all_but_one_softmax(z[[r]], int(t[r])) for r in range(5)])
        np.testing.assert_array_equal(F.all_but_one_softmax(z, t), each)
        np.testing.assert_allclose(each.sum(axis=1), 1, rtol=1e-14)


class TestLinear:
    @pytest.mark.parametrize("chunk_rows", [1, 7, 50, None])
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_chunks_give_the_gradients_of_the_whole(self, chunk_rows, reduction):
        random = np.random.default_rng(0)
        a, w, b = random.standard_normal((50, 7)), random.standard_normal((7, 9)), random.standard_normal(9)
        y, v = random.integers(0, 9, 50), random.random(50)
        options = {"sample_weight": v, "label_smoothing": 0.1, "reduction": reduction}
        loss, da, dw, db = F.linear_softmax_cross_entropy_with_grad(a, w, b, y, chunk_rows=chunk_rows, **options)
        whole, dz = F.softmax_cross_entropy_with_grad(a @ w + b, y, **options)
        assert loss == pytest.approx(whole, rel=1e-13)
        for found, exact in ((da, dz @ w.T), (dw, a.T @ dz), (db, dz.sum(axis=0))):
            np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-12)

    def test_bias_may_be_left_out(self):
        a, w = logits(4, 3, 1), logits(3, 5, 1)
        loss, _, _, db = F.linear_softmax_cross_entropy_with_grad(a, w, None, [0, 1, 2, 3])
        assert loss == pytest.approx(F.softmax_cross_entropy(a @ w, [0, 1, 2, 3]))
        assert db is None

    @pytest.mark.parametrize("chunk_rows", [2, np.int64(2), None])
    def test_no_inputs_leave_the_bias_alone(self, chunk_rows):
        """z = b: da and dw are empty; loss and db are those of the bias as every row's logits."""
        a, w, b = np.ones((3, 0)), np.ones((0, 4)), np.arange(4.0)
        loss, da, dw, db = F.linear_softmax_cross_entropy_with_grad(a, w, b, [0, 1, 2], chunk_rows=chunk_rows)
        whole, dz = F.softmax_cross_entropy_with_grad(np.tile(b, (3, 1)), [0, 1, 2])
        assert (loss, da.shape, dw.shape) == (pytest.approx(whole), (3, 0), (0, 4))
        np.testing.assert_allclose(db, dz.sum(axis=0), rtol=1e-14)
        assert F.linear_softmax_cross_entropy_with_grad(a, w, None, [0, 1, 2])[0] == pytest.approx(
            F.softmax_cross_entropy(np.zeros((3, 4)), [0, 1, 2])
        )

    def test_memory_stays_under_two_chunks_of_logits_and_the_outputs(self):
        n, inputs, m, chunk_rows = 2000, 16, 5000, 100
        random = np.random.default_rng(0)
        a, w = random.random((n, inputs), dtype=np.float32), random.random((inputs, m), dtype=np.float32)
        b, y = np.zeros(m, np.float32), random.integers(0, m, n)
        outputs = a.nbytes + w.nbytes + b.nbytes + 4 * n
        tracemalloc.start()
        try:
            F.linear_softmax_cross_entropy_with_grad(a, w, b, y, chunk_rows=chunk_rows)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 * chunk_rows * m * 4 + outputs
        assert peak < n * m * 4 / 5


class TestRefusals:
    Z = np.zeros((3, 4))

    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            ([0, 4, -1], ValueError, r"out of range at 2 places, the first y\[1\] = 4, y\[2\] = -1; expected 0 to 3"),
            ([0.0, 1.0, 2.0], TypeError, "y is of float64; class indices must be integers"),
            ([True, False, True], TypeError, "bool; class indices must be integers"),
            ([0, 1], ValueError, r"y has shape \(2,\); expected \(3,\)"),
            (np.full((3, 4), 1.5), ValueError, r"y\[0, 0\] = 1.5.*expected targets from 0 to 1"),
            (np.full((3, 4), np.nan), ValueError, "nan.*expected targets from 0 to 1"),
            (np.zeros((3, 5)), ValueError, r"y has shape \(3, 5\); expected \(3, 4\)"),
            (np.zeros((3, 4, 1)), ValueError, "y has 3 dimensions"),
            (np.full((3, 4), "a"), TypeError, "y is 2-D of <U1"),
        ],
    )
    def test_targets(self, y, error, message):
        with pytest.raises(error, match=message):
            F.softmax_cross_entropy(self.Z, y)

    @pytest.mark.parametrize(
        ("z", "error", "message"),
        [
            (np.zeros((3, 1)), ValueError, "at least 2 classes"),
            (np.zeros(3), ValueError, "expected 2 dimensions"),
            (np.zeros((3, 4), int), TypeError, r"z is of int64; .*astype\('float32'\)"),
            ([[0.0, 1.0]], TypeError, "z is a list; expected a NumPy or CuPy array"),
        ],
    )
    def test_logits(self, z, error, message):
        for function in (F.softmax, F.log_softmax, F.log1m_softmax, lambda z: F.softmax_cross_entropy(z, [0, 0, 0])):
            with pytest.raises(error, match=message):
                function(z)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"complement_weight": -1}, "complement_weight=-1; expected a finite number ≥ 0"),
            ({"complement_weight": np.nan}, "complement_weight=nan"),
            ({"label_smoothing": 1.5}, "label_smoothing=1.5; expected a finite number ≥ 0 and ≤ 1"),
            ({"class_weight": [1, 2]}, r"class_weight has shape \(2,\); expected \(4,\)"),
            ({"class_weight": [1, 2, -3, 1]}, "class_weight has negative, NaN or infinite values"),
            ({"sample_weight": [1, 2]}, r"sample_weight has shape \(2,\); expected \(3,\)"),
            ({"sample_weight": [1, 2, np.nan]}, "sample_weight has negative, NaN or infinite values"),
            ({"reduction": "average"}, "reduction='average' is not one of mean, none, sum"),
            ({"reduction": "meen"}, "Did you mean 'mean'?"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            F.softmax_cross_entropy(self.Z, [0, 1, 2], **options)

    def test_ignore_index_with_dense_targets(self):
        with pytest.raises(ValueError, match="ignore_index goes with class indices"):
            F.softmax_cross_entropy(self.Z, np.zeros((3, 4)), ignore_index=0)

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (np.zeros((3, 5)), "expected"),
            (np.zeros((3, 4), np.float32), "of float32; expected"),
            (np.zeros((4, 3)).T, "not C-contiguous"),
        ],
    )
    def test_out(self, out, message):
        with pytest.raises(ValueError, match=message):
            F.softmax_cross_entropy_with_grad(self.Z, [0, 1, 2], out=out)

    def test_out_that_overlaps_the_logits_in_part(self):
        memory = np.zeros((4, 4))
        with pytest.raises(ValueError, match="overlaps z in part"):
            F.softmax_cross_entropy_with_grad(memory[:3], [0, 1, 2], out=memory[1:])

    def test_t_out_of_range(self):
        with pytest.raises(ValueError, match="t is out of range"):
            F.all_but_one_softmax(self.Z, 4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"w": np.zeros((3, 4))}, r"w has shape \(3, 4\); expected \(2, m\)"),
            ({"w": np.zeros((2, 4), np.float32)}, "w is of float32 and a of float64; expected one type"),
            ({"w": np.zeros((2, 1))}, "at least 2 classes"),
            ({"b": np.zeros(3)}, r"b has shape \(3,\); expected \(4,\)"),
            *(
                ({"chunk_rows": rows}, rf"chunk_rows={rows!r}; expected a whole number of rows ≥ 1, or None")
                for rows in (0, -1, 1.5, "3", True)
            ),
            ({"reduction": "none"}, "has no single gradient"),
        ],
    )
    def test_linear_arguments(self, change, message):
        given = {"a": np.zeros((3, 2)), "w": np.zeros((2, 4)), "b": np.zeros(4), "y": [0, 1, 2], **change}
        with pytest.raises((ValueError, TypeError), match=message):
            F.linear_softmax_cross_entropy_with_grad(**given)
