"""The registry of codes against the code, both ways."""

from __future__ import annotations

from collections.abc import Iterator

from api import errors as api_errors
from reconciler.core.errors import TrueupError
from reconciler.core.jobs import RETRIED, JobErrorCode
from tests.contract.document import table

PAGE = "error-codes.md"


def _classes(base: type[TrueupError] = TrueupError) -> Iterator[type[TrueupError]]:
    yield base
    for kind in base.__subclasses__():
        # Names of other modules' own subclasses count by the code that they answer with.
        yield from _classes(kind)


def test_every_code_is_in_the_registry_and_the_registry_has_no_others() -> None:
    of_api = {row[0] for row in table(PAGE, "## Of the API")}
    inside = {row[0] for row in table(PAGE, "## Of the command line and the log")}
    assert {kind.code for kind in _classes()} == of_api | inside
    assert not of_api & inside


def test_the_registry_tells_the_status_that_the_api_answers() -> None:
    told = {row[0]: int(row[1]) for row in table(PAGE, "## Of the API")}
    answered = {kind.code: api_errors.status_of(kind) for kind in _classes() if kind.code in told}
    assert answered == told


def test_codes_inside_have_no_status_of_their_own() -> None:
    inside = {row[0] for row in table(PAGE, "## Of the command line and the log")}
    assert {api_errors.status_of(kind) for kind in _classes() if kind.code in inside} == {500}


def test_every_job_code_is_in_the_registry_with_what_happens_next() -> None:
    rows = table(PAGE, "## Of jobs")
    assert {row[0] for row in rows} == {code.value for code in JobErrorCode}
    assert {row[0] for row in rows if row[1] == "yes"} == set(RETRIED)
    assert all(row[3] for row in rows), "each says what to do"
