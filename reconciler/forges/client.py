"""Asks a forge's API: within a time and a size, never anywhere else than where the token belongs."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from reconciler.addresses import first_connected, named_addresses
from reconciler.forges.model import ForgeError, cut

SILENCE_S = 10.0
LONGEST_S = 30.0
"""An exchange is cut off then, however slowly the other side goes on."""
MOST_BYTES = 4 << 20
LONGEST_WAIT_S = 3600.0
_SAID = 200


@dataclass(frozen=True)
class Answer:
    status: int
    data: Any
    """The JSON in it; None: there is none."""


class Client:
    """One forge's API at ``base``, with the header that holds the token. A redirect is an error: it is not followed."""

    def __init__(self, base: str, token: tuple[str, str], *, accept: str = "application/json", ca: str | None = None):
        self._base = base
        self._headers = {"User-Agent": "Trueup", "Accept": accept, token[0]: token[1]}
        self._secret = token[1].split()[-1]
        self._ca = ca

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> Any:
        """The JSON that a request is answered with.

        Raises:
            ForgeError: no answer in time, or one that isn't a success.
        """
        answer = self.try_(method, path, body, **query)
        if 200 <= answer.status < 300:
            return answer.data
        raise self.refused(method, path, answer)

    def try_(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> Answer:
        """The answer, whether it is a success or a refusal.

        Raises:
            ForgeError: no whole answer in time, one that is no JSON, a redirect, or the wish to be left alone.
        """
        try:
            return asyncio.run(self._within(method, path, body, query))
        except TimeoutError as error:
            raise ForgeError(f"{self._base} did not answer within {LONGEST_S:.0f} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            words = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
            why = self._safe(words or type(error).__name__)
            raise ForgeError(f"{self._base} cannot be asked: {why.rstrip('.')}.") from error

    def refused(self, method: str, path: str, answer: Answer) -> ForgeError:
        """The error for an answer that is no success."""
        advice = _ADVICE.get(answer.status, "")
        said = self._safe(_said(answer.data))
        why = f" ({said})" if said else ""
        return ForgeError(f"{method} {self._base}{path} was answered {answer.status}{why}.{advice}", answer.status)

    async def _within(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str | int]
    ) -> Answer:
        async with asyncio.timeout(LONGEST_S):
            # Neither a proxy nor credentials of the environment: the token goes to the forge alone.
            async with httpx.AsyncClient(verify=trusted(self._ca), timeout=SILENCE_S, trust_env=False) as client:
                request = client.build_request(
                    method, f"{self._base}{path}", headers=self._headers, json=body, params=query or None
                )
                await _pin(request)
                async with aclosing(await client.send(request, stream=True)) as response:
                    return self._answer(method, path, response, await _whole(response, self._base))

    def _answer(self, method: str, path: str, response: httpx.Response, content: bytes) -> Answer:
        status = response.status_code
        if 300 <= status < 400:
            raise ForgeError(
                f"{method} {self._base}{path} was redirected, and a token is not sent on. Correct spec.forge.api or "
                "spec.forge.repository.",
                status,
            )
        wait_s = _wait_s(response)
        if status == 429 or (status in {403, 503} and wait_s is not None):
            raise ForgeError(f"{self._base} asks to be left alone for a while (HTTP {status}).", status, wait_s)
        try:
            data = json.loads(content) if content.strip() else None
        except ValueError as error:
            if 200 <= status < 300:
                raise ForgeError(f"{self._base} does not answer with JSON. Correct spec.forge.api.", status) from error
            data = None
        return Answer(status, data)

    def _safe(self, text: str) -> str:
        """What a forge or a library says, without the token and without what a terminal would obey."""
        shown = "".join(one if one.isprintable() else " " for one in text)
        return cut(shown.replace(self._secret, "…"), _SAID)


def trusted(ca: str | None) -> ssl.SSLContext:
    """What a forge's certificate has to lead to: the authorities in ``ca``, or all that this host trusts."""
    where = ssl.get_default_verify_paths()
    return _trusted(ca, *(_state(path) for path in (where.cafile, where.capath)))


@functools.lru_cache(maxsize=8)
def _trusted(ca: str | None, *_host: tuple[str, int, int] | None) -> ssl.SSLContext:
    """Made once for each state of the host's authorities: to read them takes longer than most answers."""
    return ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()


def _state(path: str | None) -> tuple[str, int, int] | None:
    """What differs once a file or a directory was written anew."""
    try:
        found = Path(path).stat() if path else None
    except OSError:
        return None
    return (str(path), found.st_ino, found.st_mtime_ns) if found else None


async def _pin(request: httpx.Request) -> None:
    """Send it to the address that was checked; the name stays in its ``Host`` and in what TLS asks for.

    Raises:
        OSError, UnicodeError: there is none.
    """
    host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
    address = (await asyncio.to_thread(_connectable, host, port)).partition("%")[0]
    request.extensions = {**request.extensions, "sni_hostname": host}
    request.url = request.url.copy_with(host=address)


def _connectable(host: str, port: int) -> str:
    """The first address that takes a connection, where there are several."""
    found = named_addresses(host, port)
    if len(found) == 1:
        return found[0]
    with first_connected(found, port, SILENCE_S) as connection:
        return str(connection.getpeername()[0])


_ADVICE = {
    401: " Give secret spec.forge.credentials a token that is valid.",
    403: " Give the token the rights that docs/forges.md names.",
    404: " Correct spec.forge.repository, or let the token see it.",
}


async def _whole(response: httpx.Response, base: str) -> bytes:
    content = b""
    async for block in response.aiter_bytes():
        content += block
        if len(content) > MOST_BYTES:
            raise ForgeError(f"{base} answers with more than {MOST_BYTES >> 20} MiB.", response.status_code)
    return content


def _wait_s(response: httpx.Response) -> float | None:
    """How long to wait, where it says so in seconds; a moment of its clock says nothing of ours."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else None


def _said(data: Any) -> str:
    """The reason in an answer, in whichever of its fields."""
    if isinstance(data, dict):
        parts = [data.get("message"), data.get("error"), data.get("errors")]
        return " ".join(part if isinstance(part, str) else json.dumps(part) for part in parts if part)
    return ""
