"""That nothing skips unseen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = {
    "in a test": "import pytest\ndef test_it(): pytest.skip('no tool')",
    "by a mark": "import pytest\n@pytest.mark.skipif(True, reason='no tool')\ndef test_it(): pass",
    "a whole module": "import pytest\npytest.skip('no tool', allow_module_level=True)",
}
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False"


def outcome(folder, text, ci):
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_skipping.py").write_text(text + "\ndef test_another(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", folder, folder]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("text", SKIPPING.values(), ids=SKIPPING.keys())
def test_a_skip_fails_under_ci_alone_and_says_why(tmp_path, text):
    code, said = outcome(tmp_path, text, "true")
    assert code != 0
    assert "skipped, which nothing may be where CI=true" in said
    assert "no tool" in said
    code, said = outcome(tmp_path, text, "")
    assert code in (0, 5)
    assert "no tool" in said


def test_a_failure_that_is_expected_is_none_under_ci(tmp_path):
    assert outcome(tmp_path, EXPECTED_FAILURE, "true")[0] == 0
