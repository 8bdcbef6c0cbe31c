"""A thread that looks, rests, and looks again; for what may be kept waiting by somebody else's server."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from reconciler.core.errors import TrueupError

log = structlog.get_logger()


class Looking:
    """Looks until ``stop``. ``stopping`` ends what waits for the other side, ``woken`` a rest."""

    def __init__(self, name: str, stop_s: float) -> None:
        """``stop_s``: the seconds that ``stop`` waits for the look that is at work."""
        self.stopping = threading.Event()
        self.woken = threading.Event()
        self._name = name
        self._stop_s = stop_s
        self._thread: threading.Thread | None = None

    def start(self, look: Callable[[], None], rest: Callable[[], None]) -> None:
        """Look and rest in turn. A look that fails is logged, and does not end the looking."""
        self._thread = threading.Thread(target=self._run, args=(look, rest), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.woken.set()
        if self._thread:
            self._thread.join(self._stop_s)

    def wake(self) -> None:
        self.woken.set()

    def _run(self, look: Callable[[], None], rest: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            self.woken.clear()
            try:
                look()
            except TrueupError as error:
                log.error("look failed", what=self._name, error=error.message)
            except Exception:
                # The thread's boundary: what is our own mistake must not end the looking without a word.
                log.exception("look failed", what=self._name)
            rest()
