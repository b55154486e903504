"""The tests marked gpu but not slow, in a process of their own that has so much time and no more."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

TO_END = 10  # seconds that it has when its time is over, to say how far it came
MOST_NAMED = 50


def run(seconds: float, pytest: Sequence[str] = (sys.executable, "-m", "pytest")) -> dict[str, Any]:
    """summary: pytest's last line. wrong: its lines of what failed. failed: whether anything did, pytest included; not
    that time was over, which the summary says.
    """
    options = ("-q", "-m", "gpu and not slow", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    with subprocess.Popen([*pytest, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            out, stopped = running.communicate(timeout=max(seconds, 0))[0], False
        except subprocess.TimeoutExpired:
            stopped = True
            running.send_signal(signal.SIGINT)  # pytest then says how far it came
            try:
                out = running.communicate(timeout=TO_END)[0]
            except subprocess.TimeoutExpired:
                running.kill()
                out = running.communicate()[0]
    lines = out.strip().splitlines() or [""]
    wrong = [line for line in lines if line.startswith(("EXIT_FAILURE ", "ERROR "))]
    summary = f"{lines[-1]}, stopped after {seconds:.0f} s" if stopped else lines[-1]
    failed = bool(wrong) or (running.returncode != 0 and not stopped)
    return {"summary": summary, "wrong": wrong[:MOST_NAMED], "failed": failed}
