"""Halves that mean nothing alone move together, or stay and are told: as data, then in a real MariaDB."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.exploded import DIRECTORY, exploded
from tests.playbooks.node_modules import load

pairs = load("promotion.pairs")
halves = load("promotion.halves")
presets = load("promotion.presets")
merge = load("promotion.merge")

RATE, OTHER, PLACE = ("rates", "1"), ("rates", "2"), ("places", "1")
CLASS, LATER = ("classes", "reduced"), ("classes", "zero")
NEEDS, OTHERS_NEED = {RATE: {"reduced"}}, {OTHER: {"reduced"}}
REDUCED, BY_ANOTHER = {CLASS: {("reduced", "reduced")}}, {LATER: {("reduced", "reduced")}}
LACKED = "it needs tax class that the target lacks: reduced"
NEEDED = "a tax rate of the target needs it: reduced"
TAKEN = "the target has its own tax class of this name: reduced"


def _reading(**given: Any) -> Any:
    pair = pairs.Pair("a tax rate", "tax class", None, ())
    empty: dict[str, Any] = {"needs_there": {}, "needs_here": {}, "brings_there": {}, "brings_here": {}}
    return pairs.Reading(**{"pair": pair, **empty, "makeable": frozenset(), **given})


CASES = {
    "the other half is there": (NEEDS, {}, REDUCED, REDUCED, {RATE}, {}),
    "both move": (NEEDS, {}, REDUCED, {}, {RATE, CLASS}, {}),
    "the other half does not move": (NEEDS, {}, REDUCED, {}, {RATE}, {RATE: LACKED}),
    "the source has no other half": (NEEDS, {}, {}, {}, {RATE}, {}),
    "it was half in the target before": (NEEDS, NEEDS, REDUCED, {}, {RATE}, {}),
    "what the target needs would go": ({}, OTHERS_NEED, {}, REDUCED, {CLASS}, {CLASS: NEEDED}),
    "what needs it goes, too": ({}, NEEDS, {}, REDUCED, {RATE, CLASS}, {}),
    "the target has one of this name": ({}, {}, REDUCED, BY_ANOTHER, {CLASS}, {CLASS: TAKEN}),
    "the one of this name goes": ({}, {}, REDUCED, BY_ANOTHER, {CLASS, LATER}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_both_halves_or_neither(case: str) -> None:
    needs_there, needs_here, brings_there, brings_here, moving, stays = CASES[case]
    reading = _reading(
        needs_there=needs_there, needs_here=needs_here, brings_there=brings_there, brings_here=brings_here
    )
    assert pairs.decide([reading], moving, moving) == (stays, set())


def test_what_needs_something_that_stays_stays() -> None:
    rates = _reading(needs_there=NEEDS, brings_there=REDUCED)
    places = _reading(needs_there={PLACE: {"1"}}, brings_there={RATE: {("1", "1")}})
    stays, _ = pairs.decide([places, rates], {RATE, PLACE}, {RATE, PLACE})
    assert stays.keys() == {RATE, PLACE}


def test_a_conflict_whose_other_half_cannot_move_is_none() -> None:
    stays, _ = pairs.decide([_reading(needs_there=NEEDS, brings_there=REDUCED)], {RATE}, set())
    assert stays == {RATE: LACKED}


def test_tables_that_can_be_made_hold_nothing() -> None:
    active = ("wp_options", "active_plugins")
    given = {
        "needs_there": {active: {"old.php", "new.php"}},
        "needs_here": {active: {"old.php"}},
        "brings_there": {(name, None): {("new.php", name)} for name in ("wp_a", "wp_b")},
    }
    whole, half = _reading(**given, makeable={"wp_a", "wp_b"}), _reading(**given, makeable={"wp_a"})
    assert pairs.decide([whole], {active}, {active}) == ({}, {"wp_a", "wp_b"})
    stays, made = pairs.decide([half], {active}, {active})
    assert (list(stays), made) == ([active], set())


TABLES = ["wp_options", "wp_ours_settings", "wp_ours_log_2", "wp_many_forms", "wp_other_things", "wp_our_own"]
CODE = {
    "says its tables": ("x/x.php", {"x/x.php": "'ours_settings'"}, {"wp_ours_settings"}),
    "says them with the prefix": ("x/x.php", {"x/in/y.php": "wp_other_things"}, {"wp_other_things"}),
    "says what they begin with": ("x/x.php", {"x/x.inc": '"{$wpdb->prefix}ours_{$it}"'}, {TABLES[1], TABLES[2]}),
    "is called so": ("our-own/main.php", {"our-own/main.php": ""}, {"wp_our_own"}),
    "is called like what they begin with": ("many.php", {"many.php": ""}, {"wp_many_forms"}),
    "is one file": ("x.php", {"x.php": "other_things"}, {"wp_other_things"}),
    "says parts of other words": ("x/x.php", {"x/x.php": "colours_settings not_other_things_x"}, set()),
    "says them elsewhere": ("x/x.php", {"x/x.js": "ours_settings", "y/y.php": "ours_settings"}, set()),
    "is another directory": ("../x.php", {"x.php": "ours_settings"}, set()),
}


@pytest.mark.parametrize("case", CODE)
def test_a_plugin_has_the_tables_that_its_code_names(tmp_path: Path, case: str) -> None:
    plugin, files, found = CODE[case]
    for name, code in files.items():
        file = tmp_path / "plugins" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    assert halves.named_by(str(tmp_path), {plugin}, TABLES).get(plugin, set()) == found


def test_names_of_tables_without_end_make_one_look_at_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site has 500 tables of 30 underscores each, and code in which none is; names that are no words are paid for."""
    (tmp_path / "plugins" / "x").mkdir(parents=True)
    code = tmp_path / "plugins" / "x" / "x.php"
    code.write_text("a_a_a_a_ " * 100_000 + " wp_there t-1")
    deep = [f"wp_{'a_' * 29}{n}" for n in range(500)]
    sought = halves._Sought(deep)
    assert sought.looks == 1
    assert sought.said_in(code.read_bytes()) == {*deep}
    monkeypatch.setattr(halves, "MOST_CODE", 2 * code.stat().st_size)
    assert halves.named_by(str(tmp_path), {"x/x.php"}, ["wp_there", "wp_t-1"]) == {"x/x.php": {"wp_there", "wp_t-1"}}
    odd = ["wp_there", *(f"wp_t-{n}" for n in range(2))]
    assert halves.named_by(str(tmp_path), {"x/x.php"}, odd) == {"x/x.php": set()}


