"""The stand-in for cublasLt, against products written out: column-major, leading dimensions, transposes, epilogues."""

import sys
from importlib import import_module

import numpy as np
import pytest

from tests.cuda_emulator import EmulatorError, nvmath_bindings
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.nvmath_bindings import Epilogue, MatmulDescAttribute, MatmulPreferenceAttribute

CUDA_TYPES = {"float32": 0, "float64": 1, "float16": 2}
WORKSPACE = 1 << 20


def attribute(setter, target, name, value, dtype):
    held = np.array([value], dtype)
    setter(target, name, held.ctypes.data, held.nbytes)


class Problem:
    """D (m × n) = op(A)·op(B), each matrix with its own leading dimension, in memory as cublasLt sees it."""

    def __init__(
        self, m, n, k, *, trans=(0, 0), extra=(0, 0, 0), dtype="float32", out="float32", epilogue=Epilogue.DEFAULT
    ):
        self.lt, self.epilogue = nvmath_bindings, epilogue
        shapes = ((k, m) if trans[0] else (m, k), (n, k) if trans[1] else (k, n), (m, n))
        random = np.random.default_rng(m + n + k)
        self.memory, self.layouts = [], []
        for (rows, columns), more, kind in zip(shapes, extra, (dtype, dtype, out), strict=True):
            self.memory.append(cupy.asarray(random.integers(-4, 5, (rows + more) * columns).astype(kind)))
            self.layouts.append(self.lt.matrix_layout_create(CUDA_TYPES[kind], rows, columns, rows + more))
        self.shapes, self.extra, self.trans = shapes, extra, trans
        self.bias = cupy.asarray(random.integers(-9, 10, max(m, n)).astype(out))
        self.desc = self.lt.matmul_desc_create(68, 0)
        for name, value in ((MatmulDescAttribute.TRANSA, trans[0]), (MatmulDescAttribute.TRANSB, trans[1])):
            attribute(self.lt.matmul_desc_set_attribute, self.desc, name, value, np.int32)
        attribute(self.lt.matmul_desc_set_attribute, self.desc, MatmulDescAttribute.EPILOGUE, epilogue, np.uint32)
        attribute(
            self.lt.matmul_desc_set_attribute, self.desc, MatmulDescAttribute.BIAS_POINTER, self.bias.data.ptr, np.int64
        )
        self.handle, self.workspace = self.lt.create(), cupy.empty(WORKSPACE, np.uint8)
        self.aligned, self.stream = 16, cupy.cuda.get_current_stream().ptr

    def matrix(self, i):
        """What a reader of the manual takes for matrix i: element (r, c) at memory[c · leading + r]."""
        rows, columns = self.shapes[i]
        memory, leading = self.memory[i].get(), rows + self.extra[i]
        return np.array([[memory[c * leading + r] for c in range(columns)] for r in range(rows)])

    def algorithm(self):
        preference = self.lt.matmul_preference_create()
        setter = self.lt.matmul_preference_set_attribute
        attribute(setter, preference, MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES, WORKSPACE, np.uint64)
        for matrix in "ABCD":
            name = MatmulPreferenceAttribute[f"MIN_ALIGNMENT_{matrix}_BYTES"]
            attribute(setter, preference, name, self.aligned, np.uint32)
        found, count = self.lt.MatmulHeuristicResult(), np.zeros(1, np.int32)
        a, b, d = self.layouts
        self.lt.matmul_algo_get_heuristic(
            self.handle, self.desc, a, b, d, d, preference, 1, found.ptr, count.ctypes.data
        )
        assert count[0] == 1
        return found

    def run(self, alpha=1.0, beta=0.0, algorithm=None, addresses=None, workspace=WORKSPACE):
        algorithm = algorithm or self.algorithm()
        factors = np.array([alpha, beta], np.float32)
        a, b, d = addresses or [array.data.ptr for array in self.memory]
        a_layout, b_layout, d_layout = self.layouts
        alpha_at, beta_at = factors.ctypes.data, factors.ctypes.data + 4
        self.lt.matmul(
            *(self.handle, self.desc, alpha_at, a, a_layout, b, b_layout, beta_at, d, d_layout, d, d_layout),
            *(algorithm.ptr, self.workspace.data.ptr, workspace, self.stream),
        )


