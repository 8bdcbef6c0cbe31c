"""Operations become edits or conflicts, and the same intent gives the same edit again."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from pydantic import ValidationError

from reconciler.core.entries import Document, Entry, parse
from reconciler.core.errors import Conflict, NoNodeAvailable, NotFound
from reconciler.core.intents import AddNode, CreateSite, RemoveEnvironment, RemoveSite, SetCache, evaluate
from reconciler.core.status import EnvironmentStatus
from tests.core import documents as d
from tests.core.fake_node import NOW

ID = UUID("3f2a9c1e-4b7d-4a11-8c55-0123456789ab")


def _create(slug: str = "shop", name: str = "Shop", **more: object) -> CreateSite:
    ids = dict.fromkeys(("site_id", "release_id", "content_id", "environment_id"), ID)
    return CreateSite.model_validate({"name": name, "slug": slug, **ids, **more})


def test_create_site_writes_two_valid_documents() -> None:
    edit = evaluate(_create(name='{{ 7*7 }} $(id) "x"'), d.fleet_of(d.small()), {}, NOW)
    assert set(edit.create) == {"sites/shop/site.yaml", "sites/shop/environments/production.yaml"}
    parsed = [parse(Document(path, data, lambda _: None)) for path, data in edit.create.items()]
    assert all(isinstance(entry, Entry) for entry in parsed)
    spec = edit.create["sites/shop/environments/production.yaml"]["spec"]
    assert spec["preview_url"] == "http://3f2a9c1e.10-0-0-1.sslip.io"
    assert spec["content"]["title"] == '{{ 7*7 }} $(id) "x"'


def test_create_site_again_is_the_same_edit() -> None:
    fleet = d.fleet_of(d.small())
    assert evaluate(_create(), fleet, {}, NOW) == evaluate(_create(), fleet, {}, NOW)


def test_create_site_goes_to_the_emptiest_node() -> None:
    fleet = d.fleet_of(d.small() | {"nodes/web-0.yaml": d.node("10.0.0.3"), "nodes/web-2.yaml": d.node("10.0.0.2")})
    spec = evaluate(_create(), fleet, {}, NOW).create["sites/shop/environments/production.yaml"]["spec"]
    assert spec["node"] == "web-0"


@pytest.mark.parametrize("state", ["decommissioned", None])
def test_create_site_needs_an_active_node(state: str | None) -> None:
    documents = d.small()
    if state:
        documents["nodes/web-1.yaml"]["spec"]["state"] = state
    else:
        del documents["nodes/web-1.yaml"]
    with pytest.raises(NoNodeAvailable, match="trueup node add"):
        evaluate(_create(), d.fleet_of(documents), {}, NOW)


def test_taken_slug_conflicts_even_where_its_document_is_stalled() -> None:
    documents = d.small() | {"sites/shop/environments/production.yaml": d.environment("web-9")}
    for slug in ("acme", "shop"):
        with pytest.raises(Conflict, match="Choose another slug"):
            evaluate(_create(slug), d.fleet_of(documents), {}, NOW)


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a..b", "../x", "{{x}}", "$(id)", "é", "a\n", "a" * 64])
def test_wrong_slugs_are_refused(slug: str) -> None:
    with pytest.raises(ValidationError):
        _create(slug)


def test_set_cache_assigns_only_what_was_named() -> None:
    fleet = d.fleet_of(d.small())
    environment = fleet.environments_by_key["acme/production"]
    edit = evaluate(SetCache(environment_id=environment.id, fastcgi=False), fleet, {}, NOW)
    assert edit.assign == {environment.path: {("spec", "cache", "fastcgi"): False}}
    assert edit.message == "Switch FastCGI cache off for acme/production"


def test_set_cache_of_a_failed_environment_conflicts() -> None:
    fleet = d.fleet_of(d.small())
    environment = fleet.environments_by_key["acme/production"]
    intent = SetCache(environment_id=environment.id, redis=True)
    evaluate(intent, fleet, {environment.id: EnvironmentStatus.DEPLOYING}, NOW)
    with pytest.raises(Conflict, match="failed"):
        evaluate(intent, fleet, {environment.id: EnvironmentStatus.FAILED}, NOW)


def test_set_cache_of_nothing_known() -> None:
    with pytest.raises(NotFound):
        evaluate(SetCache(environment_id=ID, redis=True), d.fleet_of(d.small()), {}, NOW)


def test_stalled_environment_conflicts_with_its_line() -> None:
    documents = d.small()
    documents["sites/acme/environments/production.yaml"]["spec"]["node"] = "web-9"
    fleet = d.fleet_of(documents)
    environment = fleet.environments_by_key["acme/production"]
    with pytest.raises(Conflict, match=r"production.yaml:1: .*web-9"):
        evaluate(SetCache(environment_id=environment.id, redis=True), fleet, {}, NOW)


def test_add_node_refuses_a_second_name_for_one_host() -> None:
    node = {"node_id": ID, "name": "web-2", "address": "10.0.0.1", "port": 22, "user": "root", "host_key": d.HOST_KEY}
    with pytest.raises(Conflict, match="web-1"):
        evaluate(AddNode.model_validate(node), d.fleet_of(d.small()), {}, NOW)
    edit = evaluate(AddNode.model_validate(node | {"address": "10.0.0.2"}), d.fleet_of(d.small()), {}, NOW)
    assert isinstance(parse(Document("nodes/web-2.yaml", edit.create["nodes/web-2.yaml"], lambda _: None)), Entry)


def test_paused_environment_conflicts_until_the_pause_ends() -> None:
    documents = d.small()
    reconcile = {"mode": "paused", "reason": "christmas", "until": "2026-11-22T12:00:00Z"}
    documents["sites/acme/environments/production.yaml"]["spec"]["reconcile"] = reconcile
    fleet = d.fleet_of(documents)
    intent = SetCache(environment_id=fleet.environments_by_key["acme/production"].id, redis=True)
    with pytest.raises(Conflict, match="paused \\(christmas\\)"):
        evaluate(intent, fleet, {}, NOW - timedelta(seconds=1))
    evaluate(intent, fleet, {}, NOW)


# Removal


def _copied() -> dict[str, object]:
    production = d.fleet_of(d.small()).environments_by_key["acme/production"]
    staging = d.environment(type="staging", source_environment=str(production.id))
    return d.small() | {"sites/acme/environments/staging.yaml": staging}


def test_a_copy_is_removed_by_its_document_alone() -> None:
    fleet = d.fleet_of(_copied())
    staging = fleet.environments_by_key["acme/staging"]
    edit = evaluate(RemoveEnvironment(environment_id=staging.id), fleet, {staging.id: EnvironmentStatus.FAILED}, NOW)
    assert edit.delete == {"sites/acme/environments/staging.yaml"}
    assert (edit.create, edit.assign) == ({}, {})
    with pytest.raises(Conflict, match="is cloning"):
        evaluate(RemoveEnvironment(environment_id=staging.id), fleet, {staging.id: EnvironmentStatus.CLONING}, NOW)


def test_what_others_were_made_from_stays_until_they_are_gone() -> None:
    documents = _copied()
    staging = d.fleet_of(documents).environments_by_key["acme/staging"]
    second = d.environment(type="clone", source_environment=str(staging.id))
    documents["sites/acme/environments/second.yaml"] = second
    with pytest.raises(Conflict, match="acme/second was made from"):
        evaluate(RemoveEnvironment(environment_id=staging.id), d.fleet_of(documents), {}, NOW)


def test_production_goes_with_its_site_alone_and_only_when_confirmed() -> None:
    fleet = d.fleet_of(_copied())
    site, production = fleet.sites_by_slug["acme"], fleet.environments_by_key["acme/production"]
    with pytest.raises(Conflict, match="goes with its site alone"):
        evaluate(RemoveEnvironment(environment_id=production.id), fleet, {}, NOW)
    for confirm in (None, "", "acme2"):
        with pytest.raises(Conflict, match="confirm=acme"):
            evaluate(RemoveSite(site_id=site.id, confirm=confirm), fleet, {}, NOW)
    edit = evaluate(RemoveSite(site_id=site.id, confirm="acme"), fleet, {}, NOW)
    assert edit.delete == {
        "sites/acme/site.yaml",
        "sites/acme/environments/production.yaml",
        "sites/acme/environments/staging.yaml",
    }


def test_a_site_with_a_document_that_stalls_stays() -> None:
    fleet = d.fleet_of(_copied() | {"sites/acme/environments/odd.yaml": d.environment("web-9", type="clone")})
    with pytest.raises(Conflict, match="Correct the document first"):
        evaluate(RemoveSite(site_id=fleet.sites_by_slug["acme"].id, confirm="acme"), fleet, {}, NOW)


def test_production_never_expires() -> None:
    def entry(type_: str) -> object:
        document = d.environment(type=type_, expires_at="2026-12-24T12:00:00Z")
        return parse(Document("sites/acme/environments/try.yaml", document, lambda _: None))

    assert isinstance(entry("staging"), Entry)
    assert "goes with its site alone" in str(entry("production"))
