"""Several labels a row out of one softmax: the formula, and that network, model file and ONNX file all go by it."""

import json
import pickle

import numpy as np
import pytest

from gpu_nn import DataError, Dense, MLPClassifier, Network, export_onnx, load, save
from gpu_nn import functional as F
from gpu_nn.multilabel import REFERENCE, Multilabel, threshold
from tests.estimator.datasets import flags
from tests.test_model_file_header import edited_header

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fitted(**parameters):
    settings = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.01, "max_iter": 30, "random_state": 0}
    return MLPClassifier(**{**settings, "device": "cpu", **parameters}).fit(*flags())


@pytest.fixture(scope="module")
def classifier():
    return fitted()


@pytest.mark.parametrize("complement_weight", [0.0, 0.3, 1.0])
def test_at_the_costs_minimum_the_probabilities_are_those_of_the_labels(complement_weight):
    q = np.array([[0.9, 0.6, 0.2, 0.05, 0.0]])
    targets = np.append(q, [[REFERENCE]], axis=1)
    z = np.zeros_like(targets)
    for _ in range(4_000):  # the expected cost is linear in the targets, so q itself is their expectation
        z -= F.softmax_cross_entropy_with_grad(z, targets, complement_weight=complement_weight)[1]
    np.testing.assert_array_equal(threshold(z), q > 0.5)
    net = Network([1, 6], device="cpu", dtype="float64")
    net.multilabel = Multilabel(complement_weight)
    np.testing.assert_allclose(net.probabilities(z), q, atol=2e-3)


def near_ties(dtype):
    """Logits of four labels and the reference: labels next to it, on both sides and equal, others near and far."""
    random, logits = np.random.default_rng(0), []
    for size in (0, 1e-30, 1e-3, 1, 30, 1000):
        z = random.normal(0, size, (200, 5)).astype(dtype)
        z[:, 0] = z[:, -1]
        z[:, 1] = np.nextafter(z[:, -1], dtype("inf"))
        z[:, 2] = np.nextafter(z[:, -1], -dtype("inf"))
        logits.append(z)
    return np.concatenate(logits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("complement_weight", [0.0, 0.3, 1.0, 50.0])
def test_a_probability_is_above_a_half_exactly_where_the_label_is_chosen(complement_weight, dtype):
    z = near_ties(dtype)
    net = Network([1, 5], device="cpu", dtype=np.dtype(dtype).name)
    net.multilabel = Multilabel(complement_weight)
    p = net.probabilities(z.copy())
    assert p.dtype == dtype
    np.testing.assert_array_equal(p > 0.5, threshold(z).astype(bool))
    # At a tie it stays next to it.
    assert abs(p[:200, :3] - 0.5).max() <= np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("complement_weight", [0.0, 1.0])
def test_onnxruntime_has_them_above_a_half_where_it_gives_the_label(tmp_path, complement_weight, dtype):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    net = Network([Dense(5)], n_inputs=5, device="cpu", dtype=np.dtype(dtype).name)
    net.parameters["0.weight"][...], net.parameters["0.bias"][...] = np.eye(5), 0
    net.multilabel = Multilabel(complement_weight)
    export_onnx(net, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    z = near_ties(dtype)
    found, p = session.run(["label", "probabilities"], {"x": z})
    np.testing.assert_array_equal(found, threshold(z))
    np.testing.assert_array_equal(p > 0.5, found == 1)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 10**400, "1", None, True])
def test_a_complement_weight_that_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="complement_weight="):
        Multilabel(value)


def test_the_network_answers_as_the_classifier_does(classifier):
    x, _ = flags()
    net = classifier.net_
    assert (net.n_classes, net.n_probabilities, net.classes) == (4, 3, [0, 1, 2])
    np.testing.assert_array_equal(net.predict_proba(x), classifier.predict_proba(x))
    np.testing.assert_array_equal(net.predict(x), classifier.predict(x))


def test_a_model_file_gives_what_the_classifier_gives(classifier, tmp_path):
    x, _ = flags()
    save(classifier.net_, tmp_path / "model")
    net = load(tmp_path / "model", "cpu")
    assert net.classes == [0, 1, 2]
    np.testing.assert_array_equal(net.predict_proba(x), classifier.predict_proba(x))
    np.testing.assert_array_equal(net.predict(x), classifier.predict(x))