@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("extra", [(0, 0, 0), (3, 1, 2)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (2.0, 1.0), (-1.0, 0.5)])
def test_products_are_column_major_with_leading_dimensions(trans, extra, alpha, beta):
    problem = Problem(4, 3, 5, trans=trans, extra=extra)
    a, b, before = (problem.matrix(i) for i in range(3))
    gaps = problem.memory[2].get()
    problem.run(alpha, beta)
    expected = alpha * (a.T if trans[0] else a) @ (b.T if trans[1] else b) + beta * before
    np.testing.assert_array_equal(problem.matrix(2), expected)
    leading = 4 + extra[2]
    outside = np.arange(gaps.size) % leading >= 4
    np.testing.assert_array_equal(problem.memory[2].get()[outside], gaps[outside])


@pytest.mark.parametrize(
    ("epilogue", "output", "bias"),
    [
        (Epilogue.BIAS, lambda d, bias: d + bias[:4, None], None),
        (Epilogue.RELU, lambda d, bias: np.maximum(d, 0), None),
        (Epilogue.RELU_BIAS, lambda d, bias: np.maximum(d + bias[:4, None], 0), None),
        (Epilogue.BGRADA, lambda d, bias: d, lambda a, b: a.sum(axis=1)),
        (Epilogue.BGRADB, lambda d, bias: d, lambda a, b: b.sum(axis=0)),
    ],
)
def test_epilogues_are_those_of_the_manual(epilogue, output, bias):
    problem = Problem(4, 3, 5, epilogue=epilogue)
    a, b, before = problem.matrix(0), problem.matrix(1), problem.bias.get()
    problem.run()
    np.testing.assert_array_equal(problem.matrix(2), output(a @ b, before))
    expected = before.copy()
    if bias is not None:
        sums = bias(a, b)
        expected[: sums.size] = sums
    np.testing.assert_array_equal(problem.bias.get(), expected)


def masked(m, n, k, epilogue, leading, bits=None):
    """A problem with a mask, of these bytes or of ones."""
    problem = Problem(m, n, k, epilogue=epilogue)
    problem.mask = cupy.asarray(np.full(n * 64, 255, np.uint8) if bits is None else bits)
    for name, value in (
        (MatmulDescAttribute.EPILOGUE_AUX_POINTER, problem.mask.data.ptr),
        (MatmulDescAttribute.EPILOGUE_AUX_LD, leading),
    ):
        attribute(problem.lt.matmul_desc_set_attribute, problem.desc, name, value, np.int64)
    return problem


