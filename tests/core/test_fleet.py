"""References, uniqueness, and what stalls what."""

from __future__ import annotations

import copy
from typing import Any
from uuid import uuid5

import pytest

from reconciler.core.entries import Document, Place, Stalled, parse
from reconciler.core.fleet import assemble
from reconciler.core.manifests import PATH_NAMESPACE, Cache
from reconciler.core.variables import Job
from tests.core import documents as d


def _stalled(documents: dict) -> dict[str, str]:
    return {item.path: item.message for item in d.fleet_of(documents).stalled}


def test_small_fleet_is_whole() -> None:
    fleet = d.fleet_of(d.small())
    assert fleet.stalled == ()
    assert [e.key for e in fleet.environments.values()] == ["acme/production"]


def test_ids_come_from_paths_and_do_not_move() -> None:
    fleet, again = d.fleet_of(d.small()), d.fleet_of(dict(reversed(d.small().items())))
    assert fleet.environments.keys() == again.environments.keys()
    assert fleet.sites_by_slug["acme"].id == uuid5(PATH_NAMESPACE, "sites/acme/site.yaml")


def test_dangling_node_stalls_that_environment_only() -> None:
    documents = d.small() | {
        "sites/shop/site.yaml": d.site(),
        "sites/shop/environments/production.yaml": d.environment("web-9"),
    }
    stalled = _stalled(documents)
    assert list(stalled) == ["sites/shop/environments/production.yaml"]
    assert "names node web-9, which no document defines" in stalled["sites/shop/environments/production.yaml"]


def test_environment_without_site_stalls() -> None:
    documents = d.small()
    del documents["sites/acme/site.yaml"]
    assert "Add sites/acme/site.yaml" in _stalled(documents)["sites/acme/environments/production.yaml"]


def test_copied_id_stalls_both_and_names_the_other() -> None:
    documents = d.small()
    documents["sites/acme/environments/production.yaml"]["metadata"] = {"id": "11111111-1111-4111-8111-111111111111"}
    copied = copy.deepcopy(documents["sites/acme/environments/production.yaml"])
    copied["spec"]["type"] = "staging"
    documents["sites/acme/environments/staging.yaml"] = copied
    stalled = _stalled(documents)
    assert set(stalled) == {"sites/acme/environments/production.yaml", "sites/acme/environments/staging.yaml"}
    assert "staging.yaml" in stalled["sites/acme/environments/production.yaml"]


def test_second_production_stalls_both() -> None:
    documents = d.small() | {"sites/acme/environments/other.yaml": d.environment()}
    assert len(_stalled(documents)) == 2


def test_two_nodes_on_one_address_stall() -> None:
    documents = d.small() | {"nodes/web-2.yaml": d.node()}
    stalled = _stalled(documents)
    assert {"nodes/web-1.yaml", "nodes/web-2.yaml"} <= set(stalled)


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        ("nodes/web-1.yaml", {"apiVersion": "trueup/v1", "kind": "Node"}, "spec: Field required"),
        ("nodes/web-1.yaml", d.node(colour="red"), "spec.colour: no such field"),
        ("nodes/web-1.yaml", d.node(address="example.com"), "spec.address"),
        ("nodes/web-1.yaml", d.site(), "kind"),
        ("nodes/web-1.yaml", "just text", "document"),
        ("nodes/Web_1.yaml", d.node(), "is no slug"),
        ("nodes/-x.yaml", d.node(), "is no slug"),
        ("nodes/deep/web-1.yaml", d.node(), "no document belongs at this path"),
        ("sites/acme/environments/production.yaml", d.environment(type="live"), "spec.type"),
        ("sites/acme/environments/production.yaml", d.environment(cache={"fastcgi": None}), "spec.cache.fastcgi"),
        ("sites/acme/site.yaml", d.site("a\nb"), "metadata.name: must not contain control"),
        ("sites/acme/site.yaml", d.site("a\u202eb"), "metadata.name: must not contain control"),
    ],
)
def test_wrong_documents_stall_with_the_field(path: str, data: object, words: str) -> None:
    problem = parse(Document(path, data, lambda _: 7))
    assert isinstance(problem, Stalled)
    assert words in problem.message


def test_line_is_that_of_the_field() -> None:
    asked: list = []
    parse(Document("nodes/web-1.yaml", d.node(colour="red"), lambda location: asked.append(location) or 9))
    assert asked == [("spec", "colour")]


def test_other_files_are_none_of_our_business() -> None:
    assert parse(Document(".github/workflows/plan.yaml", {"on": "push"}, lambda _: None)) is None


def test_unreadable_documents_leave_the_rest() -> None:
    rest = [parse(Document(path, data, lambda _: None)) for path, data in d.small().items()]
    fleet = assemble("0" * 40, [*rest, Stalled("sites/shop/site.yaml", Place(3), "not YAML")])
    assert [str(item) for item in fleet.stalled] == ["sites/shop/site.yaml:3: not YAML"]
    assert len(fleet.environments) == 1


def test_preview_url_is_kept_once_written() -> None:
    documents = d.small()
    documents["platform.yaml"] = {
        "apiVersion": "trueup/v1",
        "kind": "Platform",
        "spec": {"preview_domain": "preview.example.com"},
    }
    documents["sites/acme/environments/production.yaml"]["spec"]["preview_url"] = "http://0a1b2c3d.10-0-0-1.sslip.io"
    fleet = d.fleet_of(documents)
    environment = fleet.environments_by_key["acme/production"]
    assert fleet.preview_url(environment) == "http://0a1b2c3d.10-0-0-1.sslip.io"
    assert fleet.environment_variables(environment.id).hostnames == ("0a1b2c3d.10-0-0-1.sslip.io",)


