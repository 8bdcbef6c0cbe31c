"""What the loop does not do by itself: production before staging, too much at once, what failed as it is."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane import until
from tests.lab.git_server import git_daemon
from tests.lab.s3 import S3
from tests.place import Place

pytestmark = pytest.mark.lab

PRODUCTION, STAGING = "ordered/production", "ordered/staging"
DOCUMENTS = {key: f"sites/{key.replace('/', '/environments/')}.yaml" for key in (PRODUCTION, STAGING)}


@pytest.fixture(scope="module")
def both(place: Place) -> dict[str, Any]:
    """Production and its staging environment, each by its key."""
    production = place.make_site("ordered")
    body = {"name": "Staging", "slug": "staging", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{production['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    return {PRODUCTION: production, STAGING: place.plane.http.get(f"/api/environments/{job['environment_id']}").json()}


@pytest.fixture(scope="module", autouse=True)
def platform(place: Place, storage: S3) -> Iterator[str]:
    """The nodes' network may be asked for code."""
    text = storage.platform() + f"  imports: {{allowed_hosts: ['{place.nodes['web-1'].network.gateway}']}}\n"
    place.plane.clone.push({"platform.yaml": text}, "Allow the Git server")
    yield text
    place.plane.clone.push({"platform.yaml": storage.platform()}, "As usual")


def change_both(place: Place, memory_mb: int) -> None:
    """One commit that changes both environments."""
    files = {path: edited(place, path, php={"memory_limit_mb": memory_mb}) for path in DOCUMENTS.values()}
    place.plane.clone.push(files, f"Give both {memory_mb} MB")


def edited(place: Place, path: str, **fields: Any) -> str:
    """A document with these fields of its ``spec``."""
    document = yaml.safe_load(place.plane.clone.read(path))
    document["spec"] |= fields
    return str(yaml.safe_dump(document, sort_keys=False))


def memory_of(place: Place, environment: dict[str, Any]) -> int:
    limit: int = place.manifest(environment)["variables"]["php"]["memory_limit_mb"]
    return limit


def steps(place: Place) -> dict[str, tuple[str, str | None]]:
    """Verdict and reason by target."""
    plan = json.loads(place.plane.cli("plan", "ordered", "-o", "json").stdout)
    return {step["target"]: (step["verdict"], step["reason"]) for step in plan["steps"]}


@pytest.mark.long
def test_production_follows_staging_once_that_is_healthy(place: Place, both: dict[str, Any]) -> None:
    path, staging = DOCUMENTS[STAGING], f"/api/environments/{both[STAGING]['id']}"
    place.plane.clone.push({path: edited(place, path, health={"interval_s": 86_400})}, "Look once a day")
    until(lambda: STAGING not in steps(place), "staging to be as declared", told=place.plane.log)
    # A new environment's first look is due at once; the next one in a day.
    assert place.run(place.plane.http.post(f"{staging}/health-check"))["status"] == "succeeded"
    change_both(place, 300)
    until(lambda: memory_of(place, both[STAGING]) == 300, "staging", told=place.plane.log)
    held = "Waits for a look at whether ordered/staging serves."
    until(
        lambda: str(steps(place).get(PRODUCTION, ("", ""))[1]).startswith(held),
        "it to wait",
        told=place.plane.log,
    )
    assert memory_of(place, both[PRODUCTION]) != 300
    assert place.run(place.plane.http.post(f"{staging}/health-check"))["status"] == "succeeded"
    until(lambda: memory_of(place, both[PRODUCTION]) == 300, "production", told=place.plane.log)


@pytest.mark.long
def test_too_much_at_once_is_a_persons(place: Place, both: dict[str, Any], platform: str) -> None:
    place.plane.clone.push({"platform.yaml": platform + "  reconcile: {blast_limit: 1}\n"}, "One at a time")
    change_both(place, 310)
    found = steps(place)
    assert [found[key][0] for key in (PRODUCTION, STAGING)] == ["waiting", "waiting"]
    # Of the other sites here one may be about to change, too.
    told = re.match(r"(\d+) environments would change at once, more than the 1 ", str(found[STAGING][1]))
    assert told, found
    assert int(told[1]) >= 2
    digest = json.loads(place.plane.command("plan", "ordered", "-o", "json").stdout)["digest"]
    done = place.plane.command("apply", "ordered", "--yes", "--require", digest)
    assert done.returncode == 0
    assert [memory_of(place, one) for one in both.values()] == [310, 310]
    place.plane.clone.push({"platform.yaml": platform}, "As many as there are")


@pytest.mark.long
def test_what_ended_unhealthy_is_left_until_its_document_changes(
    place: Place, both: dict[str, Any], platform: str, tmp_path: Path
) -> None:
    path = DOCUMENTS[STAGING]
    before, served = place.plane.clone.read(path), place.manifest(both[STAGING])["releases"][-1]
    with git_daemon(tmp_path, place.nodes["web-1"].network.gateway) as server:
        server.commit("ordered", {"wp-content/mu-plugins/ours.php": "<?php no_such_function();"})
        release = {"id": str(uuid.uuid4()), "source_type": "git", "source_ref": server.url("ordered")}
        place.plane.clone.push({path: edited(place, path, release=release)}, "Release what is broken")
        until(
            lambda: "Quarantined" in str(steps(place).get(STAGING, ("", ""))[1]),
            "it to be quarantined",
            told=place.plane.log,
        )
        assert place.page(both[STAGING]).status_code == 200
        tried = len(_tries(place, both[STAGING]))
        place.plane.clone.push({"platform.yaml": platform + "  health: {interval_s: 600}\n"}, "Another commit")
        place.touch_block(both[PRODUCTION])
        until(lambda: not place.is_touched(both[PRODUCTION]), "the loop to look again", told=place.plane.log)
        assert len(_tries(place, both[STAGING])) == tried
        assert steps(place)[STAGING][0] == "waiting"
        place.plane.clone.push({path: before}, "Back to what was served")
        until(lambda: STAGING not in steps(place), "staging to be as declared", told=place.plane.log)
    assert place.manifest(both[STAGING])["releases"][-1] == served
    assert place.page(both[STAGING]).status_code == 200


def _tries(place: Place, environment: dict[str, Any]) -> list[Any]:
    with place.plane.opened() as home:
        jobs = home.records.jobs.page(limit=1000).jobs
    return [job.id for job in jobs if str(job.environment_id) == environment["id"] and job.job_type == "reconcile"]
