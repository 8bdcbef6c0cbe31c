"""Made-up requests, good and bad, to the real application: every answer fits the contract."""

from __future__ import annotations

import json
import shutil
from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import ProjectConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.python._constants.orchestrator import make_constants_value_source

from tests.api.control import EMAIL, LOCAL, Control, control_at
from tests.api.promotable import change_code
from tests.api.reports import make_report
from tests.api.server import listen, serving
from tests.contract.document import DOCUMENT, NOT_YET, built
from tests.proof import count, is_long

EXAMPLES = count(short=3, full=30)
WITH_KNOWN_IDS = count(short=3, full=15)
_PRINTABLE = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])

schemathesis.openapi.format("display-name", st.text(_PRINTABLE, min_size=1, max_size=100).map(str.strip).filter(bool))
# Each its own: the one of another request would only ever be refused.
schemathesis.openapi.format("idempotency-key", st.builds(uuid4).map(str))
# Mostly one that is met, or nothing but refusals would be seen.
schemathesis.openapi.format("entity-tag", st.sampled_from(["*", "*", "*", '"2-0a1b2c3d", W/"3"']))
_MARKS = st.tuples(st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat), st.uuids().map(str))
schemathesis.openapi.format("cursor", _MARKS.map(lambda mark: urlsafe_b64encode(json.dumps(mark).encode()).decode()))
schemathesis.openapi.media_type("application/octet-stream", st.binary(max_size=99).map(b"\x1f\x8b".__add__))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, fresh_home: Path) -> Iterator[Control]:
    """A control plane that lives through all the requests.

    In the end, where all were sent, it keeps them honest: each operation was carried out as well as refused.
    """
    home = tmp_path_factory.mktemp("schemathesis") / "home"
    shutil.copytree(fresh_home, home)
    with control_at(home) as control, serving(control.app, LISTENER):
        yield control
        wanted = {operation.key for operation in built()}
        assert set().union(*SENT.values()) <= wanted, "one name for each operation"
        if (wanted, {key for key in wanted if "{id}" in key}) == (SENT["made up"], SENT["about what is there"]):
            assert_met_good_and_bad_answers(control)


@pytest.fixture(scope="module")
def known(fleet: Control) -> dict[str, UUID]:
    """Ids that exist, by the first part of the path."""
    site, environment = fleet.create_site("acme")
    job = fleet.records.jobs.page().jobs[0].id
    found = {"sites": site, "environments": environment, "jobs": job, "domains": fleet.declare_domain("acme")}
    return {**found, "drift-reports": make_report(fleet)}


def _built_part() -> dict[str, Any]:
    part = deepcopy(DOCUMENT)
    for key in NOT_YET:
        method, path = key.split(" ")
        del part["paths"][path][method.lower()]
    return part


# The port must be known when requests are made up, which is before any fixture.
LISTENER = listen()
CONTRACT = schemathesis.openapi.from_dict(_built_part())
# The cookie is always a real one; without it and with a wrong one, the checks ask by themselves.
CONTRACT.config.generation.update(with_security_parameters=False)
# A precondition may not be met, and a key may have been used, by a request that is well-formed.
CONTRACT.config.checks.positive_data_acceptance.expected_statuses += ["412", "422"]
CONTRACT.config.checks.negative_data_rejection.expected_statuses += ["412"]
CONTRACT.config.update(base_url=f"http://127.0.0.1:{LISTENER.getsockname()[1]}/api")
# Each boundary of each field once, and of a request about what is there once more in the long suite.
ONCE_MORE = deepcopy(CONTRACT.config)
ONCE_MORE.phases.coverage.enabled = is_long()
OPERATIONS = {found.ok().label: found.ok() for found in CONTRACT.get_all_operations()}
FEEDBACK = FeedbackSources(constants_value_source=make_constants_value_source(CONTRACT))
SENT: dict[str, set[str]] = {"made up": set(), "about what is there": set()}
"""The operations that requests of a kind were sent to."""
_checked = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def send(case: schemathesis.Case, fleet: Control) -> None:
    """The request with a new session, as one of the operations ends it; its answer, and that without one, checked."""
    token = fleet.records.sessions.create(EMAIL, LOCAL, fleet.clock())
    # The checks send wrong tokens, and want to hear 401; that too many are slowed is test_answers' to show.
    fleet.records.login_attempts.succeeded(LOCAL, fleet.clock())
    case.call_and_validate(cookies={"session_token": token})


