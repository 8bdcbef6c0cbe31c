"""When an environment is looked at, and from which releases Trueup goes back by itself."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from reconciler.core.health import is_due, way_back
from reconciler.core.manifests import Release
from reconciler.core.observed import ObservedHealth, ObservedNode, OnPrivateAddress
from reconciler.core.policy import Reconcile, ReconcileMode
from tests.core.documents import fleet_of, small

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BAD, GOOD = UUID(int=2), UUID(int=1)
BROKEN = ObservedHealth(
    release=str(BAD),
    health="unhealthy",
    reason="It answers 500.",
    checks={"page": "It answers 500.", "wordpress": None, "database": None},
    alone=False,
    previous=OnPrivateAddress(release=str(GOOD), answers=True),
)
NODE = ObservedNode(observed_at=NOW, hostname="web-1")


@dataclass(frozen=True)
class Known:
    found: ObservedHealth
    left_for: UUID | None = None


def _back(found: ObservedHealth = BROKEN, node: ObservedNode = NODE, **given: Any) -> UUID | str:
    environment = next(iter(fleet_of(small()).environments.values()))
    spec = environment.manifest.spec.model_copy(update=given.get("spec", {}))
    environment = replace(environment, manifest=environment.manifest.model_copy(update={"spec": spec}))
    known = {BAD: Known(found, given.get("left_for")), GOOD: Known(BROKEN, given.get("came_from"))}
    return way_back(environment, BAD, known, node, NOW)


def test_an_unhealthy_release_is_left_for_the_one_before_it() -> None:
    assert _back() == GOOD
    assert _back(spec={"release": Release(id=BAD, origin="update", made_from=GOOD, scope="all")}) == GOOD


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"spec": {"reconcile": Reconcile(mode=ReconcileMode.REPORT)}}, "mode is report"),
        ({"spec": {"reconcile": Reconcile(mode=ReconcileMode.PAUSED)}}, "mode is paused"),
        ({"node": NODE.model_copy(update={"hold": "a new disk"})}, "on hold: a new disk"),
        ({"found": BROKEN.model_copy(update={"checks": {"page": "500", "database": "no"}})}, "database"),
        ({"found": BROKEN.model_copy(update={"alone": True})}, "fault is elsewhere"),
        ({"found": BROKEN.model_copy(update={"previous": None})}, "no earlier release"),
        (
            {"found": BROKEN.model_copy(update={"previous": OnPrivateAddress(release=str(GOOD), answers=False)})},
            "either",
        ),
        ({"left_for": GOOD}, "already"),
        ({"came_from": BAD}, "already"),
        *(
            ({"spec": {"release": Release(id=BAD, origin=origin)}}, "together with its content")
            for origin in ("clone", "import", "restore", "promote")
        ),
    ],
)
def test_all_else_is_left_to_people(given: dict[str, Any], said: str) -> None:
    back = _back(**given)
    assert isinstance(back, str)
    assert said in back


def test_each_is_due_once_in_every_interval_and_not_all_at_once() -> None:
    every = timedelta(seconds=300)
    environments = [uuid4() for _ in range(200)]
    assert all(is_due(one, None, every, NOW) for one in environments)
    moments = [NOW + timedelta(seconds=5 * n) for n in range(1, 61)]
    for one in environments:
        last, seen = NOW, []
        for moment in moments:
            if is_due(one, last, every, moment):
                last = moment
                seen.append(moment)
        assert len(seen) == 1
    together = max(sum(is_due(one, m - timedelta(seconds=5), every, m) for one in environments) for m in moments)
    assert together < len(environments) / 5
