"""Pickles hold NumPy arrays and the whole state, and open where there is no GPU."""

import copy
import pickle
import pickletools

import numpy as np
import pandas
import pytest

from gpu_nn import MLPClassifier, load, save
from gpu_nn.device import cuda_unavailable_reason
from gpu_nn.errors import DeviceError
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.device import emulated_device
from tests.estimator.datasets import blobs

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def model(**parameters):
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, **parameters})


@pytest.mark.parametrize("through", [lambda fitted: pickle.loads(pickle.dumps(fitted)), copy.deepcopy])
@pytest.mark.parametrize(
    "parameters",
    [
        {"dropout": 0.3},
        {"normalisation": "batch", "input_noise": 0.2},
        {"solver": "sgd", "learning_rate": "invscaling", "standardize": True, "dtype": "float64"},
    ],
)
def test_a_copy_continues_like_the_original(through, parameters):
    x, y = blobs()
    fitted = model(device="cpu", **parameters).fit(x, y)
    opened = through(fitted)
    np.testing.assert_array_equal(opened.predict_proba(x), fitted.predict_proba(x))
    for either in (fitted, opened):
        either.partial_fit(x, y).partial_fit(x[:60], y[:60])
    np.testing.assert_array_equal(opened.predict_proba(x), fitted.predict_proba(x))
    assert opened.loss_curve_ == fitted.loss_curve_
    assert opened.history_.column("steps") == fitted.history_.column("steps")


@pytest.mark.parametrize(("columns", "known"), [(["a", "b", "c"], True), ([0, 1, 2], False)])
def test_the_network_and_its_file_know_the_columns_of_a_frame_that_have_names(tmp_path, columns, known):
    x, y = blobs()
    fitted = model(device="cpu").fit(pandas.DataFrame(x[:, :3], columns=columns), y)
    for classifier in (fitted, pickle.loads(pickle.dumps(fitted))):
        assert classifier.net_.feature_names == (columns if known else None)
        save(classifier.net_, tmp_path / "model")
        assert load(tmp_path / "model", device="cpu").feature_names == (columns if known else None)


def test_the_training_data_are_not_in_the_pickle():
    few, many = (pickle.dumps(model(device="cpu").fit(*blobs(n=n))) for n in (200, 4000))
    assert len(many) < len(few) + 1000


def test_an_unfitted_classifier_is_its_parameters():
    assert pickle.loads(pickle.dumps(model(alpha=3.0))).get_params() == model(alpha=3.0).get_params()


@pytest.mark.skipif(not cuda_unavailable_reason(), reason="needs a place without a GPU")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_what_a_gpu_trained_opens_without_one(device):
    x, y = blobs()
    with emulated_device():
        fitted = model(device=device, dropout=0.2).fit(cupy.asarray(x), cupy.asarray(y))
        expected = fitted.predict_proba(cupy.asarray(x)).get()
        stored = pickle.dumps(fitted)
        assert pickle.loads(stored).net_.device.name == "cuda:0"
    named = {argument for _, argument, _ in pickletools.genops(stored) if isinstance(argument, str)}
    assert not any("cupy" in name for name in named)
    if device == "auto":
        opened = pickle.loads(stored)
    else:
        with pytest.warns(UserWarning, match="the classifier opens on the CPU: device='cuda', but"):
            opened = pickle.loads(stored)
        with pytest.raises(DeviceError):
            opened.partial_fit(x, y)
    assert opened.net_.device.name == "cpu"
    np.testing.assert_allclose(opened.predict_proba(x), expected, rtol=1e-4, atol=1e-6)
    opened.set_params(device="cpu").partial_fit(x, y)


def test_warm_start_moves_to_the_device_that_is_asked_for():
    x, y = blobs()
    with emulated_device():
        fitted = model(device="cpu", warm_start=True).fit(x, y)
        before = fitted.loss_
        fitted.set_params(device="cuda").fit(x, y)
        assert fitted.net_.device.name == "cuda:0"
        assert fitted.loss_curve_[5] < before
