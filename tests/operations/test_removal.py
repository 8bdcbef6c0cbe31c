"""Environments and sites go, each backed up first, through the API; nothing goes without a backup."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from reconciler.home import clock
from reconciler.loop.expiring import remove_expired
from reconciler.operations.declaring import Actor
from reconciler.storage.secret_store import Secrets
from tests.controlplane import until
from tests.lab.s3 import BUCKET, S3
from tests.place import Place

pytestmark = pytest.mark.lab


def _objects(storage: S3, environment: dict[str, Any]) -> set[str]:
    listed = storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{environment['id']}/")
    return {one["Key"].rsplit("/", 1)[1] for one in listed.get("Contents", [])}


def _is_on_node(place: Place, environment: dict[str, Any]) -> bool:
    node, id_ = place.node_of(environment), environment["id"]
    paths = f"/var/www/sites/{id_} /etc/trueup/environments/{id_}.json /var/lib/mysql/wp_{id_.replace('-', '')[:12]}"
    found = [node.ssh(["test", "-e", path], check=False).returncode == 0 for path in paths.split()]
    return any(found)


def _delete(place: Place, path: str, **query: str) -> Any:
    return place.plane.http.delete(f"/api/{path}", params=query)


FULL = {"database.sql.zst", "files.tar.zst", "manifest.json"}


@pytest.mark.long
def test_a_copy_goes_then_its_site(place: Place, storage: S3) -> None:
    production = place.make_site("leaving")
    body = {"name": "Try", "slug": "try", "type": "staging"}
    site = f"sites/{production['site_id']}"
    job = place.run(place.plane.http.post(f"/api/{site}/environments", json=body))
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()

    for refused in (_delete(place, f"environments/{production['id']}"), _delete(place, site, confirm="other")):
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")

    job = place.run(_delete(place, f"environments/{copy['id']}"))
    assert (job["status"], job["job_type"]) == ("succeeded", "environment-remove"), job
    assert place.plane.http.get(f"/api/environments/{copy['id']}").status_code == 404
    assert not _is_on_node(place, copy)
    assert _objects(storage, copy) == FULL
    assert place.page(production).status_code == 200
    assert _delete(place, f"environments/{copy['id']}").status_code == 404

    job = place.run(_delete(place, site, confirm="leaving"))
    assert (job["status"], job["job_type"]) == ("succeeded", "site-remove"), job
    assert place.plane.http.get(f"/api/{site}").status_code == 404
    assert not _is_on_node(place, production)
    assert _objects(storage, production) == FULL


@pytest.mark.long
def test_without_a_backup_nothing_goes(place: Place, storage: S3) -> None:
    production = place.make_site("staying")
    secrets = Secrets(place.plane.home / "secrets")
    secrets.put("backups", {**storage.credentials, "secret_key": "another one, which is wrong"})
    try:
        job = place.run(_delete(place, f"sites/{production['site_id']}", confirm="staying"))
    finally:
        secrets.put("backups", storage.credentials)
    assert (job["status"], job["error_code"]) == ("failed", "BACKUP_FAILED"), job
    assert place.plane.http.get(f"/api/environments/{production['id']}").json()["status"] == "active"
    assert _is_on_node(place, production)
    assert place.page(production).status_code == 200
    assert _objects(storage, production) == set()


@pytest.mark.long
def test_what_has_expired_goes_and_comes_back_with_its_backup(place: Place, storage: S3) -> None:
    production = place.make_site("fair")
    body = {"name": "Try", "slug": "try", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{production['site_id']}/environments", json=body))
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    place.sql(copy, "UPDATE wp_options SET option_value = 'Kept' WHERE option_name = 'blogname'")
    path = "sites/fair/environments/try.yaml"
    document = place.plane.git("show", f"main:{path}") + "\n"
    ends = clock() + timedelta(hours=1)
    place.plane.clone.push({path: document.replace("spec:\n", f'spec:\n  expires_at: "{ends.isoformat()}"\n', 1)})
    actor = Actor("trueup", "trueup@localhost")
    with place.plane.opened() as home:
        assert remove_expired(home.state, home.operations, actor, ends - timedelta(seconds=1)) == []
        (job_id,) = remove_expired(home.state, home.operations, actor, ends)
        assert remove_expired(home.state, home.operations, actor, ends) == []
    assert place.plane.wait_job(str(job_id))["status"] == "succeeded"
    assert not _is_on_node(place, copy)

    with place.plane.opened() as home:
        (final,) = home.records.backups.of(UUID(copy["id"]))
    place.plane.clone.push({path: document}, "Have it back")
    ledger = ["test", "-e", f"/etc/trueup/environments/{copy['id']}.json"]
    until(lambda: place.node_of(copy).ssh(ledger, check=False).returncode == 0, "the copy to be made again")
    assert place.page(copy).status_code == 200
    answer = place.plane.http.post(f"/api/environments/{copy['id']}/restore", json={"backup_id": str(final.id)})
    assert place.run(answer)["status"] == "succeeded"
    assert place.sql(copy, "SELECT option_value FROM wp_options WHERE option_name = 'blogname'") == "Kept"
