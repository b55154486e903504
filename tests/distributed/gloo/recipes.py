"""What gpu_nn/distributed/README.md tells users of Ray and Dask to paste."""

import re
from importlib.resources import files


def recipe(heading: str) -> str:
    """The block of Python below that heading. As installed: the sources may lie elsewhere, or nowhere."""
    passage = (files("gpu_nn.distributed") / "README.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    return re.search(r"```python\n(.*?)```", passage, re.DOTALL)[1]


# In place of the fit of rank 1, once; the file says that it was.
KILLED = """
        if communicator.rank == 1 and not os.path.exists(FLAG):
            import signal
            open(FLAG, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def with_a_kill(code: str, path: object) -> str:
    """The same, with a rank that is killed when it has made its network, the first time."""
    before, network, after = re.split(r"(        net = .*\n)", code)
    return f"import os\n{before}{network}{KILLED.replace('FLAG', repr(str(path)))}{after}"
