"""Environments and sites go, each backed up first, through the API; nothing goes without a backup."""

from typing import Any

import pytest

from reconciler.secret_store import Secrets
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
    assert len(set(found)) == 1, found
    return found[0]


def _delete(place: Place, path: str, **query: str) -> Any:
    return place.plane.http.delete(f"/api/{path}", params=query)


FULL = {"database.sql.zst", "files.tar.zst", "manifest.json"}


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
