"""Rows of content as the objects that they belong to, in a real MariaDB: of a large shop, and of a hacked site."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.exploded import DIRECTORY, exploded
from tests.playbooks.node_modules import load
from tests.proof import count

pytestmark = pytest.mark.lab
KEY = "objects/production"
BEGIN = """
import json, resource, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import objects
here, there = sys.argv[1] + "_here", sys.argv[1] + "_there"
for database in (here, there):
    sql.make_anew(database)
session = sql.within(here)
session.say("SET SESSION sql_mode = ''")
POSTS = "(ID BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, post_type {}, post_status VARCHAR(20) DEFAULT 'publish', " \\
    "post_title LONGTEXT, post_name VARCHAR(200), post_parent INT, post_excerpt TEXT, post_content LONGTEXT)"
META = "(meta_id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, post_id {}, meta_key VARCHAR(255), meta_value LONGTEXT)"
def told(tables, rows, moved_on=()):
    halves = [objects.Half(one, frozenset(tables), lambda value: value) for one in (here, there)]
    found, untold = objects.Changed(*halves, rows, dict(moved_on)).objects()
    return {"found": {kind: [one.count, one.named] for kind, one in found.items()}, "untold": sorted(untold)}
def everywhere(statement):
    session.say(*(statement.format(sql.identifier(database)) for database in (here, there)))
