"""What each operation writes into the documents, what refuses it, and how it is taken back."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import pytest

from reconciler.core import views
from reconciler.core.entries import Document, EnvironmentEntry, parse
from reconciler.core.errors import Conflict, NotFound
from reconciler.core.fleet import Fleet
from reconciler.core.intents import (
    AddDomain,
    Adopt,
    CreateEnvironment,
    Deploy,
    Discard,
    Edit,
    ImportSite,
    Intent,
    Promote,
    RecordVersions,
    RemoveDomain,
    Restore,
    Rollback,
    SearchReplace,
    Update,
    evaluate,
    stay,
    take_back,
)
from reconciler.core.manifests import Release
from reconciler.core.plan import decide
from reconciler.core.status import EnvironmentStatus
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned

NEW, OTHER = UUID("3f2a9c1e-4b7d-4a11-8c55-0123456789ab"), UUID("3f2a9c1e-4b7d-4a11-8c55-0123456789ac")
PATH = "sites/acme/environments/production.yaml"


def _documents() -> dict[str, Any]:
    source = str(d.fleet_of(d.small()).environments_by_key["acme/production"].id)
    staging = d.environment(type="staging", source_environment=source)
    return d.small() | {"sites/acme/environments/staging.yaml": staging}


def _fleet() -> Fleet:
    return d.fleet_of(_documents())


def _id(key: str = "acme/production") -> UUID:
    return _fleet().environments_by_key[key].id


def _intents() -> dict[str, Intent]:
    both = {"release_id": NEW, "content_id": OTHER}
    return {
        "deploy": Deploy(environment_id=_id(), release_id=NEW, source_type="git", source_ref="https://g.example/a#v1"),
        "rollback": Rollback(environment_id=_id(), release=Release(id=NEW), wordpress_version="6.5.5"),
        "update": Update(environment_id=_id(), release_id=NEW, scope="all"),
        "adopt": Adopt(environment_id=_id(), release_id=NEW),
        "discard": Discard(environment_id=_id(), release_id=NEW),
        "import": ImportSite(environment_id=_id(), archive_url="https://old.example.com/a.tar.gz", **both),
        "restore": Restore(environment_id=_id(), backup_id=NEW, scope="full", **both),
        "promote": Promote(environment_id=_id("acme/staging"), target_environment_id=_id(), **both),
    }


def _applied(edit: Edit, documents: dict[str, Any] | None = None) -> Fleet:
    """The fleet once the edit is committed; every document must still be a good one."""
    documents = documents or _documents()
    for path, document in edit.create.items():
        documents[path] = dict(document)
    for path, fields in edit.assign.items():
        for keys, value in fields.items():
            level = documents[path]
            for key in keys[:-1]:
                level = level.setdefault(key, {})
            level[keys[-1]] = value
    for path, gone in edit.unset.items():
        for keys in gone:
            level = documents[path]
            for key in keys[:-1]:
                level = level[key]
            level.pop(keys[-1], None)
    fleet = d.fleet_of(documents)
    assert fleet.stalled == ()
    return fleet


def test_a_copy_says_where_it_came_from() -> None:
    documents = _documents()
    documents[PATH]["spec"]["release"] = {
        "id": str(OTHER),
        "source_type": "git",
        "source_ref": "https://g.example/a#v1",
    }
    fleet = d.fleet_of(documents)
    site = fleet.sites_by_slug["acme"]
    ids = {"environment_id": NEW, "release_id": NEW, "content_id": OTHER}
    intent = CreateEnvironment(site_id=site.id, name="Try", slug="try", type="clone", **ids)
    after = _applied(evaluate(intent, fleet, {}, NOW), documents).environments[NEW].manifest.spec
    assert after.content
    assert (after.content.origin, after.content.source_environment) == ("clone", _id())
    assert after.release
    assert (after.release.origin, after.release.made_from) == ("clone", _id())
    assert after.release.source_ref == "https://g.example/a#v1"
    assert (after.source_environment, after.node) == (_id(), "web-1")
    assert after.preview_url == "http://3f2a9c1e.10-0-0-1.sslip.io"


@pytest.mark.parametrize(
    ("change", "match"),
    [({"type": "production"}, "has its production"), ({"slug": "staging"}, "Choose another slug")],
)
def test_copies_that_cannot_be(change: dict[str, str], match: str) -> None:
    fleet = _fleet()
    ids = {"site_id": fleet.sites_by_slug["acme"].id, "environment_id": NEW, "release_id": NEW, "content_id": OTHER}
    fields: dict[str, Any] = {**ids, "name": "Try", "slug": "try", "type": "clone", **change}
    with pytest.raises(Conflict, match=match):
        evaluate(CreateEnvironment.model_validate(fields), fleet, {}, NOW)


def test_a_copy_of_another_sites_environment_is_refused() -> None:
    documents = _documents() | {"sites/beta/site.yaml": d.site("Beta")}
    fleet = d.fleet_of(documents)
    ids = {"site_id": fleet.sites_by_slug["beta"].id, "environment_id": NEW, "release_id": NEW, "content_id": OTHER}
    intent = CreateEnvironment(**ids, name="Try", slug="try", type="clone", source_environment_id=_id())
    with pytest.raises(NotFound, match="beta"):
        evaluate(intent, fleet, {}, NOW)


@pytest.mark.parametrize("name", ["deploy", "rollback", "update", "import", "restore", "promote"])
def test_each_gives_new_ids_and_is_taken_back(name: str) -> None:
    before = _fleet()
    after = _applied(evaluate(_intents()[name], before, {}, NOW))
    was, said = before.environments[_id()], after.environments[_id()]
    assert after.release_id(said) == NEW
    assert (after.content_id(said) == OTHER) == (name in {"import", "restore", "promote"})
    edit = take_back(was, said, said, "it failed")
    assert edit is not None
    back = _applied(edit, _as_documents(after)).environments[_id()]
    assert back.manifest.spec == was.manifest.spec


def _as_documents(fleet: Fleet) -> dict[str, Any]:
    documents = _documents()
    for entry in fleet.environments.values():
        documents[entry.path] = entry.manifest.model_dump(mode="json", exclude_none=True)
    return documents


def test_a_replaced_text_is_new_content_alone_and_is_taken_back() -> None:
    before = _fleet()
    texts = {"search": "Acme “Ltd”", "replace": "#: {{ x }}", "groups": ("content",)}
    edit = evaluate(SearchReplace(environment_id=_id(), content_id=OTHER, **texts), before, {}, NOW)
    assert edit.message == "Replace “Acme “Ltd”” by “#: {{ x }}” in acme/production"
    after = _applied(edit)
    was, said = before.environments[_id()], after.environments[_id()]
    assert (after.content_id(said), after.release_id(said)) == (OTHER, before.release_id(was))
    variables = after.environment_variables(_id()).content
    told = variables.model_dump(mode="json")
    assert told.items() >= {**texts, "groups": ["content"], "origin": "search-replace"}.items()
    # What an environment was told before there was this is what it is told now.
    later = {"search", "replace", "tables", "groups", "guid", "include", "exclude"}
    assert not later & before.environment_variables(_id()).settings()["content"].keys()
    back = take_back(was, said, said, "it failed")
    assert back is not None
    assert _applied(back, _as_documents(after)).environments[_id()].manifest.spec == was.manifest.spec


@pytest.mark.parametrize("texts", [("a", "b"), ("ab", "ab"), ("a\nb", "c"), ("  ", "c"), ("x" * 1001, "c")])
def test_documents_with_texts_that_make_no_sense_stall(texts: tuple[str, str]) -> None:
    documents = _documents()
    content = {"id": str(NEW), "origin": "search-replace", "search": texts[0], "replace": texts[1]}
    documents[PATH]["spec"]["content"] = content
    assert PATH in [stalled.path for stalled in d.fleet_of(documents).stalled]


def test_what_was_declared_since_is_not_taken_back() -> None:
    before = _fleet()
    declared = _applied(evaluate(_intents()["deploy"], before, {}, NOW))
    newer = Deploy(environment_id=_id(), release_id=OTHER, source_type="git", source_ref="https://g.example/a#v2")
    now = _applied(evaluate(newer, declared, {}, NOW))
    entries = [fleet.environments[_id()] for fleet in (before, declared, now)]
    assert take_back(*entries, "it failed") is None


@pytest.mark.parametrize("status", ["deploying", "restoring", "cloning", "failed"])
@pytest.mark.parametrize("name", ["deploy", "rollback", "update", "import", "restore", "promote"])
def test_a_busy_or_failed_environment_takes_none(name: str, status: str) -> None:
    with pytest.raises(Conflict, match=status):
        evaluate(_intents()[name], _fleet(), {_id(): EnvironmentStatus(status)}, NOW)


def test_nothing_is_promoted_from_production_or_into_another_site() -> None:
    upside_down = Promote(
        environment_id=_id(), target_environment_id=_id("acme/staging"), release_id=NEW, content_id=OTHER
    )
    with pytest.raises(Conflict, match="staging or a clone"):
        evaluate(upside_down, _fleet(), {}, NOW)


def test_versions_are_recorded_only_for_the_release_that_they_are_of() -> None:
    after = _applied(evaluate(_intents()["update"], _fleet(), {}, NOW))
    recorded = RecordVersions(
        environment_id=_id(), release_id=NEW, wordpress_version="7.1.1", plugins={"sample": "2.0"}, themes={}
    )
    edit = evaluate(recorded, after, {}, NOW)
    assert edit.assign[PATH][("spec", "versions")] == {"plugins": {"sample": "2.0"}, "themes": {}}
    assert evaluate(recorded, _fleet(), {}, NOW).assign == {}


@pytest.mark.parametrize("name", ["adopt", "discard"])
def test_a_release_that_is_made_of_the_served_one_keeps_where_its_code_came_from(name: str) -> None:
    documents = _documents()
    source = {"source_type": "git", "source_ref": "https://g.example/a#v1", "revision": "ab12"}
    documents[PATH]["spec"]["release"] = {"id": str(OTHER), **source}
    edit = evaluate(_intents()[name], d.fleet_of(documents), {}, NOW)
    declared = {"id": str(NEW), **source, "origin": name, "made_from": str(OTHER)}
    assert edit.assign == {PATH: {("spec", "release"): declared}}


@pytest.mark.parametrize("name", ["update", "adopt"])
def test_what_has_its_versions_recorded_is_not_taken_back(name: str) -> None:
    before = _fleet()
    declared = _applied(evaluate(_intents()[name], before, {}, NOW))
    versions = RecordVersions(
        environment_id=_id(), release_id=NEW, wordpress_version="7.1.1", plugins={"sample": "2.0"}, themes={}
    )
    now = _applied(evaluate(versions, declared, {}, NOW), _as_documents(declared))
    entries = [fleet.environments[_id()] for fleet in (before, declared, now)]
    assert take_back(*entries, "its worker was lost") is None


@pytest.mark.parametrize(
    "name", ["deploy", "rollback", "import", "restore", "promote", "adopt", "update", "discard", "restore a database"]
)
def test_other_code_has_no_recorded_versions(name: str) -> None:
    """But for the next update's, until it says what it resulted in; a database brings no code."""
    documents = _documents()
    documents[PATH]["spec"]["versions"] = {"plugins": {"sample": "2.0"}, "themes": {}}
    before = d.fleet_of(documents)
    database = Restore(environment_id=_id(), backup_id=NEW, scope="db", release_id=NEW, content_id=OTHER)
    after = _applied(evaluate({**_intents(), "restore a database": database}[name], before, {}, NOW), documents)
    was, said = before.environments[_id()], after.environments[_id()]
    kept = name in {"update", "discard", "restore a database"}
    assert dict(said.manifest.spec.versions.plugins) == ({"sample": "2.0"} if kept else {})
    edit = take_back(was, said, said, "it failed")
    assert edit is not None
    back = _applied(edit, _as_documents(after)).environments[_id()]
    assert back.manifest.spec.versions == was.manifest.spec.versions


