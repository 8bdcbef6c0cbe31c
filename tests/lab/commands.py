"""Runs one host command and turns its failure into a LabError that shows what it printed."""

import subprocess
import time
from collections.abc import Callable, Sequence

from tests.lab.paths import LabError


def run(argv: Sequence[str], *, text: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """Standard output of `argv`, with `text` on its standard input."""
    try:
        done = subprocess.run(argv, input=text or "", capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(argv)}` took longer than {timeout:.0f} s.") from error
    if check and done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.01) -> bool:
    """Whether `condition` came true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
