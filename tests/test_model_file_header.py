"""Model files that are whole safetensors files, and whose header and arrays make no network."""

import json
import re
import struct
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpu_nn import load, save
from tests.test_model_file import X, network, refused


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def rewritten(path):
    """Writes a good model, with its network's header or its arrays changed, and gives the path."""

    def rewritten(header=None, metadata=None, arrays=None, drop=()):
        save(network(), path)
        stored = {**load_file(path), **(arrays or {})}
        said = {
            "n_inputs": 5,
            "dtype": "float32",
            "layers": [
                {"layer": "Standardize"},
                {"layer": "Dense", "units": 4, "activation": "gelu"},
                {"layer": "Dropout", "rate": 0.5},
                {"layer": "Dense", "units": 3, "activation": "identity"},
            ],
            "classes": None,
        }
        text = header if isinstance(header, str) else json.dumps({**said, **(header or {})})
        whole = {"format": "gpu_nn.network", "version": "1", "network": text, **(metadata or {})}
        save_file(
            {name: array for name, array in stored.items() if name not in drop},
            path,
            {name: value for name, value in whole.items() if value is not None},
        )
        return path

    return rewritten


@contextmanager
def edited_header(path):
    """The header of a model file's network, written back when the block ends."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    whole, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header = json.loads(whole["__metadata__"]["network"])
    yield header
    whole["__metadata__"]["network"] = json.dumps(header)
    text = json.dumps(whole).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_a_rewritten_file_is_a_good_one_when_nothing_is_changed(rewritten):
    assert load(rewritten(), "cpu").forward(X).tobytes() == network().forward(X).tobytes()


@pytest.mark.parametrize("version", ["3", "0", "", "1.0", None])
def test_another_version_is_refused_with_the_hint(rewritten, version):
    message = refused(rewritten(metadata={"version": version}))
    assert "this gpu_nn reads versions 1 and 2: upgrade gpu_nn" in message


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("null", "not subscriptable"),
        (DEEP, "recursion"),
        ("{}", "'layers' is missing"),
        ({"n_inputs": 0}, "n_inputs=0; expected a whole number ≥ 1"),
        ({"n_inputs": -5}, "n_inputs=-5"),
        ({"n_inputs": 5.0}, "n_inputs=5.0"),
        ({"n_inputs": True}, "n_inputs=True"),
        ({"n_inputs": "5"}, "n_inputs='5'"),
        ({"n_inputs": None}, "n_inputs=None"),
        ({"n_inputs": 6}, "array 0.scale is (5,) of float32, the header says (6,) of float32"),
        ({"n_inputs": 10**30}, "does not fit its header"),
        ({"dtype": "float16"}, "dtype 'float16' is not one of float32, float64"),
        ({"dtype": ["float32"]}, "dtype"),
        ({"dtype": None}, "dtype None"),
        ({"dtype": "float64"}, "is (5,) of float32, the header says (5,) of float64"),
        ({"layers": []}, "array 0.scale is (5,) of float32, the header says absent"),
        ({"layers": None}, "makes no network"),
        ({"layers": "Dense"}, "makes no network"),
        ({"layers": [3]}, "makes no network"),
        ({"layers": [{}]}, "'layer' is missing"),
        ({"layers": [{"layer": "Conv"}]}, "layer 'Conv' is not one of BatchNorm, Dense, Dropout"),
        ({"layers": [{"layer": ["Dense"]}]}, "makes no network"),
        ({"layers": [{"layer": "Dense"}]}, "units"),
        ({"layers": [{"layer": "Dense", "units": 0}]}, "units=0"),
        ({"layers": [{"layer": "Dense", "units": -1}]}, "units=-1"),
        ({"layers": [{"layer": "Dense", "units": 3.0}]}, "units=3.0"),
        ({"layers": [{"layer": "Dense", "units": "3"}]}, "units='3'"),
        ({"layers": [{"layer": "Dense", "units": 10**30}]}, "does not fit its header"),
        ({"layers": [{"layer": "Dense", "units": 2**40}, {"layer": "Dense", "units": 2**40}]}, "does not fit"),
        ({"layers": [{"layer": "Dense", "units": 3, "activation": "rellu"}]}, "Did you mean 'relu'?"),
        ({"layers": [{"layer": "Dense", "units": 3, "activation": []}]}, "makes no network"),
        ({"layers": [{"layer": "Dense", "units": 3, "path": "/"}]}, "unexpected keyword argument 'path'"),
        ({"layers": [{"layer": "Dense", "units": 3, "__class__": 1}]}, "makes no network"),
        ({"layers": [{"layer": "Dropout", "rate": "half"}]}, "makes no network"),
        ({"layers": [{"layer": "Dropout", "rate": 2}]}, "rate=2"),
        ({"layers": [{"layer": "Dropout", "rate": float("nan")}]}, "rate=nan"),
        ({"layers": [{"layer": "Standardize"}] * 1000}, "does not fit its header"),
        ({"classes": ["a", "b"]}, "classes has 2 names, 2 different; expected 3"),
        ({"classes": ["a", "b", "a"]}, "classes has 3 names, 2 different; expected 3"),
        ({"classes": ["a", "b", 3]}, "expected a list of names or a list of numbers"),
        ({"classes": ["a", "b", None]}, "expected a list of names or a list of numbers"),
        ({"classes": ["a", "b", ["c"]]}, "expected a list of names or a list of numbers"),
        ({"classes": "abc"}, "expected a list of names or a list of numbers"),
        ({"classes": {"a": 0, "b": 1, "c": 2}}, "expected a list of names or a list of numbers"),
        ({"classes": 3}, "expected a list of names or a list of numbers"),
        ({"feature_names": "abcde"}, "feature_names is of str; expected a list of names"),
        ({"feature_names": {"a": 0}}, "feature_names is of dict; expected a list of names"),
        ({"feature_names": ["a", "b", "c", "d", 5]}, "feature_names is of list; expected a list of names"),
        ({"feature_names": ["a", "b", "c", "d"]}, "feature_names has 4 names, 4 different; expected 5"),
        ({"feature_names": list("abcda")}, "feature_names has 5 names, 4 different; expected 5"),
        ({"target_name": 3}, "target_name=3; expected a name"),
        ({"target_name": ["y"]}, "target_name=['y']; expected a name"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_header_that_makes_no_network_is_refused(rewritten, header, message):
    assert message in refused(rewritten(header))


def test_a_header_without_the_network_is_refused(rewritten):
    assert "'network' is missing" in refused(rewritten(metadata={"network": None}))


@pytest.mark.parametrize("field", ["n_inputs", "dtype", "layers", "classes"])
def test_a_header_with_a_field_missing_is_refused(rewritten, field):
    path = rewritten()
    with edited_header(path) as header:
        del header[field]
    assert f"{field!r} is missing" in refused(path)


@pytest.mark.parametrize(
    ("layers", "arrays", "message"),
    [
        ([], {}, r"layers=\[\]"),
        ([{"layer": "Dense", "units": 1}], {"0.weight": (5, 1), "0.bias": (1,)}, "at least 2 classes"),
    ],
    ids=["no layer", "one class"],
)
def test_a_header_that_fits_its_arrays_but_classifies_nothing_is_refused(path, layers, arrays, message):
    header = {"n_inputs": 5, "dtype": "float32", "layers": layers, "classes": None}
    metadata = {"format": "gpu_nn.network", "version": "1", "network": json.dumps(header)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in arrays.items()}, path, metadata)
    assert re.search(message, refused(path))


WEIGHT = np.zeros((5, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays": {"9.weight": WEIGHT}}, "array 9.weight is (5, 4) of float32, the header says absent"),
        ({"drop": ["1.weight"]}, "array 1.weight is absent, the header says (5, 4) of float32"),
        ({"drop": ["2.counter"]}, "array 2.counter is absent, the header says (1,) of uint64"),
        ({"arrays": {"1.weight": WEIGHT.T.copy()}}, "array 1.weight is (4, 5) of float32, the header says (5, 4)"),
        ({"arrays": {"1.weight": WEIGHT.ravel()}}, "array 1.weight is (20,)"),
        ({"arrays": {"1.weight": WEIGHT.astype(np.float64)}}, "(5, 4) of float64, the header says (5, 4) of float32"),
        ({"arrays": {"1.weight": WEIGHT.astype(np.float16)}}, "array 1.weight is (5, 4) of F16"),
        ({"arrays": {"1.weight": WEIGHT.astype(np.int8)}}, "array 1.weight is (5, 4) of I8"),
        ({"arrays": {"2.counter": np.zeros(1, np.float32)}}, "array 2.counter is (1,) of float32"),
        ({"arrays": {"1.weight": WEIGHT + np.nan}}, "array 1.weight has NaN or infinite values"),
        ({"arrays": {"0.scale": np.full(5, np.inf, np.float32)}}, "array 0.scale has NaN or infinite values"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arrays_that_are_not_the_headers_are_refused(rewritten, changes, message):
    assert message in refused(rewritten(**changes))
