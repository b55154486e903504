"""Where CI=true, as in .ci/run, a test that skips fails: what is not looked at there is looked at nowhere."""

import os
from collections.abc import Iterator
from typing import Any

import pytest


def _failed_if_skipped(report: Any) -> Any:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped, which nothing may be where CI=true: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    return _failed_if_skipped((yield))
