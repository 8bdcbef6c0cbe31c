"""From an error to an answer: the one place that knows both our error codes and HTTP statuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from api.forms import FORMS
from reconciler.core import errors
from reconciler.core.errors import TrueupError
from reconciler.records.idempotency import Answered

_log = structlog.get_logger(__name__)


class CrossOrigin(TrueupError):
    """A browser sent a write on behalf of another origin's page."""

    code: ClassVar[str] = "cross_origin"


class MethodNotAllowed(TrueupError):
    code: ClassVar[str] = "method_not_allowed"


class RequestTooLarge(TrueupError):
    code: ClassVar[str] = "request_too_large"


class RequestTimeout(TrueupError):
    """The client took too long to send its request."""

    code: ClassVar[str] = "request_timeout"


class NotReady(TrueupError):
    """The control plane runs and cannot work: database or store can't be used."""

    code: ClassVar[str] = "not_ready"


STATUSES: dict[type[TrueupError], int] = {
    errors.Invalid: 400,
    errors.Unauthorized: 401,
    CrossOrigin: 403,
    errors.ReadOnlyToken: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    RequestTooLarge: 413,
    errors.UploadTooLarge: 413,
    errors.IdempotencyKeyReused: 422,
    errors.TooManyAttempts: 429,
    TrueupError: 500,
    errors.NodeUnreachable: 502,
    errors.WpCliError: 502,
    errors.StorageError: 503,
    errors.StoreError: 503,
    errors.RecordsError: 503,
    NotReady: 503,
    errors.DiskFull: 507,
}

_INTERNAL = "Something went wrong on the control plane. Its log has the details."
# These messages name files and hosts of the control plane; the log gets them, the client doesn't.
_VEILED: dict[type[TrueupError], str] = {
    errors.StoreError: "The store could not be read or written.",
    errors.RecordsError: "The database could not be read or written.",
    errors.StorageError: "The storage of backups could not be read or written.",
}
_VEIL = "Nothing was changed. Try again; the control plane's log has the details."


def status_of(error: type[TrueupError]) -> int:
    """The status of an error class: its own, or that of the nearest class above it."""
    return next(STATUSES[kind] for kind in error.__mro__ if kind in STATUSES)


def answer(error: TrueupError) -> JSONResponse:
    """The response for an error that was raised on purpose."""
    status = status_of(type(error))
    if status == 500:
        _log.error("unexpected error in a request", code=error.code, message=error.message)
        return _body(500, TrueupError.code, _INTERNAL)
    for kind, message in _VEILED.items():
        if isinstance(error, kind):
            _log.error("request failed", code=error.code, message=error.message)
            return _body(status, error.code, f"{message} {_VEIL}")
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, errors.TooManyAttempts) else None
    return _body(status, error.code, error.message, headers)


def _body(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status, headers)


_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is no field of this request; remove it",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "model_attributes_type": "must be a JSON object sent as application/json",
    "model_type": "must be a JSON object sent as application/json",
    "dict_type": "must be a JSON object sent as application/json",
}


def explain(error: RequestValidationError) -> str:
    """The first problem of a request, for a person: the field, the fact, the next step."""
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return "The body is not valid JSON. Correct it and send the request again."
    place = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
    words = _WORDS.get(problem["type"]) or FORMS.get(problem.get("ctx", {}).get("pattern", ""))
    words = words or problem["msg"].removeprefix("Value error, ")
    return f"{place}: {words}. Correct it and send the request again."


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    """What Starlette and FastAPI refuse themselves: unknown paths, methods, unreadable bodies."""
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return answer(errors.NotFound(f"There is no {where}. See /docs for what there is."))
    if error.status_code == 405:
        response = answer(MethodNotAllowed(f"There is no {where}. See the Allow header."))
        response.headers["Allow"] = ", ".join(_allowed(request))
        return response
    return answer(errors.Invalid("The body cannot be read as JSON in UTF-8. Correct it and send the request again."))


def _allowed(request: Request) -> list[str]:
    """All the methods of the request's path; Starlette names only those of the first route that has the path."""
    routes: Iterable[BaseRoute] = request.app.routes
    scopes = [{**request.scope, "method": method} for method in ("DELETE", "GET", "PATCH", "POST", "PUT")]
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _on_trueup_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TrueupError)  # noqa: S101 (what it is registered for)
    return answer(error)


async def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return answer(errors.Invalid(explain(error)))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    return _http_error(request, error)


async def _on_bug(_request: Request, _error: Exception) -> JSONResponse:
    # The server logs it with its traceback: Starlette raises it again once this is sent.
    return _body(500, TrueupError.code, _INTERNAL)


class Replayed(Exception):
    """The request was accepted before, under the same Idempotency-Key; ``answered`` then."""

    def __init__(self, answered: Answered) -> None:
        super().__init__()
        self.answered = answered


async def _on_replay(_request: Request, replay: Exception) -> JSONResponse:
    assert isinstance(replay, Replayed)  # noqa: S101
    job_id = replay.answered.job_id
    if job_id is None:
        return JSONResponse(replay.answered.answer, 201)
    return JSONResponse({"job_id": str(job_id)}, 202, {"Location": f"/api/jobs/{job_id}"})


def install(app: FastAPI) -> None:
    """Make every error of the app answer ``{code, message}``."""
    app.add_exception_handler(TrueupError, _on_trueup_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Replayed, _on_replay)
    app.add_exception_handler(Exception, _on_bug)
