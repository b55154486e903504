"""MLPClassifier(dtype=…) in every precision of the network, on the emulated device."""

import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

import gpu_nn
from gpu_nn import DeviceError, MLPClassifier, from_sklearn
from tests.cuda_emulator.device import emulated_device
from tests.cuda_emulator.work import watched
from tests.estimator.datasets import blobs, flags
from tests.estimator.test_from_sklearn import fitted as fitted_there

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FACTORS = {"mixed_bfloat16": ml_dtypes.bfloat16, "mixed_float16": np.float16, "tf32": np.float32}
ALL = pytest.mark.parametrize("dtype", FACTORS)
X, Y = blobs()


@pytest.fixture(autouse=True)
def device():
    with emulated_device(nvmath=True) as found:
        yield found


def model(dtype, **parameters):
    settings = {
        "hidden_layer_sizes": (8,),
        "activation": "tanh",
        "max_iter": 6,
        "batch_size": 20,
        "learning_rate_init": 0.02,
        "random_state": 0,
    }
    return MLPClassifier(**{**settings, "device": "cuda", "dtype": dtype, **parameters})


@ALL
def test_products_are_of_that_type_and_what_is_handed_out_of_float32(dtype):
    with watched() as works:
        found = model(dtype).fit(X, Y)
    products = [work for work in works if work.name.startswith("gemm")]
    assert {array.dtype for work in products for array in work.arguments[:2]} == {np.dtype(FACTORS[dtype])}
    assert found.net_.precision.name == dtype
    for array in (found.predict_proba(X), found.decision_function(X), *found.coefs_, *found.intercepts_):
        assert array.dtype == np.float32


@ALL
def test_it_learns_as_in_float32(dtype):
    found, exact = (model(name, early_stopping=True).fit(X, Y) for name in (dtype, "float32"))
    np.testing.assert_allclose(found.loss_curve_, exact.loss_curve_, rtol=0.02)
    assert found.loss_curve_ != exact.loss_curve_
    assert found.score(X, Y) > 0.9
    assert log_loss(Y, found.predict_proba(X)) == pytest.approx(log_loss(Y, exact.predict_proba(X)), rel=0.05)


@ALL
def test_parameters_keep_the_name_through_get_params_clone_and_a_search(dtype):
    assert clone(model(dtype)).get_params()["dtype"] == dtype
    search = GridSearchCV(model("float32", max_iter=2), {"dtype": [dtype, "float32"]}, cv=2, error_score="raise")
    search.fit(X, Y)
    assert [found["dtype"] for found in search.cv_results_["params"]] == [dtype, "float32"]
    assert search.best_estimator_.net_.precision.name == search.best_params_["dtype"]


@ALL
def test_a_pickle_continues_like_the_original(dtype):
    fitted = model(dtype).fit(X, Y)
    if fitted.net_.loss_scale is not None:
        fitted.net_.loss_scale.fill(2.0**9)
    opened = pickle.loads(pickle.dumps(fitted))
    assert opened.net_.precision == fitted.net_.precision
    np.testing.assert_array_equal(opened.predict_proba(X), fitted.predict_proba(X))
    for either in (fitted, opened):
        either.partial_fit(X, Y).partial_fit(X[:60], Y[:60])
    np.testing.assert_array_equal(opened.predict_proba(X), fitted.predict_proba(X))
    assert opened.loss_curve_ == fitted.loss_curve_
    if fitted.net_.loss_scale is not None:
        assert float(opened.net_.loss_scale.get()[0]) == float(fitted.net_.loss_scale.get()[0]) == 2.0**9


@ALL
def test_a_pickle_opens_in_float32_where_the_device_computes_in_no_other(dtype, monkeypatch):
    fitted = model(dtype, device="auto").fit(X, Y)
    stored, expected = pickle.dumps(fitted), fitted.predict_proba(X)
    said = re.escape(f"the classifier opens in float32: dtype='{dtype}' on ")
    with emulated_device(nvmath=False), pytest.warns(UserWarning, match=f"{said}cuda:0, but nvmath-python"):
        assert pickle.loads(stored).net_.precision.name == "float32"
    monkeypatch.setattr(gpu_nn.device, "cuda_unavailable_reason", lambda: "there is none")
    with pytest.warns(UserWarning, match=f"{said}cpu, but the CPU computes in float32 and float64"):
        opened = pickle.loads(stored)
    assert opened.net_.device.name == "cpu"
    np.testing.assert_allclose(opened.predict_proba(X), expected, rtol=0.05, atol=0.02)
    before = opened.predict_proba(X)
    opened.set_params(device="cpu")
    with pytest.raises(DeviceError, match=f"^dtype='{dtype}' on cpu, but the CPU computes in float32"):
        opened.partial_fit(X, Y)
    np.testing.assert_array_equal(opened.predict_proba(X), before)
    opened.set_params(dtype="float32").partial_fit(X, Y)
    assert opened.n_iter_ == 1


@ALL
def test_the_cpu_refuses_it_in_the_networks_own_words(dtype):
    for refused in (model(dtype, device="cpu").fit, model(dtype, device="cpu").partial_fit):
        with pytest.raises(DeviceError) as error:
            refused(X, Y, **({"classes": [0, 1, 2]} if refused.__name__ == "partial_fit" else {}))
        expected = f"dtype={dtype!r} on cpu, but the CPU computes in float32 and float64: use dtype='float32', or"
        assert str(error.value) == f"{expected} device='cuda'"


@ALL
def test_warm_start_goes_on_in_the_same_precision_alone(dtype):
    fitted = model(dtype, warm_start=True).fit(X, Y)
    assert len(fitted.fit(X, Y).loss_curve_) == 12
    before = fitted.predict_proba(X)
    with pytest.raises(ValueError, match=rf"of float32, but the fitted network has .* of {dtype}; .* put them back"):
        fitted.set_params(dtype="float32").fit(X, Y)
    # A move to where it cannot be is refused before anything is moved.
    with pytest.raises(DeviceError, match=f"dtype='{dtype}' on cpu"):
        fitted.set_params(dtype=dtype, device="cpu").fit(X, Y)
    assert fitted.net_.device.name == "cuda:0"
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


@ALL
def test_several_labels_and_sample_weights_train_too(dtype):
    x, y = flags()
    found = model(dtype, max_iter=3).fit(x, y, sample_weight=np.linspace(0.5, 2, len(x)))
    assert found.predict(x).shape == y.shape
    assert np.isfinite(found.loss_)


@ALL
def test_from_sklearn_converts_to_it(dtype, device):
    theirs = fitted_there(X, Y)
    net = from_sklearn(theirs, device="cuda", dtype=dtype)
    assert net.precision.name == dtype
    np.testing.assert_allclose(net.predict_proba(X).get(), theirs.predict_proba(X), atol=0.02)
    ours = MLPClassifier.from_sklearn(theirs, device="cuda", dtype=dtype)
    assert ours.dtype == dtype
    ours.partial_fit(X, Y)
