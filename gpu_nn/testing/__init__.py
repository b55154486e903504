"""What tests and benchmarks share, with mpmath (in the extra `test`).

`reference` computes the cost and its gradient of a row; `accuracy` measures errors on a grid of cases.
"""
