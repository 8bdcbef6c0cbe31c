"""What a promotion moves, and what it never touches."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.errors import BackupGateUnmet, DriftGateUnmet
from reconciler.core.promotion import Checked, Comparison, Evidence, checked, differences, is_drift, refuse_unmet
from reconciler.core.promotion_selection import SELECTOR, brings_code
from tests.playbooks.node_modules import load

baselines = load("promotion.baseline")
presets = load("promotion.presets")
references = load("promotion.references")
selection = load("promotion.selection")
threeway = load("promotion.threeway")

PROTECTED = ["posts", "postmeta", "terms", "term_taxonomy", "term_relationships", "termmeta"]
PROTECTED += ["comments", "commentmeta", "users", "usermeta"]
COMMERCE = ["wc_orders", "wc_orders_meta", "wc_order_stats", "wc_order_addresses", "woocommerce_order_items"]
COMMERCE += ["woocommerce_order_itemmeta", "wc_customer_lookup", "wc_product_meta_lookup", "woocommerce_sessions"]
COMMERCE += ["woocommerce_payment_tokens", "woocommerce_payment_tokenmeta", "wc_download_log"]
COMMERCE += ["woocommerce_downloadable_product_permissions"]
UNKNOWN = [
    "actionscheduler_actions",
    "actionscheduler_logs",
    "yoast_indexable",
    "gf_entry",
    "wc_webhooks",
    "options_backup",
    "2_options",
    "",
]
PREFIXES = st.sampled_from(["wp_", "shop_", "x7Q_wp_"])
SIDES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"))


@given(PREFIXES)
def test_tables_of_each_preset_under_any_prefix(prefix: str) -> None:
    for name in PROTECTED + UNKNOWN:
        assert not presets.is_written(prefix + name, "content-protect", prefix), name
        assert not presets.is_written(prefix + name, "commerce-protect", prefix), name
    for name in COMMERCE:
        assert presets.is_written(prefix + name, "content-protect", prefix), name
        assert not presets.is_written(prefix + name, "commerce-protect", prefix), name
    for name in ("options", "links", "woocommerce_tax_rates"):
        assert presets.is_written(prefix + name, "commerce-protect", prefix), name


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_0123456789"))
def test_a_table_that_no_list_knows_is_protected(name: str) -> None:
    known = name in presets.SETTINGS or name in PROTECTED
    if not known:
        assert not presets.is_written(f"wp_{name}", "commerce-protect")
    assert not presets.is_written(f"other{name}", "content-protect", "wp_")


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="no preset"):
        presets.is_written("wp_options", "everything")


@pytest.mark.parametrize(
    "name",
    [
        *("siteurl", "home", "blog_public", "cron", "rewrite_rules", "recovery_keys", "fresh_site", "db_version"),
        *(
            "_transient_feed",
            "_site_transient_update_core",
            "woocommerce_db_version",
            "trueup_login",
            "core_updater.lock",
        ),
        *("wc_pending_batch_processes", "wc_blocks_version", "jetpack_offline_mode"),
        *(
            "user_count",
            "recovery_mode_auth_key",
            "secure_auth_salt",
            "abc_paused_extensions",
            "https_detection_errors",
            "sticky_posts",
            "product_cat_children",
        ),
    ],
)
def test_options_that_never_move(name: str) -> None:
    assert presets.is_ignored("wp_options", name)
    assert not presets.is_ignored("wp_links", name)


def test_an_option_that_the_target_declares_never_moves() -> None:
    assert presets.is_ignored("wp_options", "blogname", {"blogname"})
    assert not presets.is_ignored("wp_links", "blogname", {"blogname"})


@pytest.mark.parametrize(
    "name", ["blogname", "home_page", "active_plugins", "wp_user_roles", "widget_text", "cronometer"]
)
def test_options_that_people_change(name: str) -> None:
    assert not presets.is_ignored("wp_options", name)


def test_each_case_of_the_three_way_rule() -> None:
    baseline = {"same": "1", "moved": "1", "stays": "1", "both": "1", "agreed": "1", "gone": "1", "gone-here": "1"}
    source = {"same": "1", "moved": "2", "stays": "1", "both": "2", "agreed": "9", "new": "5", "gone-here": "1"}
    target = {"same": "1", "moved": "1", "stays": "2", "both": "3", "agreed": "9", "gone": "1", "new-here": "6"}
    compared = threeway.compare(baseline, source, target)
    assert compared.moves == ("gone", "moved", "new")
    assert compared.stays == ("gone-here", "new-here", "stays")
    assert compared.conflicts == ("both",)
    assert compared.counts() == {"moves": 3, "stays": 3, "conflicts": 1}


@given(SIDES, SIDES, SIDES)
def test_nothing_that_only_the_target_changed_is_lost(baseline: dict, source: dict, target: dict) -> None:
    result = threeway.merged(threeway.compare(baseline, source, target), source, target)
    for key in {*baseline, *target}:
        if target.get(key) != baseline.get(key):
            assert result.get(key) == target.get(key)


@given(SIDES, SIDES, SIDES)
def test_everything_that_only_the_source_changed_arrives(baseline: dict, source: dict, target: dict) -> None:
    result = threeway.merged(threeway.compare(baseline, source, target), source, target)
    for key in {*baseline, *source}:
        if target.get(key) == baseline.get(key):
            assert result.get(key) == source.get(key)


@given(SIDES, SIDES, SIDES)
def test_a_second_comparison_moves_nothing(baseline: dict, source: dict, target: dict) -> None:
    first = threeway.compare(baseline, source, target)
    after = threeway.merged(first, source, target)
    second = threeway.compare(threeway.advanced(baseline, source, after), source, after)
    assert (second.moves, second.stays, second.conflicts) == ((), first.stays, first.conflicts)


@given(SIDES, SIDES)
def test_sides_that_agree_have_no_differences(baseline: dict, source: dict) -> None:
    assert threeway.compare(baseline, source, dict(source)) == threeway.Comparison((), (), ())


@given(SIDES, SIDES, SIDES, SIDES)
def test_after_a_promotion_the_target_may_move_on_alone(base: dict, source: dict, target: dict, later: dict) -> None:
    after = threeway.merged(threeway.compare(base, source, target), source, target)
    moved_on = threeway.advanced(base, source, after)
    agreed = {key for key in {*source, *after} if source.get(key) == after.get(key)}
    changed = {**after, **{key: value for key, value in later.items() if key in agreed}}
    assert not set(threeway.compare(moved_on, source, changed).conflicts) & agreed


NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def _minutes_ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def _evidence(**other: Any) -> Evidence:
    good: dict[str, Any] = {
        "source": "shop/staging",
        "target": "shop/production",
        "target_id": "t",
        "check": Checked(_minutes_ago(5), "t", ()),
        "last_change": _minutes_ago(6),
        "backup_at": _minutes_ago(59.9),
    }
    return Evidence(**{**good, **other})


def test_a_promotion_whose_gates_are_met_is_let_through() -> None:
    refuse_unmet(_evidence(), NOW)
    refuse_unmet(_evidence(last_change=None), NOW)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"check": None}, "not compared"),
        ({"check": Checked(_minutes_ago(5), None, ())}, "not compared"),
        ({"check": Checked(_minutes_ago(5), "another", ())}, "not compared"),
        ({"last_change": _minutes_ago(5)}, "changed after"),
        ({"last_change": _minutes_ago(1)}, "changed after"),
        ({"check": Checked(_minutes_ago(5), "t", ("wp_options: blogname",))}, "both changed wp_options: blogname"),
        ({"check": Checked(_minutes_ago(5), "t", tuple(map(str, range(25))))}, "and 5 more"),
        ({"check": None, "backup_at": None}, "not compared"),
    ],
)
def test_the_drift_gate(other: dict[str, Any], said: str) -> None:
    with pytest.raises(DriftGateUnmet, match=said):
        refuse_unmet(_evidence(**other), NOW)


@pytest.mark.parametrize("backup_at", [None, _minutes_ago(60), _minutes_ago(6000)])
def test_the_backup_gate(backup_at: datetime | None) -> None:
    with pytest.raises(BackupGateUnmet, match="younger than 60 minutes"):
        refuse_unmet(_evidence(backup_at=backup_at), NOW)


def test_what_a_check_keeps_is_what_the_gate_reads() -> None:
    def part(**keys: list[str]) -> dict[str, Any]:
        named = {"moves": [], "stays": [], "conflicts": [], **keys}
        return {"counts": {kind: len(found) for kind, found in named.items()}, **named}

    comparison = {
        "written": {"wp_options": part(moves=["a"], conflicts=["b"])},
        "code": part(stays=["plugins/x.php"]),
        "protected": {"wp_posts": {"source": 1, "target": 2}},
    }
    found = differences(Comparison.model_validate(comparison), "t")
    assert found[0]["counts"] == {
        "wp_options": {"moves": 1, "stays": 0, "conflicts": 1},
        "files": {"moves": 0, "stays": 1, "conflicts": 0},
    }
    assert checked(NOW, found) == Checked(NOW, "t", ("wp_options: b",))
    assert [one["field"] for one in found if is_drift(one)] == ["content wp_options: b"]
    assert is_drift({"field": "spec.release", "desired": "a", "observed": "b"})
    assert checked(NOW, ()).target is None


MODS = (
    b'a:5:{s:18:"custom_css_post_id";i:727;s:11:"custom_logo";s:2:"31";s:5:"color";s:6:"#12345";'
    b's:18:"nav_menu_locations";a:2:{s:7:"primary";i:4;s:6:"footer";i:0;}s:5:"count";i:9;}'
)


@pytest.mark.parametrize(
    ("option", "value", "posts", "terms"),
    [
        ("page_on_front", b"12", {12}, set()),
        ("page_on_front", b"0", set(), set()),
        ("woocommerce_checkout_page_id", b" 8\n", {8}, set()),
        ("site_icon", b"", set(), set()),
        ("default_category", b"3", set(), {3}),
        ("default_term_genre", b"5", set(), {5}),
        ("theme_mods_ours", MODS, {727, 31}, {4}),
        ("theme_mods_ours", b'a:1:{s:18:"custom_css_post_id";i:-1;}', set(), set()),
        ("nav_menu_options", b'a:1:{s:8:"auto_add";a:1:{i:0;i:5;}}', set(), {5}),
        ("widget_nav_menu", b'a:1:{i:2;a:2:{s:5:"title";s:1:"x";s:8:"nav_menu";i:6;}}', set(), {6}),
        ("blogname", b"12", set(), set()),
        ("posts_per_page", b"10", set(), set()),
        ("page_on_front", b"9" * 40, set(), set()),
        ("theme_mods_broken", b's:11:"custom_logo";i:', set(), set()),
    ],
)
def test_the_posts_and_terms_that_an_option_names(option: str, value: bytes, posts: set[int], terms: set[int]) -> None:
    assert references.named(option, value) == (posts, terms)


def test_an_option_that_is_held_is_told_and_no_drift() -> None:
    part = {"counts": {}, "moves": (), "stays": (), "conflicts": ()}
    found = {"written": {}, "code": part, "held": ["page_on_front"], "protected": {}}
    _, told = differences(Comparison.model_validate(found), "target")
    assert told["field"] == "content wp_options: page_on_front"
    assert "not the same in the target" in told["cause"]
    assert not is_drift(told)


@pytest.mark.parametrize(
    ("include", "exclude", "chosen", "left"),
    [
        ([], [], ["files: themes/a/b.css", "wp_options: active_plugins", "wp_links: 1", "wp_unknown: 1"], []),
        (
            ["option:blogname"],
            [],
            ["wp_options: blogname"],
            ["wp_options: other", "files: plugins/a/a.php", "wp_links: 1", "wp_unknown: 1"],
        ),
        (
            ["plugin:a"],
            [],
            ["files: plugins/a/a.php"],
            ["files: plugins/b/b.php", "files: themes/a/a.css", "wp_options: active_plugins", "wp_options: a"],
        ),
        (
            [],
            ["plugin:a"],
            ["files: plugins/b/b.php", "files: themes/a/a.css", "wp_options: a", "wp_options: stylesheet"],
            ["files: plugins/a/a.php", "wp_options: active_plugins"],
        ),
        (
            ["group:options"],
            ["option:blogname"],
            ["wp_options: other"],
            ["wp_options: blogname", "wp_options: stylesheet", "wp_options: active_plugins", "files: plugins/a/a.php"],
        ),
        (["group:options", "option:stylesheet"], [], ["wp_options: stylesheet"], ["wp_options: template"]),
        (
            [],
            ["group:code", "group:taxes"],
            ["wp_options: other", "wp_woocommerce_shipping_zones: 1"],
            ["wp_woocommerce_tax_rates: 1", "wp_wc_tax_rate_classes: x", "files: a", "wp_options: stylesheet"],
        ),
        (["plugin:a"], ["group:code"], ["files: plugins/a/a.php"], ["files: plugins/b/b.php"]),
        ([], ["group:orders"], ["wp_options: x"], ["wp_wc_orders: 1", "wp_woocommerce_order_items: 1"]),
    ],
)
def test_the_more_specific_word_wins(
    include: list[str], exclude: list[str], chosen: list[str], left: list[str]
) -> None:
    found = selection.Selection(include, exclude)
    assert [one for one in (*chosen, *left) if found.has(*one.split(": ", 1))] == chosen
    assert found.has_code == brings_code(include, exclude)


def test_every_table_that_may_be_written_is_in_a_group() -> None:
    tables = ["wp_" + name for name in (*presets.SETTINGS, *COMMERCE)]
    every = selection.Selection([f"group:{name}" for name in (*selection.GROUPS, selection.CODE)])
    assert [table for table in tables if not every.has_table(table)] == []
    assert all(re.fullmatch(SELECTOR, f"group:{name}") for name in (*selection.GROUPS, selection.CODE))


def test_a_row_whose_other_half_cannot_move_is_told_with_the_reason_and_no_drift() -> None:
    part = {"counts": {}, "moves": (), "stays": (), "conflicts": ()}
    stay = {
        "table": "wp_woocommerce_tax_rates",
        "key": "7",
        "why": "it needs tax class that the target lacks: zero\x1b[2J",
    }
    found = {"written": {}, "code": part, "paired": [stay], "made": ["wp_forms"], "protected": {}}
    _, told, made = differences(Comparison.model_validate(found), "target")
    assert (told["field"], told["content"]) == ("content wp_woocommerce_tax_rates: 7", "stays")
    assert told["cause"].startswith("it needs tax class that the target lacks: zero")
    assert "\x1b" not in told["cause"]
    assert (made["field"], made["content"]) == ("content wp_forms", "moves")
    assert not is_drift(told)
    assert not is_drift(made)


def test_a_tax_class_is_known_by_its_slug() -> None:
    """A baseline from before knows it by its number: what both have the same is no difference."""
    assert presets.is_written("wp_wc_tax_rate_classes", "commerce-protect")
    columns = ["tax_rate_class_id", "name", "slug"]
    shape = baselines.Shape("wp_wc_tax_rate_classes", columns, ("tax_rate_class_id",), "InnoDB")
    assert (shape.key, shape.columns) == (("slug",), ("name", "slug"))
    other = baselines.Shape("wp_wc_tax_rate_classes", ["id", "name"], ("id",), "InnoDB")
    assert (other.key, other.columns) == (("id",), ("id", "name")), "another plugin's table of this name"
    assert threeway.compare({"1": "a"}, {"zero": "b"}, {"zero": "b"}) == threeway.Comparison((), (), ())