"""
SHOP = """
many = int(sys.argv[2])
everywhere("CREATE TABLE {}.wp_posts " + POSTS.format("VARCHAR(20)"))
everywhere("CREATE TABLE {}.wp_postmeta " + META.format("BIGINT"))
everywhere(
    "INSERT INTO {0}.wp_posts (ID, post_type, post_title) "
    f"SELECT seq, 'product', CONCAT('Hat ', seq) FROM {{0}}.seq_1_to_{many}"
)
posts, meta = f"{here}.wp_posts", f"{here}.wp_postmeta (meta_id, post_id, meta_key)"
session.say(
    f"INSERT INTO {meta} SELECT ID * 2, ID, '_price' FROM {posts}",
    f"INSERT INTO {meta} SELECT ID * 2 + 1, ID, '_edit_lock' FROM {posts}",
    f"DELETE FROM {posts} WHERE ID = {many}",
    f"UPDATE {posts} SET post_title = 'Cap' WHERE ID = {many - 1}",
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
own = {str(many - 1): "changed", str(many): "removed"}
rows = {"wp_postmeta": {str(i): "changed" for i in range(2, 2 * many + 2)}, "wp_posts": own}
found = told(["wp_posts", "wp_postmeta"], rows)
print(json.dumps({**found, "grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10}))
"""
HACKED = """
everywhere("CREATE TABLE {}.wp_posts " + POSTS.format("LONGTEXT"))
session.say(
    f"INSERT INTO {here}.wp_posts (ID, post_type, post_title) "
    "VALUES (1, REPEAT('x', 9000000), REPEAT('y', 9000000)), (2, NULL, NULL), (3, 'page', NULL)"
)
everywhere("CREATE TABLE {}.wp_postmeta " + META.format("TEXT"))
session.say(f"INSERT INTO {here}.wp_postmeta VALUES (1, '3; DROP TABLE x', 'a', '')")
everywhere("CREATE TABLE {}.wp_terms (term_id VARCHAR(50) PRIMARY KEY, name TEXT)")
everywhere("CREATE TABLE {}.wp_users (ID INT PRIMARY KEY)")
tables = ["wp_posts", "wp_postmeta", "wp_terms", "wp_users", "wp_usermeta", "wp_comments"]
posts = {"wp_posts": {str(i): "added" for i in (1, 2, 3)}}
print(json.dumps([
    told(tables, posts),
    told(tables, {**posts, "wp_postmeta": {"1": "changed"}}),
    told(tables, {"wp_terms": {"1 OR 1=1": "added", "7": "added"}, "wp_termmeta": {"1": "added"}}),
    told(tables, {"wp_users": {"1": "added"}, "wp_usermeta": {"1": "added"}}),
    told(tables, {"wp_comments": {"1,2": "added", "5": "added"}}),
    told(tables, {"wp_term_relationships": {"x,y": "added", "1": "added"}}),
]))
"""

BOUNDS = """
from pathlib import Path
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import baseline, halves, merge
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import pairs, references
session.say(
    f"CREATE TABLE {here}.wp_options (option_id INT AUTO_INCREMENT PRIMARY KEY, option_name LONGTEXT, "
    "option_value LONGTEXT)",
    f"INSERT INTO {here}.wp_options (option_name, option_value) VALUES ('ordinary', 'x')",
)
normal = merge.address_taken_out("http://a", "/nowhere")
place, before = halves.Place(here, "/nowhere"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = []
def tried(work):
    try:
        work()
        refused.append("")
    except sql.Failure as error:
        refused.append(f"{error.facts['trueup_code']} {error}")
tried(lambda: baseline.rows(here, baseline.shapes(here)["wp_options"], normal))
session.say(f"INSERT INTO {here}.wp_options (option_name, option_value) VALUES (REPEAT('n', 40 << 20), 'x')")
tried(lambda: baseline.rows(here, baseline.shapes(here)["wp_options"], normal))
locations = "CONCAT('s:18:\\"nav_menu_locations\\";a:9:{', REPEAT('i:0;i:1;', 130000), '}')"
session.say(
    f"DELETE FROM {here}.wp_options",
    f"INSERT INTO {here}.wp_options (option_name, option_value) SELECT CONCAT('theme_mods_', seq), {locations} "
    f"FROM {here}.seq_1_to_40",
)
mods = next(pair for pair in pairs.PAIRS if isinstance(pair.what, halves.Values) and "mods" in pair.what.names)
tried(lambda: mods.what.needs(place))
tried(lambda: references.unresolved(here, there, [f"theme_mods_{n}" for n in range(1, 41)]))
halves.MOST_ROWS = 1000
session.say(
    f"CREATE TABLE {here}.wp_woocommerce_tax_rates (tax_rate_id INT PRIMARY KEY, tax_rate_class VARCHAR(200))",
    f"INSERT INTO {here}.wp_woocommerce_tax_rates SELECT seq, 'x' FROM {here}.seq_1_to_1001",
)
tried(lambda: pairs.PAIRS[0].what.needs(place))
print(json.dumps([refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10]))
"""


@pytest.fixture(scope="module")
def node(own_hosting: Hosting) -> Hosting:
    exploded(own_hosting, KEY)
    # The environment's module has no need of them all.
    directory = f"{DIRECTORY}/ansible_collections/trueup/wordpress/plugins/module_utils/promotion"
    for module in Path(str(load("promotion.objects").__file__)).parent.glob("*.py"):
        own_hosting.node.ssh(["tee", f"{directory}/{module.name}"], input=module.read_text())
    return own_hosting


def run(hosting: Hosting, script: str, *arguments: str) -> Any:
    argv = ["python3", "-", f"wp_{hosting.short(KEY)}", *arguments]
    return json.loads(hosting.node.ssh(argv, input=BEGIN + script).stdout)


def test_a_large_shop_is_counted_whole_and_named_in_part(node: Hosting) -> None:
    many = count(short=12_000, full=100_000)
    told = run(node, SHOP, str(many))
    products, named = told["found"]["product"]
    assert (products, told["untold"]) == (many, [])
    assert [one["number"] for one in named] == list(range(many - 1, many - 21, -1)), "the newest"
    assert named[0]["details"] == ["price", "title"]
    assert {tuple(one["details"]) for one in named[1:]} == {("price",)}
    assert told["grown"] < 1000 * many + (16 << 20)


def test_tables_that_no_wordpress_made_are_told_as_tables(node: Hosting) -> None:
    long, meta, terms, users, comments, related = run(node, HACKED)
    assert long["untold"] == []
    assert {kind: count for kind, (count, _) in long["found"].items()} == {"content": 1, "page": 1}
    assert [len(one["name"]) for one in long["found"]["content"][1]] == [200]
    assert [len(one["type"]) for one in long["found"]["content"][1]] == [64]
    assert long["found"]["page"][1][0]["name"] == ""
    assert (meta["untold"], meta["found"]) == (["wp_postmeta", "wp_posts"], {})
    assert terms["untold"] == ["wp_termmeta", "wp_terms"]
    assert (users["untold"], users["found"]) == (["wp_usermeta", "wp_users"], {})
    assert (comments["untold"], comments["found"]["comment"][0]) == (["wp_comments"], 1)
    assert related["found"] == {}


def test_what_a_hacked_site_has_more_of_than_any_other_is_refused_before_it_is_in_memory(node: Hosting) -> None:
    """Names of options without an end, options full of numbers, rows without number: of a preview, too."""
    refused, grown = run(node, BOUNDS)
    ordinary, name, options, values, rows = refused
    assert ordinary == ""
    assert {one.split()[0] for one in (name, options, values, rows)} == {"DATABASE_UNUSABLE"}
    assert "table wp_options" in name
    assert "theme_mods_" in options
    assert "name posts or terms" in values
    assert "wp_woocommerce_tax_rates" in rows
    assert grown < 300 << 20
