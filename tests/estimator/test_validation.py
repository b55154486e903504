"""Data from other libraries, and data on a GPU."""

import numpy as np
import pytest
from scipy import sparse

from gpu_nn import MLPClassifier
from gpu_nn.device import CPU
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.device import emulated_device
from tests.estimator.datasets import blobs, flags

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


class Tensor:
    """What torch's tensors have in common with others: DLPack. kind: of memory, 1 is the host's."""

    def __init__(self, array, kind=1):
        self.array, self.kind, self.shape = array, kind, array.shape

    def __dlpack_device__(self):
        return self.kind, 0

    def __dlpack__(self, **options):
        if not self.array.flags.c_contiguous:
            raise BufferError("this tensor requires a gradient")
        return self.array.__dlpack__(**options)


def model(**parameters):
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, **parameters})


class TestHost:
    def test_tensors_are_taken_through_dlpack(self):
        x, y = blobs()
        x = x.astype(np.float32)
        weight = np.linspace(0, 1, 120)
        plain = model().fit(x, y, weight, validation=(x, y))
        shared = model().fit(Tensor(x), Tensor(y), Tensor(weight), validation=(Tensor(x), Tensor(y)))
        for method in METHODS:
            found = getattr(shared, method)(Tensor(x))
            assert type(found) is np.ndarray
            np.testing.assert_array_equal(found, getattr(plain, method)(x))
        assert shared.score(Tensor(x), Tensor(y), Tensor(weight)) == plain.score(x, y, weight)
        partial = model().partial_fit(Tensor(x), Tensor(y), classes=Tensor(np.arange(3)))
        np.testing.assert_array_equal(partial.classes_, np.arange(3))

    def test_a_tensor_that_cannot_be_shared_is_refused_with_the_librarys_reason(self):
        x, y = blobs()
        with pytest.raises(TypeError, match=r"X of Tensor cannot be shared through DLPack: .*requires a gradient"):
            model().fit(Tensor(np.asfortranarray(x)), y)
        with pytest.raises(TypeError, match="y of Tensor is in memory of DLPack device type 10"):
            model().fit(x, Tensor(y, kind=10))

    def test_sparse_data_are_refused_in_scikit_learns_words(self):
        x, y = blobs()
        fitted = model().fit(x, y)
        for method in (lambda x: model().fit(x, y), lambda x: fitted.partial_fit(x, y), fitted.predict_proba):
            for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
                with pytest.raises(TypeError, match=r"[Ss]parse data was passed"):
                    method(kind(x))

    def test_sparse_flags_are_several_labels_a_row(self):
        x, y = flags()
        np.testing.assert_array_equal(model().fit(x, sparse.csr_array(y)).predict(x), model().fit(x, y).predict(x))

    def test_a_number_too_large_for_the_type_is_refused_as_infinite(self):
        x, y = blobs()
        x[3, 2] = 1e39
        with pytest.raises(ValueError, match="infinity or a value too large for dtype\\('float32'\\)"):
            model().fit(x, y)
        model(dtype="float64", standardize=True).fit(x, y)

    @pytest.mark.parametrize("method", METHODS)
    def test_another_width_is_refused(self, method):
        fitted = model().fit(*blobs())
        with pytest.raises(ValueError, match="X has 4 features, but MLPClassifier is expecting 5 features as input"):
            getattr(fitted, method)(blobs()[0][:, :4])

    def test_what_is_wrong_with_the_validation_data_is_said_of_them(self):
        x, y = blobs()
        with pytest.raises(ValueError, match=r"^validation X: X has 4 features, but MLPClassifier is expecting 5"):
            model().fit(x, y, validation=(x[:, :4], y))
        with pytest.raises(ValueError, match=r"^validation X: .*NaN"):
            model().fit(x, y, validation=(np.full_like(x, np.nan), y))
        with pytest.raises(TypeError, match=r"^validation X: [Ss]parse data was passed"):
            model().fit(x, y, validation=(sparse.csr_array(x), y))

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            (np.ones(119), r"sample_weight has shape \(119,\); expected \(120,\)"),
            (np.ones((120, 1)), "sample_weight has shape"),
            (-np.ones(120), "sample_weight has negative, NaN or infinite values"),
            (np.full(120, np.nan), "sample_weight has negative, NaN or infinite values"),
            (np.zeros(120), "weights of all rows .* are zero"),
        ],
    )
    def test_wrong_weights_are_refused(self, weight, message):
        with pytest.raises(ValueError, match=message):
            model().fit(*blobs(), sample_weight=weight)


