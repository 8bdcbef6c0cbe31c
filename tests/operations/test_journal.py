"""A node's journal, which its administrators and log collectors read, holds no secret that a module was given."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.s3 import S3
from tests.place import Place

pytestmark = pytest.mark.lab


@pytest.mark.long
def test_a_backup_and_a_restore_leave_no_address_that_opens_the_storage(place: Place, storage: S3) -> None:
    environment = place.make_site("quiet")
    node = place.node_of(environment)
    backups = f"/api/environments/{environment['id']}/backups"
    _done(place.run(place.plane.http.post(backups, json={"backup_scope": "full"})))
    made = place.plane.http.get(backups).json()[0]
    restore = f"/api/environments/{environment['id']}/restore"
    _done(place.run(place.plane.http.post(restore, json={"backup_id": made["id"]})))
    journal = node.ssh(["journalctl", "-o", "export", "--no-pager"]).stdout
    assert environment["id"] in journal, "the journal that was read is the one of this time"
    for secret in ("X-Amz-Signature", "X-Amz-Credential", f"/{made['storage_path']}"):
        assert secret not in journal
    for module in ("backup", "restore", "environment", "core"):
        assert f"ansible-trueup.wordpress.{module}" not in journal


def _done(job: dict[str, Any]) -> None:
    assert job["status"] == "succeeded", job
