"""What the emulator's tests need of the machine."""

import os

from .compiler import missing_tools


def require() -> None:
    """Skip the calling test, or its whole module at import, where kernels cannot be built; with CI=true, fail."""
    import pytest

    if missing := missing_tools():
        reason = f"the CUDA emulator needs {' and '.join(missing)} on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)
