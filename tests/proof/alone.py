"""`pytest --alone`: each test in a process of its own, which has run no test before it and shares no fixture.

The process is a fork of one that has collected and run nothing, so that a test alone costs its own time and fixtures,
not the seconds in which pytest starts and imports.
"""

import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import pytest
from _pytest.runner import runtestprotocol

from tests.proof import closing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("proof").addoption("--alone", action="store_true", help="each test in a process of its own")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if not item.config.option.alone:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> list[pytest.TestReport]:
    """Of set-up, call and teardown; a failed one where the process ended before it could tell."""
    item.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # one for all, or each removes others'
    reading, writing = os.pipe()
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(item, writing)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        return [_ended(item, os.waitstatus_to_exitcode(status))]
    reports: list[pytest.TestReport] = []
    for data in json.loads(text):
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        if isinstance(report.longrepr, list):  # of a skipped test: JSON knows no tuples
            report.longrepr = tuple(report.longrepr)
        reports.append(report)
    return reports


def _run(item: pytest.Item, writing: int) -> NoReturn:
    """The test and the end of all its fixtures; the reports go into the pipe."""
    status = 3
    closing.begin()
    try:
        told: list[dict[str, Any]] = [
            item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
            for report in runtestprotocol(item, log=False, nextitem=None)
        ]
        with os.fdopen(writing, "w") as out:
            json.dump(told, out, default=str)
        status = 0
    except BaseException:  # noqa: BLE001 (whatever it is: this process must not go on as its parent would)
        traceback.print_exc()
    finally:
        os._exit(status)


def _ended(item: pytest.Item, code: int) -> pytest.TestReport:
    how = f"of signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
    told = f"The process of this test alone ended {how}; what it said is above."
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", told, "call")
