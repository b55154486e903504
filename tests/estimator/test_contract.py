"""scikit-learn's own checks of an estimator."""

import pytest
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, check_estimator

from gpu_nn import MLPClassifier

# Every check that may fail, with the reason. In float64 none does.
EXPECTED_FAILURES = {
    "float32": {
        "check_sample_weight_equivalence_on_dense_data": (
            "a row of weight 2 and the same row twice are the same cost, but float32 rounds them differently, and the "
            "check compares to 1e-7; in mini-batches they also fall into different batches"
        )
    },
    "float64": {},
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_an_estimator(dtype):
    pytest.importorskip("pandas")  # without it some checks pass by not looking
    expected = EXPECTED_FAILURES[dtype]
    results = check_estimator(
        MLPClassifier(dtype=dtype, max_iter=60, device="cpu"), expected_failed_checks=expected, on_skip=None
    )
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(expected)
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # which asks for the variable SCIPY_ARRAY_API=1
    assert len(results) > 60


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_column_names_of_a_data_frame_are_heeded():
    pytest.importorskip("pandas")
    check_dataframe_column_names_consistency("MLPClassifier", MLPClassifier(max_iter=5, device="cpu"))