class TestGPU:
    @pytest.fixture(autouse=True)
    def device(self):
        with emulated_device() as device:
            yield device

    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"standardize": True, "class_weight": "balanced", "early_stopping": True, "dropout": 0.2},
            {"solver": "sgd", "learning_rate": "invscaling", "class_weight": {1: 2.0}, "batch_size": 50},
        ],
        ids=["plain", "everything", "sgd"],
    )
    def test_cupy_in_gives_cupy_out_and_the_numbers_of_the_cpu(self, parameters):
        x, y = blobs()
        weight = np.linspace(0.5, 1.5, 120)
        on_cpu = model(**parameters, device="cpu").fit(x, y, weight)
        on_gpu = model(**parameters).fit(cupy.asarray(x), cupy.asarray(y), cupy.asarray(weight))
        assert on_gpu.net_.device.name == "cuda:0"
        np.testing.assert_array_equal(on_gpu.classes_, on_cpu.classes_)
        np.testing.assert_allclose(on_gpu.loss_curve_, on_cpu.loss_curve_, rtol=1e-5)
        for method in METHODS:
            found = getattr(on_gpu, method)(cupy.asarray(x))
            assert isinstance(found, cupy.ndarray)
            np.testing.assert_allclose(found.get(), getattr(on_cpu, method)(x), rtol=1e-4, atol=1e-5)
        score = on_gpu.score(cupy.asarray(x), cupy.asarray(y), cupy.asarray(weight))
        assert score == pytest.approx(on_cpu.score(x, y, weight))
        assert on_gpu.score(cupy.asarray(x), y) == on_gpu.score(x, cupy.asarray(y)) == on_cpu.score(x, y)
        assert all(type(coef) is np.ndarray for coef in on_gpu.coefs_ + on_gpu.intercepts_)

    @pytest.mark.parametrize("kind", ["several labels", "probabilities"])
    def test_targets_with_columns_stay_on_the_gpu_too(self, kind):
        x, y = flags()
        if kind == "probabilities":
            y = np.random.default_rng(0).dirichlet(np.ones(3), 400)
        on_cpu, on_gpu = model(device="cpu").fit(x, y), model().fit(cupy.asarray(x), cupy.asarray(y))
        for method in METHODS:
            found = getattr(on_gpu, method)(cupy.asarray(x))
            assert isinstance(found, cupy.ndarray)
            np.testing.assert_allclose(found.get(), getattr(on_cpu, method)(x), rtol=1e-4, atol=1e-5)
        assert on_gpu.score(cupy.asarray(x), cupy.asarray(y)) == on_cpu.score(x, y)

    def test_neither_rows_nor_labels_pass_through_the_host(self, monkeypatch):
        n = 2000
        x, y = (cupy.asarray(array) for array in blobs(n=n))
        rows, get = [], cupy.ndarray.get

        def counted(array, *arguments, **options):
            rows.append(len(array) if array.shape else 1)
            return get(array, *arguments, **options)

        monkeypatch.setattr(cupy.ndarray, "get", counted)
        settings = {"hidden_layer_sizes": (), "max_iter": 1, "standardize": True, "class_weight": {1: 2.0}}
        fitted = model(**settings).fit(x, y, sample_weight=cupy.ones(n))
        assert rows
        assert max(rows) < n  # the Trainer looks at some rows, to tell one data set from another
        rows.clear()
        for method in METHODS:
            assert len(getattr(fitted, method)(x)) == n
        fitted.score(x, y)
        assert max(rows, default=0) <= 3

    def test_tensors_on_a_gpu_become_cupy_arrays_over_the_same_memory(self, monkeypatch):
        # NumPy, which stands for CuPy here, cannot read a capsule of CUDA memory.
        monkeypatch.setattr(cupy, "from_dlpack", lambda tensor: tensor.array, raising=False)
        x, y = blobs()
        on_gpu = [cupy.asarray(array) for array in (x.astype(np.float32), y)]
        plain = model().fit(*on_gpu)
        shared = model().fit(*(Tensor(array, kind=2) for array in on_gpu))
        assert shared.net_.device.name == "cuda:0"
        for method in METHODS:
            found = getattr(shared, method)(Tensor(on_gpu[0], kind=2))
            assert isinstance(found, cupy.ndarray)
            np.testing.assert_array_equal(found.get(), getattr(plain, method)(on_gpu[0]).get())

    @pytest.mark.parametrize("method", METHODS)
    def test_results_lie_where_the_data_lie_whatever_the_device(self, method):
        x, y = blobs()
        on_cpu = model(device="cpu").fit(cupy.asarray(x), cupy.asarray(y), cupy.ones(120))
        on_gpu = model(device="cuda").fit(x, y)
        assert (on_cpu.net_.device.name, on_gpu.net_.device.name) == ("cpu", "cuda:0")
        up, down = getattr(on_cpu, method)(cupy.asarray(x)), getattr(on_gpu, method)(x)
        assert isinstance(up, cupy.ndarray)
        assert type(down) is np.ndarray
        np.testing.assert_allclose(up.get(), down, rtol=1e-4, atol=1e-5)

    def test_auto_is_the_gpu_on_which_the_data_lie(self, monkeypatch):
        monkeypatch.setattr("gpu_nn.estimator._fit.resolve_device", lambda name: CPU)
        x, y = blobs()
        assert model(device="auto").fit(cupy.asarray(x), cupy.asarray(y)).net_.device.name == "cuda:0"
        assert model(device="auto").fit(x, y).net_.device.name == "cpu"

    def test_names_as_labels_are_numpy_and_their_probabilities_cupy(self):
        x, y = blobs()
        names = np.array(["ant", "bee", "cat"])[y]
        fitted = model(max_iter=60, learning_rate_init=0.01).fit(cupy.asarray(x), names)
        assert (fitted.predict(cupy.asarray(x)) == names).mean() > 0.9
        assert fitted.score(cupy.asarray(x), names) > 0.9
        assert isinstance(fitted.predict_proba(cupy.asarray(x)), cupy.ndarray)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x: x[:, :0], ValueError, "Found X with 0 feature"),
            (lambda x: x[0], ValueError, "Expected 2D array, got X of shape \\(5,\\). Reshape your data"),
            (lambda x: x + np.inf, ValueError, "X contains NaN or infinity"),
            (lambda x: x.astype(np.complex64), ValueError, "Complex data not supported"),
        ],
        ids=["empty", "flat", "infinite", "complex"],
    )
    def test_bad_rows_on_the_gpu_are_refused(self, change, error, message):
        x, y = blobs()
        with pytest.raises(error, match=message):
            model().fit(cupy.asarray(change(x)), cupy.asarray(y))
        fitted = model(max_iter=1).fit(x, y)
        with pytest.raises(ValueError, match="X has 4 features, but MLPClassifier is expecting 5"):
            fitted.predict(cupy.asarray(x[:, :4]))

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.linspace(0, 1, 120), "Unknown label type: continuous"),
            (np.zeros(120, int), "y has 1 class"),
            (np.zeros(119, int), "y has 119 rows; expected 120"),
            (np.full((120, 2), 3), "Unknown label type"),
        ],
        ids=["fractions", "one class", "rows", "columns"],
    )
    def test_bad_labels_on_the_gpu_are_refused(self, y, message):
        with pytest.raises(ValueError, match=message):
            model().fit(cupy.asarray(blobs()[0]), cupy.asarray(y))
