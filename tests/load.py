"""Visitors of a site while something is done to it: every request counted, every failed one kept."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

VISITORS = 4
SHORTEST_LOOK_S = 0.01


@dataclass
class Visits:
    """What they were answered: how often each status, and the failed ones in words."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.statuses.values()) + len(self.failures)


@contextmanager
def visitors(
    address: str,
    host: str,
    path: str = "/",
    wanted: str = "</html>",
    *,
    scheme: str = "http",
    count: int = VISITORS,
    look_s: float = SHORTEST_LOOK_S,
) -> Iterator[Visits]:
    """Visitors from now until the end of the block, every second one past the page cache.

    Each looks at a page as long as it took to come, and ``look_s`` at least: what is done to the site gets its share of
    the machine. A request has failed that brings no answer, another status than 200, or a page without ``wanted``.
    Each comes by a connection of its own: nginx's former workers end those that rest, and who writes into one at that
    very moment has no answer, and asks again, as browsers do.
    """
    visits, stop = Visits(), threading.Event()

    def look(client: httpx.Client) -> None:
        try:
            answer = client.get(path, extensions={"sni_hostname": host})
        except httpx.HTTPError as error:
            visits.failures.append(repr(error))
            return
        if answer.status_code == 200 and wanted in answer.text:
            visits.statuses[200] += 1
        else:
            words = re.sub(r"<style.*?</style>|<[^>]+>|\s+", " ", answer.text, flags=re.DOTALL)
            visits.failures.append(f"{answer.status_code} {words[:300]}")

    def visit(headers: dict[str, str]) -> None:
        base, named, alone = (
            f"{scheme}://{address}",
            {"Host": host, **headers},
            httpx.Limits(max_keepalive_connections=0),
        )
        with httpx.Client(
            base_url=base, headers=named, timeout=60, verify=False, trust_env=False, limits=alone
        ) as client:
            while not stop.is_set():
                began = time.monotonic()
                look(client)
                stop.wait(max(look_s, time.monotonic() - began))

    past = {"Cookie": "wordpress_no_cache=1"}
    threads = [threading.Thread(target=visit, args=(past if n % 2 else {},)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        stop.set()
        for thread in threads:
            thread.join()