def bits_of(mask, m, n, leading):
    """As the manual has them: of row r and column c, bit r of the column's `leading` bits."""
    return np.array([[mask[(c * leading + r) // 8] >> (r % 8) & 1 for c in range(n)] for r in range(m)], bool)


@pytest.mark.parametrize(("m", "leading"), [(4, 128), (4, 256), (130, 256)])
def test_a_forward_pass_leaves_a_mask_of_bits(m, leading):
    problem = masked(m, 3, 5, Epilogue.RELU_AUX_BIAS, leading)
    z = problem.matrix(0) @ problem.matrix(1) + problem.bias.get()[:m, None]
    problem.run()
    np.testing.assert_array_equal(problem.matrix(2), np.maximum(z, 0))
    assert m < 130 or (z == 0).any()
    mask = problem.mask.get()
    np.testing.assert_array_equal(bits_of(mask, m, 3, leading), z > 0)
    assert (mask[3 * leading // 8 :] == 255).all()


@pytest.mark.parametrize("epilogue", [Epilogue.DRELU, Epilogue.DRELU_BGRAD])
@pytest.mark.parametrize(("m", "leading"), [(4, 128), (130, 256)])
def test_a_backward_pass_lets_through_what_the_mask_says(epilogue, m, leading):
    bits = np.random.default_rng(m).integers(0, 256, 3 * leading // 8).astype(np.uint8)
    problem = masked(m, 3, 5, epilogue, leading, bits)
    before, expected = problem.bias.get(), problem.matrix(0) @ problem.matrix(1) * bits_of(bits, m, 3, leading)
    problem.run()
    np.testing.assert_array_equal(problem.matrix(2), expected)
    sums = expected.sum(axis=1) if epilogue == Epilogue.DRELU_BGRAD else before[:m]
    np.testing.assert_array_equal(problem.bias.get(), np.concatenate([sums, before[m:]]))
    np.testing.assert_array_equal(problem.mask.get(), bits)


@pytest.mark.parametrize(
    ("m", "k", "leading", "status"), [(4, 5, 64, 7), (130, 5, 128, 7), (4, 5, 0, 7), (4, 1, 128, 15)]
)
def test_masks_that_do_not_fit_have_no_algorithm(m, k, leading, status):
    with pytest.raises(nvmath_bindings.cuBLASLtError) as error:
        masked(m, 3, k, Epilogue.DRELU, leading).algorithm()
    assert error.value.status == status


def test_half_factors_are_summed_in_float32():
    problem = Problem(2, 2, 4096, dtype="float16")
    for array in problem.memory[:2]:
        array.fill(1)
    problem.run()
    assert (problem.matrix(2) == 4096).all()


class TestRefusals:
    def test_a_layout_that_runs_past_its_array(self):
        problem = Problem(4, 3, 5)
        short = cupy.asarray(np.zeros(4 * 5 - 1, np.float32))
        with pytest.raises(EmulatorError, match=r"80 bytes at .* are not within one array"):
            problem.run(addresses=[short.data.ptr, *(array.data.ptr for array in problem.memory[1:])])

    def test_memory_that_is_gone(self):
        problem = Problem(4, 3, 5)
        address = problem.memory[0].data.ptr
        rest = [array.data.ptr for array in problem.memory[1:]]
        problem.memory[0] = None
        with pytest.raises(EmulatorError, match="not within one array"):
            problem.run(addresses=[address, *rest])

    def test_an_address_less_aligned_than_was_said(self):
        problem = Problem(4, 3, 5)
        memory = cupy.asarray(np.zeros(32, np.float32))
        rest = [array.data.ptr for array in problem.memory[1:]]
        with pytest.raises(EmulatorError, match=r"A at .* is not aligned to 16 bytes"):
            problem.run(addresses=[memory[1:].data.ptr, *rest])
        problem.aligned = 4
        problem.run(addresses=[memory[1:].data.ptr, *rest])

    def test_a_workspace_that_is_too_small(self):
        with pytest.raises(EmulatorError, match=f"a workspace of 5 bytes for an algorithm that needs {WORKSPACE}"):
            Problem(4, 3, 5).run(workspace=5)

    def test_an_algorithm_of_another_problem(self):
        with pytest.raises(EmulatorError, match="chosen for another problem"):
            Problem(4, 3, 5).run(algorithm=Problem(4, 3, 6).algorithm())

    def test_matrices_that_do_not_fit(self):
        problem = Problem(4, 3, 5)
        problem.layouts[1] = problem.lt.matrix_layout_create(0, 4, 3, 5)
        with pytest.raises(EmulatorError, match="do not make"):
            problem.run()

    def test_another_stream(self):
        problem = Problem(4, 3, 5)
        problem.stream = cupy.cuda.Stream(non_blocking=True).ptr
        with pytest.raises(EmulatorError, match="another stream"):
            problem.run()

    def test_an_attribute_of_another_width(self):
        problem, setter = Problem(1, 1, 1), nvmath_bindings.matmul_desc_set_attribute
        with pytest.raises(nvmath_bindings.cuBLASLtError):
            attribute(setter, problem.desc, MatmulDescAttribute.TRANSA, 1, np.int8)

    def test_an_epilogue_that_no_algorithm_has(self, monkeypatch):
        monkeypatch.setattr(nvmath_bindings, "refused", {Epilogue.BIAS})
        with pytest.raises(nvmath_bindings.cuBLASLtError) as error:
            Problem(4, 3, 5, epilogue=Epilogue.BIAS).algorithm()
        assert error.value.status == 15


def test_it_is_there_while_it_is_installed():
    before = dict(sys.modules)
    with nvmath_bindings.installed():
        from nvmath.bindings import cublasLt

        assert cublasLt is nvmath_bindings
    with nvmath_bindings.installed(False), pytest.raises(ImportError):
        import_module("nvmath.bindings")
    assert {name for name in sys.modules if name.startswith("nvmath")} == {n for n in before if n.startswith("nvmath")}


def test_its_numbers_are_those_of_nvmath():
    """With nvmath-python installed, which needs no GPU for its names."""
    real = pytest.importorskip("nvmath.bindings")
    from nvmath.bindings import cublas, cublasLt

    assert real is not None
    for ours in (Epilogue, MatmulDescAttribute, MatmulPreferenceAttribute):
        theirs = getattr(cublasLt, ours.__name__)
        assert {member.name: theirs[member.name] for member in ours} == {member.name: int(member) for member in ours}
    assert {m.name: int(cublas.ComputeType[m.name]) for m in nvmath_bindings.ComputeType} == {
        m.name: int(m) for m in nvmath_bindings.ComputeType
    }
    for name, dtype in nvmath_bindings._DESCRIPTION.items():
        assert np.dtype(cublasLt.get_matmul_desc_attribute_dtype(name)) == dtype
    for name, dtype in nvmath_bindings._PREFERENCE.items():
        assert np.dtype(cublasLt.get_matmul_preference_attribute_dtype(name)) == dtype
