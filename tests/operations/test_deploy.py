"""Code released through the API: from a Git repository, from an upload; refused, caught, rolled back."""

import io
import tarfile
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.controlplane import run_git, until
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.s3 import BUCKET, S3
from tests.load import visitors
from tests.place import Place

pytestmark = pytest.mark.lab
PLUGIN = "wp-content/mu-plugins/ours.php"


def speaking(word: str) -> str:
    return f"<?php add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


@pytest.fixture(scope="module")
def server(place: Place, storage: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    gateway = place.nodes["web-1"].network.gateway
    with git_daemon(tmp_path_factory.mktemp("git"), gateway) as server:
        yaml = storage.platform() + f"  imports: {{allowed_hosts: ['{gateway}']}}\n"
        place.plane.clone.push({"platform.yaml": yaml}, "Allow the Git server")
        yield server


@pytest.fixture(scope="module")
def shop(place: Place) -> dict[str, Any]:
    return place.make_site("deployed")


def _deploy(place: Place, shop: dict[str, Any], ref: str, kind: str = "git") -> dict[str, Any]:
    body = {"source_type": kind, "source_ref": ref}
    return place.run(place.plane.http.post(f"/api/environments/{shop['id']}/deploy", json=body))


def _body(place: Place, shop: dict[str, Any]) -> str:
    host = shop["preview_url"].partition("://")[2]
    return place.node_of(shop).fetch("/", host=host, headers={"Cookie": "wordpress_no_cache=1"}).text


def _declared(place: Place, path: str = "sites/deployed/environments/production.yaml") -> str:
    run_git(place.plane.clone.path, "pull", "-q", "--rebase", "origin", "main")
    return (place.plane.clone.path / path).read_text(encoding="utf-8")


@pytest.mark.long
def test_a_branch_is_resolved_recorded_released_and_taken_back(
    place: Place, shop: dict[str, Any], server: GitServer
) -> None:
    first = server.commit("shop", {PLUGIN: speaking("one")})
    job = _deploy(place, shop, f"{server.url('shop')}#main")
    assert job["status"] == "succeeded", job
    assert "<i>one</i>" in _body(place, shop)
    assert first in _declared(place)
    released = place.plane.http.get(f"/api/environments/{shop['id']}").json()["current_release_id"]

    second = server.commit("shop", {PLUGIN: speaking("two")})
    node, host = place.node_of(shop), shop["preview_url"].partition("://")[2]
    with visitors(node.address, host) as good:
        assert _deploy(place, shop, server.url("shop"))["status"] == "succeeded"
    assert (good.failures, good.total > 20) == ([], True)
    assert "<i>two</i>" in _body(place, shop)
    assert second in _declared(place)

    server.commit("shop", {PLUGIN: "<?php no php at all"})
    before = _declared(place)
    with visitors(node.address, host, wanted="<i>two</i>") as caught:
        job = _deploy(place, shop, server.url("shop"))
    assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", "RELEASE_UNHEALTHY", 1)
    assert caught.failures == []
    print(f"requests: {good.total} during a good deploy, {caught.total} during a caught one; 0 failed")
    until(lambda: _declared(place) == before, "the declaration to be taken back", told=place.plane.log)

    _ready(place, shop)
    answer = place.plane.http.post(f"/api/environments/{shop['id']}/rollback", json={"release_id": released})
    assert place.run(answer)["status"] == "succeeded"
    assert "<i>one</i>" in _body(place, shop)
    assert first in _declared(place)
    refused = place.plane.http.post(f"/api/environments/{shop['id']}/rollback", json={"release_id": released})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


@pytest.mark.long
def test_two_rollbacks_in_a_row_step_to_older_releases(place: Place, server: GitServer) -> None:
    """By a request without a body, and by the command; what was left is bad also after a further deploy."""
    shop = place.make_site("stepping")

    def deploy(word: str) -> None:
        server.commit("stepping", {PLUGIN: speaking(word)})
        assert _deploy(place, shop, server.url("stepping"))["status"] == "succeeded"
        assert f"<i>{word}</i>" in _body(place, shop)

    for word in ("v1", "v2", "v3"):
        deploy(word)
    answer = place.plane.http.post(f"/api/environments/{shop['id']}/rollback")
    assert place.run(answer)["status"] == "succeeded"
    assert "<i>v2</i>" in _body(place, shop)
    deploy("v4")
    assert place.run(place.plane.http.post(f"/api/environments/{shop['id']}/rollback"))["status"] == "succeeded"
    assert "<i>v2</i>" in _body(place, shop)
    place.plane.command("rollback", "stepping/production")
    assert "<i>v1</i>" in _body(place, shop)
    place.plane.command("rollback", "stepping/production")
    refused = place.plane.command("rollback", "stepping/production", check=False)
    assert refused.returncode != 0
    assert "no release that is older" in refused.stderr


def _ready(place: Place, shop: dict[str, Any]) -> None:
    """Active again: by hand, where the environment is failed."""
    if place.plane.http.get(f"/api/environments/{shop['id']}").json()["status"] == "failed":
        place.plane.command("apply", "--yes", "deployed/production")


@pytest.mark.long
def test_references_that_are_refused_before_anything_is_done(
    place: Place, shop: dict[str, Any], server: GitServer
) -> None:
    server.commit("other", {PLUGIN: speaking("other")})
    for kind, ref, status, code in [
        ("git", f"{server.url('other')}#nosuch", 409, "source_unavailable"),
        ("git", f"{server.url('absent')}", 409, "source_unavailable"),
        ("git", "git://127.0.0.1/shop", 409, "source_refused"),
        ("git", "https://localhost/shop", 409, "source_refused"),
        ("git", "https://user:password@git.example.com/shop", 409, "source_refused"),
        ("git", f"{server.url('other')}#--upload-pack=x", 409, "source_refused"),
        ("git", "ext::sh -c id", 400, "invalid_request"),
        ("git", "--upload-pack=id", 400, "invalid_request"),
        ("upload", "file:///etc/passwd", 400, "invalid_request"),
        ("upload", "upload:00000000-0000-4000-8000-000000000000", 409, "source_unavailable"),
        ("upload", f"s3://{BUCKET}/nothing.tar.gz", 409, "source_unavailable"),
        ("upload", "s3://no/such/bucket", 409, "source_refused"),
    ]:
        body = {"source_type": kind, "source_ref": ref}
        answer = place.plane.http.post(f"/api/environments/{shop['id']}/deploy", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (ref, answer.text)


@pytest.mark.long
def test_a_source_that_only_names_a_part_of_itself_takes_no_plugin_away(place: Place, server: GitServer) -> None:
    """As a submodule, or in Git LFS: neither is fetched, so it is refused by name."""
    shop = place.make_site("parts")
    path, plugin = "sites/parts/environments/production.yaml", "wp-content/plugins/till"
    code = {f"{plugin}/till.php": "<?php /* Plugin Name: Till */", PLUGIN: speaking("whole")}
    there = f"/var/www/sites/{shop['id']}/current/{plugin}/till.php"
    commit = server.commit("parts", code)
    assert _deploy(place, shop, server.url("parts"))["status"] == "succeeded"
    before = _declared(place, path)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 999999\n"
    for named, files, submodules in [
        (f"{plugin}: Git submodules", {PLUGIN: speaking("x")}, {plugin: commit}),
        (f"{plugin}/till.php: in Git LFS", {**code, f"{plugin}/till.php": pointer}, {}),
    ]:
        server.commit("parts", files, submodules=submodules)
        job = _deploy(place, shop, server.url("parts"))
        assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", "SOURCE_INCOMPLETE", 1)
        assert named in job["error_message"]
        until(lambda: _declared(place, path) == before, "the declaration to be taken back", told=place.plane.log)
        assert "Plugin Name: Till" in place.node_of(shop).ssh(["cat", there]).stdout
        assert "<i>whole</i>" in _body(place, shop)
        place.plane.command("apply", "--yes", "parts/production")


@pytest.mark.long
def test_what_is_left_out_of_a_source_is_told(place: Place, shop: dict[str, Any], server: GitServer) -> None:
    left = {"index.php": "<?php", "config/app.php": "<?php", "wp-content/sunrise.php": "<?php"}
    server.commit("leftovers", {PLUGIN: speaking("leftovers"), **left})
    job = _deploy(place, shop, server.url("leftovers"))
    assert job["status"] == "succeeded", job
    names = ["config/", "index.php", "wp-content/sunrise.php"]
    told = place.plane.http.get(f"/api/jobs/{job['id']}/events").json()
    assert [one["data"] for one in told if one["kind"] == "left-out"] == [{"names": names}]
    with place.plane.opened() as home:
        assert (home.records.jobs.get(UUID(job["id"])).result or {})["left_out"] == names
    server.commit("leftovers", {PLUGIN: speaking("more of them"), **left})
    done = place.plane.command("deploy", "deployed/production", server.url("leftovers"))
    assert f"Left out of the release: {', '.join(names)}" in done.stdout


@pytest.mark.long
def test_a_project_of_composers_is_deployed_and_told_what_does_not_come_along(
    place: Place, shop: dict[str, Any], server: GitServer
) -> None:
    project = {"composer.json": "{}", "config/application.php": "<?php", "web/app/themes/.gitkeep": ""}
    server.commit("bedrock", {PLUGIN.replace("wp-content", "web/app"): speaking("project"), **project})
    done = place.plane.command("deploy", "deployed/production", server.url("bedrock"))
    assert "its web/app/ is served as wp-content" in done.stdout
    assert "Left out of the release: composer.json, config/" in done.stdout
    assert "<i>project</i>" in _body(place, shop)


def _archive(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.mark.long
def test_an_upload_is_released(place: Place, shop: dict[str, Any]) -> None:
    answer = place.plane.http.post(
        "/api/uploads",
        content=_archive({PLUGIN: speaking("uploaded")}),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == 201, answer.text
    job = _deploy(place, shop, answer.json()["source_ref"], "upload")
    assert job["status"] == "succeeded", job
    assert "<i>uploaded</i>" in _body(place, shop)
    assert answer.json()["sha256"] in _declared(place)


@pytest.mark.long
def test_an_object_is_released_by_its_etag(place: Place, shop: dict[str, Any], server: GitServer, storage: S3) -> None:
    put = storage.client.put_object(Bucket=BUCKET, Key="shop.tar.gz", Body=_archive({PLUGIN: speaking("stored")}))
    job = _deploy(place, shop, f"s3://{BUCKET}/shop.tar.gz", "upload")
    assert job["status"] == "succeeded", job
    assert "<i>stored</i>" in _body(place, shop)
    assert put["ETag"].strip('"') in _declared(place)
