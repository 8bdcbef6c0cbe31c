"""Customers of the shop, side by side, whatever is done to its site."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

AT_ONCE = 6
PAUSE_S = 0.02
"""Between two orders of one customer: what is done to the site gets its share of the machine."""
CHECKOUT = "/wp-json/shop/v1/checkout"


@dataclass(frozen=True)
class Order:
    """One that was acknowledged, under ``number``; ``began`` and ``ended`` are seconds of a clock that never jumps."""

    number: int
    token: str
    began: float
    ended: float


class Customers:
    """They order from the beginning of the block to its end. Where the shop moves to, they follow."""

    def __init__(self, address: str, host: str, name: str) -> None:
        """``name`` is in front of their tokens, which no others may have."""
        self._address = address
        self._name = name
        self._shop = ("http", host)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.orders: list[Order] = []
        self.refused = 0

    def __enter__(self) -> "Customers":
        self._threads = [threading.Thread(target=self._buy, args=(number,)) for number in range(AT_ONCE)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def during(self, work: Callable[[], object]) -> list[Order]:
        """The orders that began after the work did, and were acknowledged before it ended."""
        began = time.monotonic()
        work()
        ended = time.monotonic()
        return [one for one in list(self.orders) if began <= one.began and one.ended <= ended]

    def _buy(self, who: int) -> None:
        count = 0
        with httpx.Client(verify=False, trust_env=False, timeout=60) as client:
            while not self._over.wait(PAUSE_S):
                count += 1
                self._order(client, f"{self._name}-{who}-{count}")

    def _order(self, client: httpx.Client, token: str) -> None:
        scheme, host = self._shop
        began = time.monotonic()
        try:
            answer = client.post(
                f"{scheme}://{self._address}{CHECKOUT}",
                data={"token": token},
                headers={"Host": host, "User-Agent": "Mozilla/5.0 (customer)"},
                extensions={"sni_hostname": host},
            )
        except httpx.HTTPError:
            self.refused += 1
            return
        if answer.status_code == 200 and (said := _said(answer)):
            assert said["token"] == token, "an answer for somebody else"
            self.orders.append(Order(int(said["order_id"]), token, began, time.monotonic()))
        elif answer.is_redirect:
            place = urlsplit(answer.headers["location"])
            self._shop = (place.scheme, place.netloc)
        else:
            self.refused += 1


def _said(answer: httpx.Response) -> dict[str, Any] | None:
    """What the shop acknowledges; None for an answer that broke off, which no customer takes for one."""
    try:
        found: dict[str, Any] = answer.json()
    except ValueError:
        return None
    return found
