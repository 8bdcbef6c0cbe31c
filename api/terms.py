"""On which terms a change is asked for: ``Idempotency-Key``, and ``If-Match`` with the ETag of what the client saw."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from api.auth import Asking
from api.dependencies import Dependencies, Deps
from api.errors import Replayed
from reconciler.core.errors import TrueupError
from reconciler.operations.declaring import Actor, Terms
from reconciler.operations.preconditions import Precondition, refuse_moved
from reconciler.records.idempotency import Key

TAGS = r'^(?:\*|(?:W/)?"[!#-~]*"(?:, ?(?:W/)?"[!#-~]*")*)$'
_TAG = re.compile(r'(W/)?"([!#-~]*)"')
_OURS = re.compile(r"([0-9]{1,18})(?:-[0-9a-f]+)?")

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        pattern=r"^[!-~]+$",
        json_schema_extra={"format": "idempotency-key"},
    ),
]
IfMatch = Annotated[str | None, Header(alias="If-Match", pattern=TAGS, json_schema_extra={"format": "entity-tag"})]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match")]


async def _fingerprint(request: Request) -> str:
    """sha256 of all that the request says."""
    said = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(said + await request.body()).hexdigest()


def _once(
    actor: Asking, fingerprint: Annotated[str, Depends(_fingerprint)], deps: Deps, key: KeyHeader = None
) -> Iterator[Actor]:
    """Who asks; the same request with the same key is not carried out again, but answered as it was then."""
    if key is None:
        yield actor
        return
    first = Key(actor.email, key, fingerprint)
    _replay(first, deps)
    try:
        yield replace(actor, terms=Terms(key=first))
    except TrueupError:
        # The same request may have been accepted at the same moment, and this one be refused because of it.
        _replay(first, deps)
        raise


def _replay(key: Key, deps: Dependencies) -> None:
    if answered := deps.records.idempotency.find(key, deps.now()):
        raise Replayed(answered)


def answer_once(
    actor: Actor, key: str, said: str, view: BaseModel, discard: Callable[[], None], deps: Dependencies
) -> None:
    """Remember what a request that makes no job is answered; raise the answer that it had before, if it had one.

    ``discard`` takes back what this one made, where it is not to be answered with it.
    """
    first = Key(actor.email, key, hashlib.sha256(said.encode()).hexdigest())
    try:
        _replay(first, deps)
        deps.records.idempotency.remember(first, view.model_dump(mode="json"), deps.now())
    except (Replayed, TrueupError):
        discard()
        raise


Once = Annotated[Actor, Depends(_once)]
"""Who asks for something that no site and no environment changes by."""


def _seen(request: Request, id: UUID, actor: Once, deps: Deps, if_match: IfMatch = None) -> Actor:
    """Who asks, for a change of the site or environment of the path as the client saw it."""
    if if_match is None:
        return actor
    kind: Literal["site", "environment"] = "site" if request.url.path.startswith("/api/sites/") else "environment"
    precondition = Precondition(kind, id, _versions(if_match))
    refuse_moved(precondition, deps.state.fleet(), deps.state)
    return replace(actor, terms=replace(actor.terms, precondition=precondition))


Who = Annotated[Actor, Depends(_seen)]


def _versions(if_match: str) -> frozenset[int] | None:
    """The state versions that the header names; None: any. Of our tags the number counts, and others match nothing."""
    if if_match == "*":
        return None
    tags = [tag for weak, tag in _TAG.findall(if_match) if not weak]
    return frozenset(int(found[1]) for tag in tags if (found := _OURS.fullmatch(tag)))


def tagged(view: BaseModel, state_version: int, if_none_match: str | None) -> Response:
    """``view`` as JSON with its ETag, or 304 where that is what the client has."""
    body = view.model_dump_json().encode()
    etag = f'"{state_version}-{hashlib.sha256(body).hexdigest()[:8]}"'
    known = if_none_match is not None and (
        if_none_match.strip() == "*" or etag.strip('"') in {tag for _, tag in _TAG.findall(if_none_match)}
    )
    if known:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, media_type="application/json", headers={"ETag": etag})
