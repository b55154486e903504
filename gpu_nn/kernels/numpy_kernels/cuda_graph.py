"""On a CPU there are no CUDA graphs: a step runs as it is."""

from collections.abc import Callable


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """`step` itself."""
    return step


def host_break(action: Callable[[], None]) -> None:
    """Call `action`."""
    action()
