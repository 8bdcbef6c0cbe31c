"""What a pull request means, told in words, as a comment and as data."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reconciler.core.actions import KeptContent
from reconciler.core.entries import Document, Place, Stalled, parse
from reconciler.core.fleet import Fleet, assemble
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import decide
from reconciler.core.review import Item, Kind, Review, review
from reconciler.core.review.effects import _EFFECTS, outcome
from reconciler.core.review.views import MARK, markdown, review_data, text
from reconciler.core.snapshot import ExportedContent, ExportedNode, ExportedRoles, FleetSnapshot, shareable
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned

PRODUCTION = "sites/acme/environments/production.yaml"
STAGING = "sites/acme/environments/staging.yaml"
ONE, TWO = str(UUID(int=1)), str(UUID(int=2))
STORAGE = {"endpoint": "https://s3.example.com", "bucket": "backups"}


def platform(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "trueup/v1", "kind": "Platform", "spec": spec}


def base(**more: dict[str, Any]) -> dict[str, Any]:
    return {**d.small(), "platform.yaml": platform(backups=STORAGE), STAGING: d.environment(type="staging"), **more}


def observed(fleet: Fleet, **nodes: ObservedNode | Unreachable) -> FleetSnapshot:
    """Every node as ``fleet`` wants it, but for those that are given."""
    seen = []
    for node in fleet.nodes.values():
        environments = fleet.environments_by_node.get(node.slug, ())
        there = provisioned(fleet.node_variables(node.id)).model_copy(
            update={
                "environments": {str(one.id): configured(fleet.environment_variables(one.id)) for one in environments}
            }
        )
        answer = nodes.get(node.slug.replace("-", "_"), there)
        silent = answer if isinstance(answer, Unreachable) else None
        seen.append(
            ExportedNode(
                id=node.id,
                checked_at=NOW,
                observed=shareable(there if isinstance(answer, Unreachable) else answer),
                unreachable=silent,
            )
        )
    roles = ExportedRoles(node=ROLES.node, environment=ROLES.environment)
    return FleetSnapshot(trueup="0.1.0", made_at=NOW, revision="0" * 40, roles=roles, nodes=tuple(seen))


def changed(documents: dict[str, Any], before: dict[str, Any] | None = None) -> Review:
    old = d.fleet_of(before or base(), "a" * 40)
    return review(old, d.fleet_of(documents, "b" * 40), observed(old), NOW)


def only(found: Review) -> Item:
    assert len(found.items) == 1, found.items
    return found.items[0]


def facts(item: Item) -> dict[str, tuple[str | None, str]]:
    return {fact.what: (fact.before, fact.after) for fact in item.facts}


def test_nothing_changes() -> None:
    found = changed(base())
    assert (found.is_empty, found.total) == (True, "2 unchanged.")
    assert found.digest == found.plan.digest()


def test_what_a_hold_keeps_as_it_is_is_told_with_who_and_why() -> None:
    hold = {"field": "cache.redis", "owner": "Ada", "reason": "Measuring."}
    held = {"reconcile": {"holds": [hold]}}
    before, after = (
        base(**{PRODUCTION: d.environment(**held, cache={"redis": redis, "fastcgi": fastcgi})})
        for redis, fastcgi in ((True, True), (False, False))
    )
    item = only(changed(after, before))
    assert facts(item) == {"page cache": ("on", "off"), "object cache": ("on", "off")}
    note = "spec.cache.redis is held by Ada: Measuring. It stays as it is for now."
    assert (item.action, note in item.notes) == ("configure", True)
    assert "page cache" not in str(item.notes)
    alone = only(changed(base(**{PRODUCTION: d.environment(**held, cache={"redis": False})}), before))
    assert (facts(alone), alone.notes[0]) == ({"object cache": ("on", "off")}, note)


@pytest.mark.parametrize(
    ("spec", "what", "values", "action"),
    [
        ({"cache": {"fastcgi": False}}, "page cache", ("on", "off"), "configure"),
        ({"cache": {"redis": False}}, "object cache", ("on", "off"), "configure"),
        ({"php": {"memory_limit_mb": 512}}, "PHP memory_limit_mb", ("256", "512"), "configure"),
        ({"files": "locked"}, "code files", ("writable", "locked"), "configure"),
        (
            {"domains": [{"hostname": "shop.example"}, {"hostname": "old.example", "tls": False}]},
            "domains",
            ("none", "shop.example, old.example (without TLS)"),
            "configure",
        ),
        (
            {
                "release": {
                    "id": ONE,
                    "source_type": "git",
                    "source_ref": "https://g.example/a#main",
                    "revision": "f" * 40,
                }
            },
            "code",
            ("WordPress alone", f"https://g.example/a#main at {'f' * 12}"),
            "deploy",
        ),
        (
            {"release": {"id": ONE, "origin": "update", "scope": "plugins"}},
            "code",
            ("WordPress alone", "update of plugins"),
            "update",
        ),
        (
            {"content": {"id": ONE, "origin": "restore", "backup": TWO}},
            "content",
            ("new installation, “Acme”", f"backup {TWO}"),
            "restore",
        ),
        (
            {"content": {"id": ONE, "origin": "import", "archive_url": "https://old.example/a.tar.gz"}},
            "content",
            ("new installation, “Acme”", "archive https://old.example/a.tar.gz"),
            "import",
        ),
        ({"backups": {"retention_days": 7}}, "spec.backups.retention_days", ("nothing", "7"), None),
        ({"versions": {"plugins": {"akismet": "5.3"}}}, "spec.versions.plugins.akismet", ("nothing", "5.3"), None),
        ({"reconcile": {"mode": "report"}}, "spec.reconcile.mode", ("enforce", "report"), None),
    ],
)
def test_what_changes_in_an_environment(
    spec: dict[str, Any], what: str, values: tuple[str, str], action: str | None
) -> None:
    item = only(changed(base(**{PRODUCTION: d.environment(**spec)})))
    assert (item.target, item.node, item.action) == ("acme/production", "web-1", action)
    assert facts(item)[what] == values


def test_another_wordpress_with_its_release_is_told_as_versions() -> None:
    before = base(**{PRODUCTION: d.environment(wordpress={"version": "7.0"}, release={"id": ONE})})
    after = base(**{PRODUCTION: d.environment(wordpress={"version": "7.1.1"}, release={"id": TWO})})
    item = only(changed(after, before))
    assert facts(item)["WordPress"] == ("7.0", "7.1.1")
    assert facts(item)["code"] == ("WordPress alone (00000000)", "WordPress alone (00000000)")
    assert item.outcome == "applied once merged"


def test_versions_without_a_release_are_blocked() -> None:
    item = only(changed(base(**{PRODUCTION: d.environment(wordpress={"version": "7.0"})})))
    assert item.outcome.startswith("BLOCKED: Another WordPress version is another release")


def test_what_only_records_says_so() -> None:
    item = only(changed(base(**{PRODUCTION: d.environment(versions={"plugins": {"akismet": "5.3"}})})))
    assert item.outcome == "nothing is done on the node"
    assert "only records" in item.notes[0]


def test_one_line_of_platform_changes_many() -> None:
    found = changed(base(**{"platform.yaml": platform(backups=STORAGE, preview_domain="p.example.com")}))
    assert found.total == "2 environments change, 0 unchanged."
    assert [item.kind for item in found.items] == [Kind.CHANGED, Kind.CHANGED, Kind.PLATFORM]


def test_more_than_the_blast_limit_waits_for_a_person() -> None:
    platforms = {"platform.yaml": platform(backups=STORAGE, reconcile={"blast_limit": 1})}
    both = {PRODUCTION: d.environment(files="locked"), STAGING: d.environment(type="staging", files="locked")}
    found = changed(base(**platforms, **both), base(**platforms))
    assert {item.outcome for item in found.items} == {
        "waits for a person: 2 environments would change at once, more than the 1 of spec.reconcile.blast_limit"
    }
    one = changed(base(**platforms, **{PRODUCTION: d.environment(files="locked")}), base(**platforms))
    assert only(one).outcome == "applied once merged"


def test_more_nodes_than_their_limit_wait_for_a_person() -> None:
    platforms = {"platform.yaml": platform(backups=STORAGE, reconcile={"node_blast_limit": 1})}
    two = base(**platforms, **{"nodes/web-2.yaml": d.node("10.0.0.2")})
    redis = {"redis": {"memory_percent": 20}}
    both = {"nodes/web-1.yaml": d.node(**redis), "nodes/web-2.yaml": d.node("10.0.0.2", **redis)}
    found = changed({**two, **both}, two)
    assert [(item.kind, item.outcome) for item in found.items] == [
        (
            Kind.NODE,
            "waits for a person: 2 nodes would change at once, more than the 1 of spec.reconcile.node_blast_limit",
        )
    ] * 2
    # What platform.yaml changes of nodes is told beside the documents that change, and is held just so.
    newer = platform(backups=STORAGE, reconcile={"node_blast_limit": 1}, wordpress={"version": "7.0.1"})
    told = [(step.action.target, outcome(step)) for step in changed({**two, "platform.yaml": newer}, two).pending]
    held = "waits: 2 nodes would change at once, more than the 1 of spec.reconcile.node_blast_limit"
    assert told == [("web-1", held), ("web-2", held)]
    one = changed({**two, "nodes/web-1.yaml": both["nodes/web-1.yaml"]}, two)
    assert only(one).outcome == "applied once merged"


def test_production_comes_after_staging() -> None:
    both = {PRODUCTION: d.environment(files="locked"), STAGING: d.environment(type="staging", files="locked")}
    notes = {item.target: item.notes for item in changed(base(**both)).items}
    assert notes["acme/production"] == (
        "Where one commit changes both, it waits until acme/staging is applied and healthy.",
    )
    assert notes["acme/staging"] == ()
    assert only(changed(base(**{PRODUCTION: d.environment(files="locked")}))).notes == ()


def test_created_left_and_unchanged() -> None:
    documents = base(**{"sites/acme/environments/test.yaml": d.environment(type="staging")})
    del documents[STAGING]
    found = changed(documents)
    assert found.total == "1 is created, 1 is no longer looked after, 1 unchanged."
    created, left = found.items
    assert (created.kind, created.target, created.effect.downtime) == (
        Kind.CREATED, "acme/test", "none: nobody visits it yet"
    )  # fmt: skip
    assert (left.kind, left.target, left.outcome) == (Kind.LEFT, "acme/staging", "left on its node")
    assert "go on being served" in left.notes[0]
    assert "trueup remove acme/staging" in left.notes[1]


def test_what_comes_back_is_said_to_be_there() -> None:
    without = base()
    del without[STAGING]
    old = d.fleet_of(without, "a" * 40)
    item = only(review(old, d.fleet_of(base(), "b" * 40), observed(d.fleet_of(base())), NOW))
    assert item.kind is Kind.CREATED
    assert item.notes == ("It is on its node already: it is looked after again, its content stays.",)


@pytest.mark.parametrize(
    ("content", "backup"),
    [
        ({"origin": "import", "archive_url": "https://a.example/a.tar.gz"}, "full, before anything is brought"),
        ({"origin": "restore", "backup": TWO}, "full, before anything is brought"),
        ({"origin": "clone", "source_environment": TWO}, "NONE is taken: make one first with `trueup backup create`"),
    ],
)
def test_content_that_is_replaced_is_loud_and_last(content: dict[str, Any], backup: str) -> None:
    documents = base(
        **{
            PRODUCTION: d.environment(content={"id": ONE, **content}),
            STAGING: d.environment(type="staging", cache={"redis": False}),
        }
    )
    found = changed(documents)
    assert [item.kind for item in found.items] == [Kind.CHANGED, Kind.REPLACED]
    assert found.total == "1 environment changes, 1 loses its content, 0 unchanged."
    assert (found.items[1].effect.backup, bool(found.items[1].effect.destroys)) == (backup, True)
    for shown in (text(found), markdown(found)):
        assert shown.index("acme/staging") < shown.index("acme/production")
        assert "GONE afterwards" in shown
    assert "#### ⚠️ Look twice" in markdown(found)


def test_a_promotion_keeps_what_is_protected() -> None:
    content = {"id": ONE, "origin": "promote", "source_environment": TWO}
    item = only(changed(base(**{PRODUCTION: d.environment(content=content)})))
    assert (item.kind, item.action, item.effect.destroys) == (Kind.CHANGED, "promote", None)
    assert "younger than 60 minutes" in item.effect.backup


def test_a_promotion_says_what_was_chosen() -> None:
    chosen = {"include": [f"option:o{n}" for n in range(12)], "exclude": ["plugin:hats"]}
    content = {"id": ONE, "origin": "promote", "source_environment": TWO, **chosen}
    item = only(changed(base(**{PRODUCTION: d.environment(content=content)})))
    told = [after for _, after in facts(item).values() if "promotion of" in after]
    assert len(told) == 1
    assert told[0].endswith(", option:o9 and 2 more, without plugin:hats")
    assert ", only option:o0, option:o1" in told[0]


def test_without_storage_what_needs_a_backup_is_told_to_fail() -> None:
    bare = {**base(), "platform.yaml": platform()}
    after = {**bare, PRODUCTION: d.environment(release={"id": ONE, "origin": "update"})}
    item = only(changed(after, bare))
    assert any("no storage for backups" in note for note in item.notes)
    assert any("rehearsed on a copy" in note for note in item.notes)
    assert item.effect.backup == "full, after the rehearsal and before the switch"


def test_what_expires_is_destroyed() -> None:
    ends = (NOW + timedelta(days=1)).isoformat()
    found = changed(base(**{STAGING: d.environment(type="staging", expires_at=ends)}))
    assert found.total == "1 is destroyed, 1 unchanged."
    assert "REMOVED at 2026-11-23 12:00" in only(found).notes[0]
    past = (NOW - timedelta(days=1)).isoformat()
    assert (
        "within the hour" in only(changed(base(**{STAGING: d.environment(type="staging", expires_at=past)}))).notes[0]
    )


def test_what_no_longer_expires_is_not_destroyed() -> None:
    ends = (NOW + timedelta(days=1)).isoformat()
    item = only(changed(base(), base(**{STAGING: d.environment(type="staging", expires_at=ends)})))
    assert item.kind is Kind.CHANGED


def test_an_environment_that_moves_is_blocked() -> None:
    nodes = {"nodes/web-2.yaml": d.node("10.0.0.2")}
    item = only(changed(base(**nodes, **{PRODUCTION: d.environment(node="web-2")}), base(**nodes)))
    assert facts(item)["node"] == ("web-1", "web-2")
    assert item.outcome == "BLOCKED: acme/production is on node web-1. Set spec.node back to web-1."


def test_nodes() -> None:
    found = changed(base(**{"nodes/web-1.yaml": d.node(concurrency=2), "nodes/web-2.yaml": d.node("10.0.0.2")}))
    assert found.total == "2 nodes change, 2 unchanged."
    assert {item.target: item.outcome for item in found.items} == {
        "web-1": "nothing is done on it",
        "web-2": "nothing is done on it",
    }
    redis = only(changed(base(**{"nodes/web-1.yaml": d.node(redis={"memory_percent": 20})})))
    assert (redis.action, redis.outcome) == ("provision", "applied once merged")
    left = only(changed(base(), base(**{"nodes/web-2.yaml": d.node("10.0.0.2")})))
    assert (left.target, left.outcome) == ("web-2", "left alone")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Unreachable(since=NOW, reason="no route"), "node web-1 did not answer"),
        (None, "node web-1 was never asked"),
    ],
)
def test_what_is_not_known_is_said_to_be_unknown(answer: Any, words: str) -> None:
    old, new = d.fleet_of(base()), d.fleet_of(base(**{PRODUCTION: d.environment(cache={"redis": False})}))
    snapshot = observed(old, web_1=answer) if answer else observed(old).model_copy(update={"nodes": ()})
    assert words in only(review(old, new, snapshot, NOW)).outcome
    without = review(old, new, None, NOW)
    assert (only(without).outcome, without.digest) == ("not known: there is no observation", None)


def test_a_failed_environment_is_said_to_be_left_alone() -> None:
    old, new = d.fleet_of(base()), d.fleet_of(base(**{PRODUCTION: d.environment(cache={"redis": False})}))
    failed = observed(old).model_copy(update={"failed": (old.environments_by_key["acme/production"].id,)})
    assert "Its last job failed" in only(review(old, new, failed, NOW)).notes[0]


def test_a_broken_document_is_neither_gone_nor_planned() -> None:
    documents = base()
    documents[PRODUCTION] = d.environment(typo=1)
    found = changed(documents)
    assert found.total == "1 document cannot be used, 1 unchanged."
    assert (only(found).target, found.digest) == (PRODUCTION, None)
    assert "spec.typo: no such field" in markdown(found)
    repaired = changed(base(), documents)
    assert (only(repaired).kind, only(repaired).notes[0]) == (Kind.CHANGED, "Its document could not be used before.")


def test_what_is_due_anyway_is_apart() -> None:
    old, drifted = (
        d.fleet_of(base()),
        d.fleet_of(base(**{STAGING: d.environment(type="staging", cache={"redis": False})})),
    )
    new = d.fleet_of(base(**{PRODUCTION: d.environment(cache={"fastcgi": False})}))
    found = review(old, new, observed(drifted), NOW)
    assert only(found).target == "acme/production"
    assert [step.action.target for step in found.pending] == ["acme/staging"]
    for shown in (text(found), markdown(found)):
        assert "without this change" in shown


def test_every_action_that_a_plan_may_hold_has_an_effect() -> None:
    from typing import get_args

    from reconciler.core.actions import BACKED_UP, Desired, ProvisionNode, UpdateWordPress

    assert _EFFECTS.keys() == {*get_args(Desired), ProvisionNode}
    backed_up = {kind for kind, effect in _EFFECTS.items() if effect.backup.startswith("full")}
    assert backed_up == {*BACKED_UP, UpdateWordPress}


# The comment


def test_the_same_change_to_many_is_told_once() -> None:
    many = {f"sites/s{number}/site.yaml": d.site() for number in range(30)}
    before = {f"sites/s{number}/environments/production.yaml": d.environment(php={}) for number in range(30)}
    after = {path: d.environment(php={"max_children": 9}) for path in before}
    found = changed(base(**many, **after), base(**many, **before))
    shown = markdown(found)
    assert found.total == "30 environments change, 2 unchanged."
    assert shown.count("<details>") == 1
    assert "<b>Change</b> 30 environments" in shown
    assert "and 18 more" in shown


@pytest.mark.parametrize("count", [400, 3000])
def test_a_comment_has_room_for_what_is_loud(count: int) -> None:
    many = {f"sites/s{number}/site.yaml": d.site() for number in range(count)}
    before = {f"sites/s{number}/environments/production.yaml": d.environment() for number in range(count)}
    after = {
        path: d.environment(content={"id": str(UUID(int=number)), "title": f"{number}é" * 20})
        for number, path in enumerate(before)
    }
    documents = base(**many, **after)
    del documents[STAGING]
    found = changed(documents, base(**many, **before))
    shown = markdown(found)
    assert len(shown) < 65_000
    assert "NO LONGER LOOKED AFTER** `acme/staging`" in shown
    assert str(found.digest) in shown
    shown_items = shown.count("<summary><b>Change</b>")
    assert f"… and {count - shown_items} more, which do not fit here" in shown
    assert shown.count("<details>") == shown.count("</details>")
    assert text(found).count("\nChange s") == count


def test_more_that_is_loud_than_fits_is_counted() -> None:
    count = 2000
    many = {f"sites/s{number}/site.yaml": d.site() for number in range(count)}
    before = {f"sites/s{number}/environments/production.yaml": d.environment() for number in range(count)}
    found = changed(base(**many), base(**many, **before))
    shown = markdown(found)
    assert len(shown) < 65_000
    assert f"**{count} are no longer looked after" in shown.replace(", 2 unchanged", "")
    assert f"… and {count - shown.count('NO LONGER LOOKED AFTER')} more" in shown


class _Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[Any] = []
        self.outside_code = ""
        self._code = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self._code += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.outside_code += data


OURS = {"h3", "h4", "p", "strong", "details", "summary", "b", "table", "thead", "tbody", "tr", "th", "td", "code", "ul",
        "li", "hr", "sub", "br"}  # fmt: skip
HOSTILE = [
    "`</code><script>alert(1)</script>",
    "a | b | c\n| - |",
    "@everyone #1 GH-1 !2 :tada:",
    "</details>\n\n# Heading\n\n![x](https://evil.example/x.png)",
    "<!-- -->\n```\n~~~",
    "[a](javascript:alert(1)) <https://evil.example> www.evil.example a@evil.example",
    "**bold** _em_ ~~del~~ \\` &lt;b&gt;",
    "\x1b[31mred\x07\u202etxt\u200b\u2028",
    "$$x$$ $`y`$ - [ ] task",
]


def _hostile(value: str) -> Review:
    """The value wherever a document, a node or a broken file may bring one."""
    documents = base(
        **{
            PRODUCTION: d.environment(
                content={"id": ONE, "title": "x"},
                release={"id": ONE, "source_type": "git", "source_ref": value},
                versions={"plugins": {value: value}},
                reconcile={"mode": "paused", "reason": value[:200] or "x"},
            ),
            STAGING: d.environment(type="staging", content={"id": TWO, "origin": "restore", "backup": TWO}),
        }
    )
    old = d.fleet_of(base())
    new = d.fleet_of(documents)
    whole = parse(Document("platform.yaml", documents["platform.yaml"], lambda _: None))
    entries = [whole, *new.nodes.values(), *new.sites.values(), *new.environments.values()]
    broken = assemble("b" * 40, [*entries, Stalled(f"sites/{value}.yaml", Place(1, 2), f"key {value} is here twice")])
    held = observed(old)
    node = held.nodes[0]
    assert node.observed
    held = held.model_copy(
        update={"nodes": (node.model_copy(update={"observed": node.observed.model_copy(update={"hold": value})}),)}
    )
    return review(old, broken, held, NOW)


def _harmless(value: str) -> None:
    found = _hostile(value)
    assert {item.kind for item in found.items} >= {Kind.BROKEN, Kind.CHANGED, Kind.REPLACED}
    shown = markdown(found)
    assert shown.startswith(MARK)
    assert "\x1b" not in shown + text(found)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(shown)
    elements = _Elements(html)
    assert elements.tags <= OURS, elements.tags - OURS
    assert elements.attributes == []
    assert not re.search(r"@\w|#\d|!\d|https?://|:[\w+-]+:", elements.outside_code)
    lines = text(found).splitlines()
    assert sum(line.startswith(("Change", "!!! ")) for line in lines) == len(found.items)
    json.dumps(review_data(found))


@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_hostile_is_shown_and_does_nothing(value: str) -> None:
    _harmless(value)


@settings(max_examples=60, deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs"]) | st.sampled_from("`|<>@#[]()*_~\\\n&:!-"), min_size=1, max_size=80
    )
)
def test_so_is_anything_else(value: str) -> None:
    _harmless(value)


# As data


def test_data_has_the_shape_that_is_documented() -> None:
    found = changed(base(**{PRODUCTION: d.environment(cache={"fastcgi": False})}))
    told = review_data(found)
    assert set(told) == {"format", "base", "head", "digest", "total", "observed", "changes", "pending", "plan"}
    assert (told["format"], told["base"], told["head"]) == (1, "a" * 40, "b" * 40)
    assert told["digest"] == told["plan"]["digest"] == found.digest
    assert told["total"]["changed"] == 1
    (change,) = told["changes"]
    assert change["facts"] == [{"what": "page cache", "before": "on", "after": "off"}]


def test_a_revert_is_told_beforehand_with_its_backup() -> None:
    left, there = ({"content": {"id": id_, "origin": "install"}} for id_ in (ONE, TWO))
    production = "sites/acme/environments/production.yaml"
    now, then = (base() | {production: d.environment(**spec)} for spec in (there, left))
    old, head = d.fleet_of(now, "a" * 40), d.fleet_of(then, "b" * 40)
    environment = old.environments_by_key["acme/production"]
    node = provisioned(old.node_variables(old.nodes_by_slug["web-1"].id))
    seen = configured(old.environment_variables(environment.id))
    assert seen.applied
    seen = seen.model_copy(update={"applied": seen.applied.model_copy(update={"contents": (ONE, TWO)})})
    others = {
        str(one.id): configured(old.environment_variables(one.id))
        for one in old.environments.values()
        if one.id != environment.id
    }
    answer = node.model_copy(update={"environments": {**others, str(environment.id): seen}})
    snapshot = observed(old, web_1=answer)

    unknown = only(review(old, head, snapshot, NOW))
    assert "no full backup has it any more" in unknown.outcome
    kept = ExportedContent(environment_id=environment.id, content_id=UUID(ONE), backup_id=UUID(int=9), taken_at=NOW)
    found = review(old, head, snapshot.model_copy(update={"kept": (kept,)}), NOW)
    item = only(found)
    assert (item.kind, item.action) == (Kind.REPLACED, "return")
    assert f"go back to backup {UUID(int=9)}" in item.notes[0]
    assert "trueup apply acme/production --confirm" in item.outcome
    whole = decide(head, {"web-1": answer}, ROLES, NOW, kept=lambda _e, _c: KeptContent(UUID(int=9), NOW))
    assert found.digest == whole.digest()