def test_a_table_that_a_plugin_brings_along_takes_its_room_once(monkeypatch: pytest.MonkeyPatch) -> None:
    root = SimpleNamespace(rows=lambda _: [("wp_options", str(1 << 20)), ("wp_ours_log", str(4 << 30))])
    monkeypatch.setattr(merge.sql, "root", lambda: root)
    free = (4 << 30) + (3 << 20)
    monkeypatch.setattr(merge.room, "lacking", lambda wanted, _: max(wanted.values()) > free and (1, 1))
    tables = ["wp_options", "wp_ours_log"]
    merge.refuse_without_room("wp_0123456789ab", tables, ("wp_ours_log",))
    with pytest.raises(merge.Failure, match="need"):
        merge.refuse_without_room("wp_0123456789ab", tables)


def test_no_link_of_a_plugin_is_followed(tmp_path: Path) -> None:
    (tmp_path / "plugins" / "x").mkdir(parents=True)
    (tmp_path / "secret.php").write_text("ours_settings")
    (tmp_path / "plugins" / "x" / "x.php").symlink_to(tmp_path / "secret.php")
    (tmp_path / "plugins" / "linked.php").symlink_to(tmp_path / "secret.php")
    found = halves.named_by(str(tmp_path), {"x/x.php", "linked.php", "gone/gone.php", "gone.php"}, TABLES)
    assert set().union(*found.values()) == set()


def test_classes_that_an_option_lists() -> None:
    assert list(halves.lines("", "Reduced rate\r\n Größe_2 \n\n!?".encode())) == ["reduced-rate", "groe-2"]


