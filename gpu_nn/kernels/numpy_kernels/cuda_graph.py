"""A training step as one launch, where the device has such a thing. A CPU has none."""

from collections.abc import Callable


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """`step`, to be called many times with the same arrays and numbers."""
    return step


def host_break(action: Callable[[], None]) -> None:
    """Do it."""
    action()