def test_names_of_labels_are_kept(classifier, tmp_path):
    net = pickle.loads(pickle.dumps(classifier)).net_
    net.classes = ["red", "round", "ripe"]
    save(net, tmp_path / "model")
    assert load(tmp_path / "model", "cpu").classes == ["red", "round", "ripe"]
    net.classes = ["red", "round", "ripe", "reference"]
    with pytest.raises(ValueError, match="classes has 4 names, 4 different; expected 3"):
        save(net, tmp_path / "model")


def test_readers_that_know_one_label_a_row_alone_refuse_the_file(classifier, tmp_path):
    from safetensors import safe_open

    net = pickle.loads(pickle.dumps(classifier)).net_
    versions = []
    for net.multilabel in (Multilabel(0.5), None):
        net.classes = None
        save(net, tmp_path / "model")
        with safe_open(tmp_path / "model", "numpy") as file:
            versions.append((file.metadata()["version"], "several_labels" in json.loads(file.metadata()["network"])))
    assert versions == [("2", True), ("1", False)]


@pytest.mark.parametrize(
    "said",
    [None, 1, {}, {"complement_weight": -1}, {"complement_weight": 10**400}, {"complement_weight": 1, "more": 2}, []],
    ids=str,
)
def test_a_lying_header_is_refused(classifier, tmp_path, said):
    path = tmp_path / "model"
    save(classifier.net_, path)
    with edited_header(path) as header:
        header["several_labels"] = said
    if said == {}:
        load(path, "cpu")  # the weight that it has where nothing is said
    else:
        with pytest.raises(DataError, match="header that makes no network"):
            load(path, "cpu")
    with edited_header(path) as header:
        del header["several_labels"]
    with pytest.raises(DataError, match="version '2' does not go with"):
        load(path, "cpu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("complement_weight", [0.0, 0.3, 1.0])
def test_onnxruntime_gives_what_the_classifier_gives(tmp_path, complement_weight, dtype):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x, _ = flags()
    classifier = fitted(complement_weight=complement_weight, dtype=dtype)
    path = tmp_path / "model.onnx"
    export_onnx(classifier.net_, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {output.name: output.shape for output in session.get_outputs()} == {
        "label": ["batch", 3],
        "probabilities": ["batch", 3],
    }
    # Far away, where one output takes all, too.
    x = np.concatenate([x, 1e3 * x, -1e3 * x]).astype(dtype)
    found, p = session.run(["label", "probabilities"], {"x": x})
    assert (found.dtype, p.dtype) == (np.int64, dtype)
    scores = classifier.decision_function(x)
    clear = abs(scores) > 1e-5 * abs(scores).max()
    np.testing.assert_array_equal(found[clear], classifier.predict(x)[clear])
    tolerance = 3e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(p, classifier.predict_proba(x), rtol=tolerance, atol=tolerance)
    assert ((p >= 0) & (p < 1)).all()


def test_the_cost_that_was_trained_on_stays_the_one_that_is_read_by(classifier):
    x, _ = flags()
    changed = pickle.loads(pickle.dumps(classifier))
    changed.set_params(complement_weight=0.0)
    np.testing.assert_array_equal(changed.predict_proba(x), classifier.predict_proba(x))
    np.testing.assert_array_equal(changed.predict_log_proba(x), classifier.predict_log_proba(x))


def test_warm_start_goes_on_with_the_cost_that_it_trains_on():
    x, y = flags()
    classifier = fitted(warm_start=True)
    classifier.set_params(complement_weight=0.25, max_iter=1).fit(x, y)
    assert classifier.net_.multilabel == Multilabel(0.25)


def test_a_pickle_from_before_networks_knew_of_it_opens(classifier):
    x, _ = flags()
    state = classifier.__getstate__()
    state["_stored_network"] = {
        name: value for name, value in state["_stored_network"].items() if name != "several_labels"
    }
    opened = MLPClassifier.__new__(MLPClassifier)
    opened.__setstate__(state)
    np.testing.assert_array_equal(opened.predict_proba(x), classifier.predict_proba(x))