@pytest.mark.parametrize(
    ("table", "preset", "filled"),
    [
        ("wp_forms", "commerce-protect", True),
        ("wp_woocommerce_tax_rates", "commerce-protect", True),
        ("wp_wc_orders", "commerce-protect", False),
        ("wp_wc_orders", "content-protect", True),
        ("wp_actionscheduler_actions", "content-protect", False),
        ("wp_gf_entry", "commerce-protect", False),
        ("wp_mail_queue", "commerce-protect", False),
        ("wp_catalogue", "commerce-protect", True),
        ("wp_posts", "content-protect", False),
        ("other", "content-protect", False),
    ],
)
def test_which_tables_come_with_their_rows(table: str, preset: str, filled: bool) -> None:
    assert presets.comes_with_rows(table, preset) is filled


KEY = "paired/production"
COMMON = """
CREATE TABLE wp_options (option_id INT AUTO_INCREMENT PRIMARY KEY, option_name VARCHAR(191) UNIQUE, option_value TEXT);
CREATE TABLE wp_posts (ID INT PRIMARY KEY, guid VARCHAR(255), post_type VARCHAR(20), post_status VARCHAR(20), post_name
    VARCHAR(200));
CREATE TABLE wp_terms (term_id INT PRIMARY KEY, slug VARCHAR(200));
CREATE TABLE wp_term_taxonomy (term_taxonomy_id INT PRIMARY KEY, term_id INT, taxonomy VARCHAR(32));
CREATE TABLE wp_term_relationships (object_id INT, term_taxonomy_id INT, PRIMARY KEY (object_id, term_taxonomy_id));
CREATE TABLE wp_woocommerce_tax_rates (tax_rate_id INT PRIMARY KEY, tax_rate VARCHAR(8), tax_rate_class VARCHAR(200));
CREATE TABLE wp_woocommerce_tax_rate_locations (location_id INT PRIMARY KEY, location_code VARCHAR(9), tax_rate_id INT);
CREATE TABLE wp_wc_tax_rate_classes (tax_rate_class_id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(200),
    slug VARCHAR(191) UNIQUE);
CREATE TABLE wp_woocommerce_attribute_taxonomies (attribute_id INT PRIMARY KEY, attribute_name VARCHAR(200),
    attribute_label VARCHAR(200));
CREATE TABLE wp_woocommerce_shipping_zones (zone_id INT PRIMARY KEY, zone_name VARCHAR(200));
CREATE TABLE wp_woocommerce_shipping_zone_locations (location_id INT PRIMARY KEY, zone_id INT);
CREATE TABLE wp_woocommerce_shipping_zone_methods (instance_id INT PRIMARY KEY, zone_id INT, method_id VARCHAR(20));
INSERT INTO wp_wc_tax_rate_classes VALUES (1, 'Reduced', 'reduced');
INSERT INTO wp_woocommerce_tax_rates VALUES (1, '7', 'reduced'), (2, '19', '');
INSERT INTO wp_woocommerce_attribute_taxonomies VALUES (1, 'size', 'Size');
INSERT INTO wp_woocommerce_shipping_zones VALUES (1, 'Home');
INSERT INTO wp_terms VALUES (1, 'large'), (2, 'main');
INSERT INTO wp_term_taxonomy VALUES (1, 1, 'pa_size'), (2, 2, 'nav_menu');
INSERT INTO wp_posts VALUES (20, 'http://a/?p=20', 'nav_menu_item', 'publish', '20');
INSERT INTO wp_term_relationships VALUES (20, 2);
INSERT INTO wp_options (option_name, option_value) VALUES ('active_plugins', 'a:0:{}'), ('theme_mods_x', 'a:0:{}');
"""
ITEM = "INSERT INTO wp_posts VALUES (21, 'http://b/?p=21', 'nav_menu_item', 'publish', '21');"
ITEM += "INSERT INTO wp_term_relationships VALUES (21, 2);"
LOCATED = 'a:1:{s:18:"nav_menu_locations";a:1:{s:7:"primary";i:2;}}'
LOCATE = f"UPDATE wp_options SET option_value = '{LOCATED}' WHERE option_name = 'theme_mods_x';"
ACTIVE = 'a:1:{i:0;s:8:"ours.php";}'
ACTIVATE = f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins';"
NEW_CLASS = "INSERT INTO wp_wc_tax_rate_classes VALUES (7, 'Zero', 'zero');"
NEW_RATE = "INSERT INTO wp_woocommerce_tax_rates VALUES (3, '0', 'zero');"
NEW_PLACE = "INSERT INTO wp_woocommerce_tax_rate_locations VALUES (1, 'DE', 3);"
NEW_ATTRIBUTE = "INSERT INTO wp_woocommerce_attribute_taxonomies VALUES (2, 'color', 'Color');"
NEW_TERM = "INSERT INTO wp_terms VALUES (3, 'red'); INSERT INTO wp_term_taxonomy VALUES (3, 3, 'pa_color');"
FORMS = "CREATE TABLE wp_ours_forms (id INT PRIMARY KEY);"
RATES, PLACES = "wp_woocommerce_tax_rates", "wp_woocommerce_tax_rate_locations"
CLASSES, ATTRIBUTES = "wp_wc_tax_rate_classes", "wp_woocommerce_attribute_taxonomies"
ZONES, METHODS = "wp_woocommerce_shipping_zones", "wp_woocommerce_shipping_zone_methods"
MODS, ACTIVE_PLUGINS = "wp_options theme_mods_x", "wp_options active_plugins"
SIDES = {
    "a class and its rate": (NEW_CLASS + NEW_RATE + NEW_PLACE, "", [], []),
    "a class that the target made itself": (
        NEW_CLASS + NEW_RATE + NEW_PLACE,
        "INSERT INTO wp_wc_tax_rate_classes VALUES (2, 'Zero', 'zero');",
        [],
        [],
    ),
    "a rate whose class the target removed": (
        "UPDATE wp_woocommerce_tax_rates SET tax_rate_class = 'reduced' WHERE tax_rate_id = 2;"
        "INSERT INTO wp_woocommerce_tax_rate_locations VALUES (1, 'DE', 2);",
        "DELETE FROM wp_wc_tax_rate_classes; DELETE FROM wp_woocommerce_tax_rates WHERE tax_rate_id = 1;",
        [f"{RATES} 2"],
        [],
    ),
    "a rate without the table of classes": (
        NEW_CLASS + NEW_RATE + NEW_PLACE,
        "DROP TABLE wp_wc_tax_rate_classes;",
        [f"{PLACES} 1", f"{RATES} 3"],
        [],
    ),
    "a class in an option": (
        "DROP TABLE wp_wc_tax_rate_classes; INSERT INTO wp_woocommerce_tax_rates VALUES (3, '0', 'zero-rate');"
        "INSERT INTO wp_options (option_name, option_value) VALUES ('woocommerce_tax_classes', 'Zero Rate');",
        "DROP TABLE wp_wc_tax_rate_classes;",
        [],
        [],
    ),
    "a class that went, with a rate of the target": (
        "DELETE FROM wp_wc_tax_rate_classes; DELETE FROM wp_woocommerce_tax_rates WHERE tax_rate_id = 1;",
        "INSERT INTO wp_woocommerce_tax_rates VALUES (9, '5', 'reduced');",
        [f"{CLASSES} reduced"],
        [],
    ),
    "a rate that went, with a location of the target": (
        "DELETE FROM wp_woocommerce_tax_rates WHERE tax_rate_id = 2;",
        "INSERT INTO wp_woocommerce_tax_rate_locations VALUES (1, 'DE', 2);",
        [f"{RATES} 2"],
        [],
    ),
    "an attribute without terms": (NEW_ATTRIBUTE, "", [], []),
    "an attribute with terms": (NEW_ATTRIBUTE + NEW_TERM, "", [f"{ATTRIBUTES} 2"], []),
    "an attribute whose terms are there": (NEW_ATTRIBUTE + NEW_TERM, NEW_TERM, [], []),
    "an attribute that both made": (
        NEW_ATTRIBUTE,
        NEW_ATTRIBUTE.replace("(2,", "(5,"),
        [f"{ATTRIBUTES} 2"],
        [],
    ),
    "an attribute's label": (
        "UPDATE wp_woocommerce_attribute_taxonomies SET attribute_label = 'Sizes';"
        "INSERT INTO wp_terms VALUES (3, 'small'); INSERT INTO wp_term_taxonomy VALUES (3, 3, 'pa_size');",
        "",
        [],
        [],
    ),
    "an attribute that was renamed": (
        "UPDATE wp_woocommerce_attribute_taxonomies SET attribute_name = 'width';"
        "UPDATE wp_term_taxonomy SET taxonomy = 'pa_width' WHERE taxonomy = 'pa_size';",
        "",
        [f"{ATTRIBUTES} 1"],
        [],
    ),
    "an attribute that went": (
        "DELETE FROM wp_woocommerce_attribute_taxonomies; DELETE FROM wp_term_taxonomy WHERE taxonomy = 'pa_size';",
        "",
        [f"{ATTRIBUTES} 1"],
        [],
    ),
    "an attribute that went on both sides": (
        "DELETE FROM wp_woocommerce_attribute_taxonomies; DELETE FROM wp_term_taxonomy WHERE taxonomy = 'pa_size';",
        "DELETE FROM wp_term_taxonomy WHERE taxonomy = 'pa_size';",
        [],
        [],
    ),
    "a location of a menu that both have": (LOCATE, "", [], []),
    "a location of a menu with another item": (LOCATE + ITEM, "", [MODS], []),
    "a location of a menu that the target emptied": (LOCATE, "DELETE FROM wp_term_relationships;", [MODS], []),
    "another item of a menu that has its location": (
        LOCATE.replace("i:2;}}", 'i:2;}s:5:"color";s:3:"red";}').replace("a:1:{s:18", "a:2:{s:18") + ITEM,
        LOCATE,
        [],
        [],
    ),
    "a method of a zone that the target removed": (
        "INSERT INTO wp_woocommerce_shipping_zone_methods VALUES (1, 1, 'flat_rate'), (2, 0, 'flat_rate');",
        "DELETE FROM wp_woocommerce_shipping_zones;",
        [f"{METHODS} 1"],
        [],
    ),
    "a zone that went, with a location of the target": (
        "DELETE FROM wp_woocommerce_shipping_zones;",
        "INSERT INTO wp_woocommerce_shipping_zone_locations VALUES (1, 1);",
        [f"{ZONES} 1"],
        [],
    ),
    "a plugin and its table": (ACTIVATE + FORMS, "", [], ["wp_ours_forms"]),
    "a plugin whose table is there": (ACTIVATE + FORMS, FORMS, [], []),
    "a plugin that is active already": (ACTIVATE + FORMS, ACTIVATE, [], []),
    "a table of nobody's": (ACTIVATE + "CREATE TABLE wp_nobodys (id INT PRIMARY KEY);", "", [], []),
    "a table without a key": (ACTIVATE + "CREATE TABLE wp_ours_forms (id INT);", "", [], ["wp_ours_forms"]),
    "a table that no disk keeps": (
        ACTIVATE + "CREATE TABLE wp_ours_forms (id INT) ENGINE=MEMORY;",
        "",
        [ACTIVE_PLUGINS],
        [],
    ),
    "a table that is a file": (
        ACTIVATE + "CREATE TABLE wp_ours_forms (id INT NOT NULL) ENGINE=CSV;",
        "",
        [ACTIVE_PLUGINS],
        [],
    ),
    "a table that is others": (
        ACTIVATE + FORMS.replace(");", ") ENGINE=MERGE UNION=(wp_terms);"),
        "",
        [ACTIVE_PLUGINS],
        [],
    ),
    "a table that keeps its history": (ACTIVATE + FORMS.replace(");", ") WITH SYSTEM VERSIONING;"), "", [], []),
    "a view in its place": (ACTIVATE + FORMS, "CREATE VIEW wp_ours_forms AS SELECT 1 AS id;", [], []),
    "tables of another make": (
        "",
        "DROP TABLE wp_term_relationships; ALTER TABLE wp_term_taxonomy DROP taxonomy;",
        [],
        [],
    ),
}
DECIDE = """
import json, os, subprocess, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import halves, merge, pairs
database, common, cases = sys.argv[1], *json.load(open("/root/pairs.json"))
os.makedirs("/root/paired/plugins", exist_ok=True)
open("/root/paired/plugins/ours.php", "w").write("")
places = [halves.Place(f"{database}_{name}", "/root/paired") for name in ("from", "into")]
def side(place):
    return merge.Tables(place.database, merge.address_taken_out("http://a", "/nowhere"), "commerce-protect")
def fill(place, statements):
    subprocess.run(["mariadb", place.database], input=statements, text=True, check=True)
told = {}
for name, (source, target) in cases.items():
    for place in places:
        sql.make_anew(place.database)
        fill(place, common)
    there, here = map(side, places)
    baseline = {table: there.digests(table) for table in there.shapes}
    for place, changes in zip(places, (source, target)):
        fill(place, changes)
    found = merge.compared(side(places[0]), side(places[1]), baseline)
    stays, made = pairs.settle(found, *places)
    told[name] = [[f"{one.table} {one.key}" for one in stays], list(made)]
sql.drop(*(place.database for place in places))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(own_hosting: Hosting) -> dict[str, Any]:
    """By case what stays and what is made, of two databases of one environment as the source and the target."""
    exploded(own_hosting, KEY)
    promotion = Path(str(pairs.__file__)).parent
    place = f"{DIRECTORY}/ansible_collections/trueup/wordpress/plugins/module_utils/promotion"
    for module in promotion.glob("*.py"):
        own_hosting.node.ssh(["tee", f"{place}/{module.name}"], input=module.read_text())
    given = json.dumps([COMMON, {name: sides[:2] for name, sides in SIDES.items()}])
    own_hosting.node.ssh(["tee", "/root/pairs.json"], input=given)
    argv = ["python3", "-", f"wp_{own_hosting.short(KEY)}"]
    found: dict[str, Any] = json.loads(own_hosting.node.ssh(argv, input=DECIDE).stdout)
    return found


@pytest.mark.lab
@pytest.mark.parametrize("case", SIDES)
def test_what_stays_and_what_is_made(told: dict[str, Any], case: str) -> None:
    _, _, stays, made = SIDES[case]
    assert told[case] == [stays, made]


UNMAKE = """
import json, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import merge as merges
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.merge import Merge, checksum_of
layout = Layout(sys.argv[1])
live, staged = layout.database, f"{layout.database}_next"
names = ("wp_left_alone", "wp_written_into", "wp_there_already")
sql.make_anew(staged)
for name in names:
    place = sql.qualified(staged, name)
    sql.within(live).say(f"CREATE TABLE {place} (id INT PRIMARY KEY)", f"INSERT INTO {place} VALUES (1)")