def test_variables_that_say_something_else_have_another_digest() -> None:
    """Also where they are a copy of some whose digest was asked for before."""
    (environment,) = d.fleet_of(d.small()).environments.values()
    variables = d.fleet_of(d.small()).environment_variables(environment.id)
    digest = variables.digest()
    assert variables.model_copy(update={"job": Job(id="1", fence=1)}).digest() == digest
    assert variables.model_copy(update={"wordpress_version": "9.9"}).digest() != digest
    assert variables.model_copy().digest() == variables.digest() == digest
    assert variables.model_copy(update={"files": "locked"}) != variables


def test_a_name_leads_to_one_environment() -> None:
    documents = d.small() | {
        "sites/shop/site.yaml": d.site(),
        "sites/shop/environments/production.yaml": d.environment(domains=[{"hostname": "shop.example.com"}]),
    }
    assert _stalled(documents) == {}
    documents["sites/acme/environments/production.yaml"]["spec"]["domains"] = [{"hostname": "shop.example.com"}]
    stalled = _stalled(documents)
    assert list(stalled) == ["sites/acme/environments/production.yaml", "sites/shop/environments/production.yaml"]
    assert "also a name of sites/shop/" in stalled["sites/acme/environments/production.yaml"]
    preview = d.fleet_of(d.small()).preview_url(next(iter(d.fleet_of(d.small()).environments.values())))
    documents["sites/acme/environments/production.yaml"]["spec"]["domains"] = []
    documents["sites/shop/environments/production.yaml"]["spec"]["domains"] = [{"hostname": preview.split("/")[2]}]
    assert list(_stalled(documents)) == ["sites/shop/environments/production.yaml"]


def test_a_name_is_declared_once() -> None:
    documents = d.small()
    documents["sites/acme/environments/production.yaml"]["spec"]["domains"] = [{"hostname": "a.example.com"}] * 2
    assert "named twice" in _stalled(documents)["sites/acme/environments/production.yaml"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolvers", ["dns.example.com"]),
        ("resolvers", ["192.0.2.53:99999x"]),
        ("ca_bundle", "nonsense"),
        ("directory", "ftp://acme"),
        ("email", "nobody"),
    ],
)
def test_the_platform_says_well_where_certificates_come_from(field: str, value: object) -> None:
    platform = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"tls": {field: value}}}
    assert f"spec.tls.{field}" in _stalled(d.small() | {"platform.yaml": platform})["platform.yaml"]


def test_resources_are_the_environment_s_then_the_platform_s_and_unsaid_ones_leave_no_trace() -> None:
    def settings(platform: dict[str, int], own: dict[str, int]) -> dict[str, Any]:
        said = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"resources": platform} if platform else {}}
        spec = {"resources": own} if own else {}
        production = {"sites/acme/environments/production.yaml": d.environment(**spec)}
        fleet = d.fleet_of({**d.small(), "platform.yaml": said, **production})
        (one,) = fleet.environments
        return fleet.environment_variables(one).settings()

    assert "resources" not in settings({}, {})
    assert settings({"tasks": 99, "memory_mb": 512}, {"memory_mb": 1024})["resources"] == {
        "tasks": 99,
        "memory_mb": 1024,
    }


def test_cookies_by_which_pages_differ_are_named_and_none_leave_no_trace() -> None:
    def of(cache: dict[str, Any]) -> Any:
        production = {"sites/acme/environments/production.yaml": d.environment(cache=cache)}
        fleet = d.fleet_of({**d.small(), **production})
        (id_,) = fleet.environments
        return fleet.environment_variables(id_).settings().get("vary_cookies")

    assert of({"redis": True}) is of({"vary_cookies": []}) is None
    assert of({"vary_cookies": ["currency", "pll_language"]}) == ["currency", "pll_language"]


@pytest.mark.parametrize(
    "names", [["a-b"], [""], ["a;b"], ['a"b'], ["a$b"], ["a b"], ["a\nb"], ["a\n"], ["x", "x"], ["x" * 65]]
)
def test_a_cookie_that_nginx_cannot_tell_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="vary_cookies"):
        Cache.model_validate({"vary_cookies": names})
    with pytest.raises(ValueError, match="vary_cookies"):
        Cache.model_validate({"vary_cookies": [f"c{n}" for n in range(9)]})


def test_timeouts_of_health_checks_are_the_environment_s_then_the_platform_s_and_the_defaults_leave_no_trace() -> None:
    def of(platform: dict[str, int], own: dict[str, int]) -> tuple[int, Any]:
        said = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"health": platform} if platform else {}}
        spec = {"health": own} if own else {}
        production = {"sites/acme/environments/production.yaml": d.environment(**spec)}
        fleet = d.fleet_of({**d.small(), "platform.yaml": said, **production})
        ((id_, environment),) = fleet.environments.items()
        return fleet.health_timeout_s(environment), fleet.environment_variables(id_).settings().get("health")

    assert of({}, {}) == of({"interval_s": 60, "timeout_s": 10}, {"slow_timeout_s": 60}) == (10, None)
    assert of({"timeout_s": 20}, {}) == (20, {"timeout_s": 20})
    assert of({"timeout_s": 20}, {"timeout_s": 10, "slow_timeout_s": 90}) == (10, {"slow_timeout_s": 90})