def test_with_nothing_to_update_the_former_release_is_declared_again() -> None:
    declared = _applied(evaluate(_intents()["update"], _fleet(), {}, NOW))
    edit = stay(declared.environments[_id()], Release(id=OTHER, source_type="git", source_ref="https://g.example/a#v1"))
    assert declared.environments[_id()].key in edit.message
    assert edit.assign[PATH][("spec", "release")] == {
        "id": str(OTHER),
        "source_type": "git",
        "source_ref": "https://g.example/a#v1",
    }


def test_the_plan_says_what_an_update_will_do() -> None:
    fleet = _applied(evaluate(_intents()["update"], _fleet(), {}, NOW))
    node, before = fleet.nodes_by_slug["web-1"], _fleet().environment_variables(_id())
    there = provisioned(fleet.node_variables(node.id)).model_copy(
        update={"environments": {before.id: configured(before)}}
    )
    plan = decide(fleet, {"web-1": there}, ROLES, NOW).only(frozenset({"acme/production"}))
    for told in (views.text(plan), views.markdown(plan)):
        assert "Brings WordPress itself, plugins and themes to what the mirror offers" in told
        assert "rehearsed on a copy" in told


def test_domains_come_and_go() -> None:
    added = _applied(
        evaluate(AddDomain(environment_id=_id(), domain_id=NEW, hostname="shop.example.com"), _fleet(), {}, NOW)
    )
    again = AddDomain(environment_id=_id("acme/staging"), domain_id=OTHER, hostname="shop.example.com")
    with pytest.raises(Conflict, match="acme/production"):
        evaluate(again, added, {}, NOW)
    same = AddDomain(environment_id=_id(), domain_id=OTHER, hostname="shop.example.com")
    repeated = _applied(evaluate(same, added, {}, NOW), _as_documents(added))
    assert list(repeated.domains) == [NEW], "asked for again, it is tried again and stays what it was"
    assert [one.hostname for one in added.environment_variables(_id()).domains] == ["shop.example.com"]
    removed = _applied(evaluate(RemoveDomain(domain_id=NEW), added, {}, NOW), _as_documents(added))
    assert removed.domains == {}
    with pytest.raises(NotFound):
        evaluate(RemoveDomain(domain_id=NEW), removed, {}, NOW)


def test_the_preview_address_of_an_environment_is_nobodys_domain() -> None:
    fleet = _fleet()
    host = fleet.preview_url(fleet.environments[_id()]).partition("://")[2]
    with pytest.raises(Conflict, match="preview address"):
        evaluate(AddDomain(environment_id=_id("acme/staging"), domain_id=NEW, hostname=host), fleet, {}, NOW)


@pytest.mark.parametrize(
    ("origin", "field"), [("clone", "source_environment"), ("import", "archive_url"), ("restore", "backup")]
)
def test_content_says_where_it_came_from(origin: str, field: str) -> None:
    documents = _documents()
    documents[PATH]["spec"]["content"] = {"id": str(NEW), "origin": origin}
    entry = parse(Document(PATH, documents[PATH], lambda _: None))
    assert field in str(entry)
    assert not isinstance(entry, EnvironmentEntry)


def test_ids_of_domains_may_be_left_out() -> None:
    documents = _documents()
    documents[PATH]["spec"]["domains"] = [{"hostname": "shop.example.com"}]
    fleet = d.fleet_of(documents)
    assert list(fleet.domains) == [uuid5(_id(), "shop.example.com")]