sql.within(live).say(f"CREATE VIEW {sql.qualified(live, names[2])} AS SELECT 1 AS id")
made = {name: checksum_of(staged, name) for name in names}
merge = Merge(layout, staged, f"{live}_former", "x", {"url": "http://a", "preset": "", "baseline": {}, "made": made})
def there():
    return [name for name in names if name in sql.tables(live)]
told = []
for _ in range(2):
    merge.make()
told.append(there())
sql.within(live).say(f"INSERT INTO {sql.qualified(live, names[1])} VALUES (2)")
for _ in range(2):
    told += [merge.unmake(), there()]
told.append(sql.within(live).value(f"SELECT COUNT(*) FROM {sql.qualified(live, names[1])}"))
sql.within(live).say(f"DROP VIEW {sql.qualified(live, names[2])}", f"DROP TABLE {sql.qualified(live, names[1])}")
sql.drop(staged)
merges.refuse_without_room(live, ["wp_options", "wp_posts"])
merges.SPARE = 1 << 60
try:
    merges.refuse_without_room(live, ["wp_options"])
except Failure as error:
    told.append(error.facts["trueup_code"])
print(json.dumps(told))
"""


@pytest.mark.lab
@pytest.mark.usefixtures("told")
def test_a_table_that_came_goes_again_unless_somebody_wrote_into_it(own_hosting: Hosting) -> None:
    answer = own_hosting.node.ssh(["python3", "-", own_hosting.id(KEY)], input=UNMAKE).stdout
    made, said, left, again, still, rows, refused = json.loads(answer)
    assert made == ["wp_left_alone", "wp_written_into"], "what has the name already stays"
    assert [one.split()[1].rstrip(",") for one in said] == ["wp_written_into"]
    assert said == again
    assert left == still == ["wp_written_into"]
    assert rows == "2"
    assert refused == "PROMOTION_NO_ROOM"