def make_up(label: str, config: ProjectConfig, examples: int, use: Callable[[schemathesis.Case], None]) -> None:
    """Have requests of the operation used, which are made up only now.

    `CONTRACT.parametrize` makes them up while tests are collected, for seconds in each process that only collects them.
    """
    test = settings(_checked, max_examples=examples)(use)
    operation = OPERATIONS[label]
    build_operation_test(config=config, operation=operation, test_func=test, given_kwargs={}, feedback=FEEDBACK)()


@pytest.mark.parametrize("label", OPERATIONS)
def test_made_up_requests(label: str, fleet: Control) -> None:
    make_up(label, CONTRACT.config, EXAMPLES, lambda case: send(case, fleet))
    SENT["made up"].add(label)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if "{id}" in label])
def test_made_up_requests_about_what_is_there(label: str, fleet: Control, known: dict[str, UUID]) -> None:
    make_up(label, ONCE_MORE, WITH_KNOWN_IDS, lambda case: send_about(case, fleet, known))
    SENT["about what is there"].add(label)


def send_about(case: schemathesis.Case, fleet: Control, known: dict[str, UUID]) -> None:
    path = case.meta.components.get(ParameterLocation.PATH) if case.meta else None
    if path is None or not path.mode.is_negative:
        case.path_parameters = {"id": str(known[case.path.split("/")[1]])}
    # No node is there to log in at; all else finds the environment ready.
    busy = case.path.endswith("/magic-login")
    fleet.set_status(known["environments"], "deploying" if busy else "active")
    if case.path.endswith("/drift/adopt"):
        change_code(fleet, known["environments"])
    query = case.meta.components.get(ParameterLocation.QUERY) if case.meta else None
    if case.path.endswith("/promotion") and (query is None or not query.mode.is_negative):
        case.query = {"target": str(known["environments"])}
    send(case, fleet)


OUT_OF_REACH = frozenset(
    f"POST {path}"
    for path in (
        "/login",
        "/hooks/{forge}",
        "/environments/{id}/magic-login",
        "/environments/{id}/promote",
        "/environments/{id}/rollback",
        "/sites/{id}/import",
        "/environments/{id}/backups",
        "/environments/{id}/restore",
        "/environments/{id}/updates",
        "/environments/{id}/reset",
        "/environments/{id}/drift/adopt/branch",
        "/environments/{id}/drift/discard",
        "/environments/{id}/drill",
        "/sites/{id}/reset",
    )
) | {"DELETE /sites/{id}", "DELETE /environments/{id}"}
"""Nobody guesses the password, a signature or a promotion's target; there is no node to answer or to go back on, no
storage, no repository to follow, and nothing failed."""


def assert_met_good_and_bad_answers(fleet: Control) -> None:
    met: dict[str, set[int]] = defaultdict(set)
    for family in fleet.app.state.watch.requests.collect():
        for sample in family.samples:
            if sample.name.endswith("_count"):
                met[f"{sample.labels['method']} {sample.labels['route']}"].add(int(sample.labels["status"]))
    for operation in built():
        refusals = {status for status in met[f"{operation.method} {operation.url}"] if status >= 400}
        assert refusals or operation.key == "GET /openapi.json", operation.key
        assert operation.success in met[f"{operation.method} {operation.url}"] or operation.key in OUT_OF_REACH, (
            operation.key
        )
