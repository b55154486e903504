"""Exact references for tests and benchmarks; `reference` and `activations` need mpmath (in the extra `test`).

`reference` computes the cost and its gradient with mpmath, `activations` the activations; `accuracy` measures errors on
a grid of cases; `assertions` compares arrays with a float64 reference.
"""
