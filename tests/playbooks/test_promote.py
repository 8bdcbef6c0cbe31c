"""Changes move up while the shop takes orders: not one order, customer, comment or upload is lost or changed."""

import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import pytest

from tests import churn
from tests.controlplane import until
from tests.playbooks.environments import Hosting, variables_for
from tests.playbooks.nodes import Run
from tests.proof import count

pytestmark = [pytest.mark.lab, pytest.mark.in_order]

SHOP = """
CREATE TABLE wp_wc_orders (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, status VARCHAR(20), total DECIMAL(26,8));
CREATE TABLE wp_wc_order_stats (order_id BIGINT UNSIGNED PRIMARY KEY, total_sales DOUBLE);
CREATE TABLE wp_woocommerce_order_items (order_item_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, order_id BIGINT);
CREATE TABLE wp_wc_customer_lookup (customer_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, email VARCHAR(100));
CREATE TABLE wp_woocommerce_sessions (session_key CHAR(32) PRIMARY KEY, session_value LONGTEXT);
CREATE TABLE wp_actionscheduler_actions (action_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, hook VARCHAR(191));
CREATE TABLE wp_gf_entry (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT);
INSERT INTO wp_wc_orders (status, total) VALUES ('wc-processing', 12.5), ('wc-completed', 99);
INSERT INTO wp_gf_entry (note) VALUES ('written by a plugin that no list knows');
INSERT INTO wp_options (option_name, option_value) VALUES ('only_here', 'old'), ('only_there', 'old'), ('doomed', 'x');
SET sql_mode = '';
INSERT INTO wp_posts (ID, post_title, post_type, post_status, guid) VALUES (900, 'Hat', 'product', 'publish', 'g');
INSERT INTO wp_postmeta VALUES (9001, 900, '_price', '10'), (9002, 900, '_sku', 'h'), (9003, 2, '_x', '1');
"""
ORDER = """START TRANSACTION;
INSERT INTO wp_wc_orders (status, total) VALUES ('wc-processing', {n});
INSERT INTO wp_wc_order_stats SELECT LAST_INSERT_ID(), {n};
INSERT INTO wp_woocommerce_order_items (order_id) VALUES (LAST_INSERT_ID());
INSERT INTO wp_wc_customer_lookup (email) VALUES ('customer-{n}@example.com');
INSERT INTO wp_comments (comment_author, comment_content) VALUES ('c{n}', 'Fine.');
INSERT INTO wp_woocommerce_sessions VALUES (MD5({n}), 'cart');
INSERT INTO wp_actionscheduler_actions (hook) VALUES ('mail-{n}');
COMMIT;
"""
PROTECTED = ["wp_wc_orders", "wp_wc_order_stats", "wp_woocommerce_order_items", "wp_wc_customer_lookup"]
PROTECTED += ["wp_comments", "wp_woocommerce_sessions", "wp_actionscheduler_actions"]
PRODUCTION, STAGING = "shop/production", "shop/staging"
KILLED_AFTER_S = (0.0, 0.6, 0.3, 1.0)
"""From when a run is at work on its node."""


class Shop:
    """A production and its copy on one node."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.made = 0

    def sql(self, key: str, query: str) -> str:
        return self.hosting.sql(key, query)

    def option(self, key: str, name: str) -> str:
        return self.sql(key, f"SELECT option_value FROM wp_options WHERE option_name = '{name}';")

    def put(self, key: str, name: str, value: str) -> None:
        self.sql(
            key,
            f"INSERT INTO wp_options (option_name, option_value) VALUES ('{name}', '{value}') "
            f"ON DUPLICATE KEY UPDATE option_value = '{value}';",
        )

    def clone(self) -> Run:
        source = self.hosting.environments[PRODUCTION]
        content = {**variables_for(STAGING, self.hosting.node)["content"], "id": str(uuid4()), "origin": "clone"}
        content["source_environment"] = source["id"]
        release = {**source["release"], "id": str(uuid4()), "origin": "clone", "made_from": source["id"]}
        self.hosting.declare(STAGING, content=content, release=release)
        given = f'{{"trueup_source": {{"id": "{source["id"]}", "urls": ["{source["url"]}"]}}}}'
        return self.hosting.run("clone", STAGING, "-e", given)

    def declare_promotion(self, preset: str = "commerce-protect", **chosen: list[str]) -> None:
        source = self.hosting.environments[STAGING]
        now = self.hosting.environments[PRODUCTION]
        content = {**now["content"], "id": str(uuid4()), "origin": "promote", "source_environment": source["id"]}
        release = {**now["release"], "id": str(uuid4()), "origin": "promote", "made_from": source["id"]}
        options = now.get("options", {})
        content = {name: value for name, value in content.items() if name not in ("include", "exclude")}
        content = {**content, "preset": preset, **chosen}
        self.hosting.declare(PRODUCTION, content=content, release=release, options=options)

    def compare(self) -> Run:
        target = self.hosting.id(PRODUCTION)
        return self.hosting.run("drift", STAGING, "-v", "-e", f'{{"trueup_comparison": {{"target": "{target}"}}}}')

    def promote(self, *options: str, **chosen: list[str]) -> Run:
        self.declare_promotion(**chosen)
        return self.hosting.run("promote", PRODUCTION, *options)

    def abandon(self, before: dict[str, Any]) -> None:
        """Declare again what was there before a promotion that was refused."""
        self.hosting.environments[PRODUCTION] = before

    def fingerprint(self, key: str, *, options: bool = True) -> str:
        """Every table, byte for byte but for what WordPress churns, and every file that is served."""
        database = f"wp_{self.hosting.short(key)}"
        ignored = f"--ignore-table={database}.wp_options --ignore-table={database}.trueup_content"
        script = (
            f"mariadb-dump --skip-dump-date --skip-comments --order-by-primary {ignored} {database} | sha256sum; "
            f'mariadb -N {database} -e "{churn.options("*") if options else "SELECT 1"}" | sha256sum; '
            f"readlink {self.hosting.path(key, 'current')}; cd {self.hosting.path(key, 'current')}/; "
            f"find . {self.hosting.path(key, 'shared')} -type f -not -path '*/cache/*' -exec sha256sum {{}} + "
            "| sort | sha256sum"
        )
        return self.hosting.node.ssh(script).stdout


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture(scope="module")
def shop(hosting: Hosting) -> Iterator[Shop]:
    run = hosting.apply(PRODUCTION)
    assert run.status == 0, run.output
    shop = Shop(hosting)
    shop.sql(PRODUCTION, SHOP)
    hosting.fetch(PRODUCTION)
    hosting.node.ssh(["mkdir", "-p", hosting.path(PRODUCTION, "shared/uploads/2026")])
    assert (run := shop.clone()).status == 0, run.output
    return shop


CUSTOMERS = """
import json, os, select, subprocess, sys, time
database, uploads, first, order = json.loads(sys.stdin.readline())
argv = ["mariadb", "-BN", "--unbuffered", database]
client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
taken, orders, settings = 0, [], []

def say(statements):
    started = time.monotonic()
    client.stdin.write(statements + " SELECT 'done';\\n")
    client.stdin.flush()
    assert client.stdout.readline() == "done\\n"
    return time.monotonic() - started

while not select.select([sys.stdin], [], [], 0.002)[0]:
    n = first + taken + 1
    orders.append(say(order.replace("{n}", str(n))))
    settings.append(say("UPDATE wp_options SET option_value = '%d' WHERE option_name = 'counter';" % n))
    with open(os.path.join(uploads, "%d.txt" % n), "w") as file:
        file.write(str(n))
    taken += 1
print(json.dumps([taken, max(orders), max(settings)]))
"""


class Customers:
    """At work on the node while the block runs: an order is one transaction over all tables of a shop, each

    acknowledged before the next; with it goes an upload, and a write of an option that no promotion moves.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.taken, self.longest_order, self.longest_setting = 0, 0.0, 0.0

    def __enter__(self) -> "Customers":
        hosting = self.shop.hosting
        self.shop.put(PRODUCTION, "counter", "0")
        argv = [*hosting.node.ssh_command(), shlex.join(["python3", "-c", CUSTOMERS])]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        uploads = hosting.path(PRODUCTION, "shared/uploads/2026")
        assert self.process.stdin
        self.process.stdin.write(json.dumps([f"wp_{hosting.short(PRODUCTION)}", uploads, self.shop.made, ORDER]) + "\n")
        self.process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        told, _error = self.process.communicate("stop\n", timeout=300)
        self.taken, self.longest_order, self.longest_setting = json.loads(told)
        self.shop.made += self.taken


def counts(shop: Shop) -> list[int]:
    query = " UNION ALL ".join(f"SELECT COUNT(*) FROM {table}" for table in PROTECTED)
    return [int(row) for row in shop.sql(PRODUCTION, query + ";").splitlines()]


def test_settings_and_code_move_while_orders_come_in(shop: Shop) -> None:
    hosting = shop.hosting
    url, copy = hosting.environments[PRODUCTION]["url"], hosting.environments[STAGING]["url"]
    shop.put(STAGING, "only_there", "new")
    shop.put(STAGING, "blog_public", "0")
    shop.put(STAGING, "brand_new", f"{copy}/a")
    shop.put(STAGING, "serialized", f's:{len(copy) + 2}:"{copy}/b";')
    shop.sql(STAGING, "DELETE FROM wp_options WHERE option_name = 'doomed';")
    shop.sql(STAGING, "INSERT INTO wp_wc_orders (status, total) VALUES ('wc-staging', 1);")
    shop.sql(STAGING, "UPDATE wp_gf_entry SET note = 'changed in staging';")
    shop.put(PRODUCTION, "only_here", "changed in production")
    plugin = hosting.path(STAGING, "current/wp-content/plugins/ours.php")
    hosting.node.ssh(["tee", plugin], input="<?php /* Plugin Name: Ours */")
    theirs = hosting.path(PRODUCTION, "current/wp-content/plugins/theirs.php")
    hosting.node.ssh(["tee", theirs], input="<?php /* Plugin Name: Theirs */")
    with Customers(shop) as usual:
        calm = hosting.apply(PRODUCTION)
    before = counts(shop)
    rows = shop.sql(PRODUCTION, "SELECT * FROM wp_wc_orders; SELECT * FROM wp_users; SELECT * FROM wp_posts;")
    with Customers(shop) as writer:
        run = shop.promote("-v")
    assert run.status == 0, run.output
    frozen = re.search(r"locked for ([0-9.]+) s", run.output)
    assert frozen, run.output
    assert float(frozen.group(1)) < run.seconds / 2
    print(
        f"{writer.taken} orders in {run.seconds:.1f} s; moved rows locked {frozen.group(1)} s; longest order "
        f"{writer.longest_order:.3f} s, longest write of an option {writer.longest_setting:.3f} s"
    )
    assert writer.taken / run.seconds > usual.taken / calm.seconds / 5, (
        "orders come in as they do while nothing happens"
    )
    assert [after - was for after, was in zip(counts(shop), before, strict=True)] == [writer.taken] * len(PROTECTED)
    numbers = shop.sql(PRODUCTION, "SELECT total FROM wp_wc_orders WHERE id > 2 ORDER BY id;").split()
    assert [float(one) for one in numbers] == [float(one + 1) for one in range(shop.made)]
    uploads = hosting.node.ssh(f"cd {hosting.path(PRODUCTION, 'shared/uploads/2026')} && tail -qn1 [0-9]*.txt | wc -c")
    assert int(uploads.stdout) == sum(len(str(one + 1)) for one in range(shop.made))
    assert shop.option(PRODUCTION, "counter") == str(shop.made)
    assert shop.sql(PRODUCTION, "SELECT * FROM wp_wc_orders WHERE id <= 2;") in rows
    assert max(writer.longest_order, writer.longest_setting) < run.seconds / 2, "nobody waits for the promotion"
    assert shop.option(PRODUCTION, "only_there") == "new"
    assert shop.option(PRODUCTION, "only_here") == "changed in production"
    assert shop.option(PRODUCTION, "brand_new") == f"{url}/a"
    assert shop.option(PRODUCTION, "serialized") == f's:{len(url) + 2}:"{url}/b";'
    assert shop.option(PRODUCTION, "doomed") == ""
    assert shop.option(PRODUCTION, "siteurl") == shop.option(PRODUCTION, "home") == url
    assert shop.option(PRODUCTION, "blog_public") == "1"
    assert shop.sql(PRODUCTION, "SELECT note FROM wp_gf_entry;") == "written by a plugin that no list knows"
    plugins = hosting.node.ssh(["ls", hosting.path(PRODUCTION, "current/wp-content/plugins")]).stdout.split()
    assert {"ours.php", "theirs.php"} <= set(plugins)
    assert hosting.fetch(PRODUCTION).status_code == 200
    again = hosting.run("promote", PRODUCTION)
    assert (again.status, again.changed) == (0, 0), again.output


@pytest.mark.long
def test_customers_who_register_on_both_sides_hold_nothing(shop: Shop) -> None:
    """WordPress counts its users in an option."""
    for key, names in ((STAGING, ["tester"]), (PRODUCTION, ["anna", "bert"])):
        for name in names:
            shop.hosting.wp(key, "user", "create", name, f"{name}@example.com", "--role=subscriber")
    assert (shop.option(STAGING, "user_count"), shop.option(PRODUCTION, "user_count")) == ("2", "3")
    told = previewed(shop.promote("--check", "-v").raise_if_failed())
    assert (told["left_behind"]["user", None]["count"], told["stays"]["user", None]["count"]) == (1, 2)
    run = shop.promote()
    assert run.status == 0, run.output
    users = shop.sql(PRODUCTION, "SELECT user_login FROM wp_users WHERE ID > 1 ORDER BY ID;").split()
    assert (users, shop.option(PRODUCTION, "user_count")) == (["anna", "bert"], "3")


@pytest.mark.long
def test_what_the_document_of_the_target_sets_neither_moves_nor_blocks(shop: Shop) -> None:
    now = shop.hosting.environments[PRODUCTION]
    declared = {"blogdescription": "declared"}
    shop.hosting.apply(PRODUCTION, content=now["content"], release=now["release"], options=declared).raise_if_failed()
    shop.put(STAGING, "blogdescription", "of staging")
    shop.put(PRODUCTION, "blogdescription", "by somebody")
    shop.put(STAGING, "only_there", "newer")
    told = previewed(shop.compare().raise_if_failed())
    assert told["left_behind"]["option", "blogdescription"]["reason"] == "declared"
    assert ("option", "blogdescription") not in {**told["moves"], **told["conflicts"]}
    run = shop.promote()
    assert run.status == 0, run.output
    assert shop.option(PRODUCTION, "blogdescription") == "declared"
    assert shop.option(PRODUCTION, "only_there") == "newer"


@pytest.mark.long
def test_what_both_sides_changed_blocks_and_nothing_is_touched(shop: Shop) -> None:
    was = shop.hosting.environments[PRODUCTION]
    shop.put(STAGING, "only_there", "one way")
    shop.put(PRODUCTION, "only_there", "the other way")
    before = shop.fingerprint(PRODUCTION)
    run = shop.promote()
    shop.abandon(was)
    assert run.status != 0
    assert "wp_options: only_there" in run.output
    assert "PROMOTION_CONFLICT" in run.output
    assert shop.fingerprint(PRODUCTION) == before
    shop.put(PRODUCTION, "only_there", "one way")
    assert (check := shop.compare()).status == 0, check.output


@pytest.mark.long
def test_only_what_was_chosen_moves(shop: Shop) -> None:
    node, hosting = shop.hosting.node, shop.hosting

    def plugin(key: str, name: str, text: str | None = None) -> str:
        path = f"{hosting.path(key, 'current/wp-content/plugins')}/{name}/{name}.php"
        if text is not None:
            node.ssh(["mkdir", "-p", path.rpartition("/")[0]])
            node.ssh(["tee", path], input=f"<?php // {text}\n")
        return node.ssh(["cat", path], check=False).stdout.strip()

    for name in ("wanted", "unwanted", "alone"):
        plugin(STAGING, name, "of staging")
        shop.put(STAGING, f"{name}_option", "of staging")
    plugin(PRODUCTION, "unwanted", "of production")
    shop.put(PRODUCTION, "unwanted_option", "of production")
    link = "INSERT INTO wp_links (link_url, link_name) VALUES ('https://example.com', 'unwanted');"
    shop.sql(STAGING, f"SET sql_mode = ''; {link}")
    shop.put(STAGING, "stylesheet", "not-there")
    shop.promote(include=["option:wanted_option", "plugin:alone"]).raise_if_failed()
    assert plugin(PRODUCTION, "alone") == "<?php // of staging"
    assert shop.option(PRODUCTION, "alone_option") == ""
    assert shop.option(PRODUCTION, "wanted_option") == "of staging"
    assert (plugin(PRODUCTION, "wanted"), plugin(PRODUCTION, "unwanted")) == ("", "<?php // of production")
    exclude = ["plugin:unwanted", "option:unwanted_option", "option:stylesheet", "group:links"]
    shop.promote(exclude=exclude).raise_if_failed()
    assert (plugin(PRODUCTION, "wanted"), plugin(PRODUCTION, "unwanted")) == (
        "<?php // of staging",
        "<?php // of production",
    )
    assert shop.option(PRODUCTION, "unwanted_option") == "of production"
    assert shop.option(PRODUCTION, "stylesheet") != "not-there"
    assert shop.sql(PRODUCTION, "SELECT COUNT(*) FROM wp_links WHERE link_name = 'unwanted';") == "0"
    assert hosting.fetch(PRODUCTION).status_code == 200
    for key in (STAGING, PRODUCTION):
        shop.sql(key, "DELETE FROM wp_options WHERE option_name = 'unwanted_option'; DELETE FROM wp_links;")
        node.ssh(["rm", "-r", f"{hosting.path(key, 'current/wp-content/plugins')}/unwanted"])
    shop.put(STAGING, "stylesheet", shop.option(PRODUCTION, "stylesheet"))


@pytest.mark.long
def test_a_promotion_that_breaks_the_site_is_undone_byte_for_byte(shop: Shop) -> None:
    was = shop.hosting.environments[PRODUCTION]
    shop.put(STAGING, "only_there", "a third value")
    shop.put(STAGING, "another_new", "x")
    shop.sql(STAGING, "DELETE FROM wp_options WHERE option_name = 'brand_new';")
    plugin = shop.hosting.path(STAGING, "current/wp-content/mu-plugins/broken.php")
    shop.hosting.node.ssh(["tee", plugin], input="<?php this is not php;")
    before = shop.fingerprint(PRODUCTION)
    run = shop.promote()
    shop.abandon(was)
    shop.hosting.node.ssh(["rm", plugin])
    assert run.status != 0, run.output
    assert shop.fingerprint(PRODUCTION) == before
    assert shop.hosting.fetch(PRODUCTION).status_code == 200


def post(shop: Shop, key: str, number: int, kind: str, name: str) -> None:
    url = shop.hosting.environments[key]["url"]
    shop.sql(
        key,
        "INSERT INTO wp_posts (ID, post_author, post_type, post_name, post_status, guid, post_content, post_title, "
        "post_excerpt, to_ping, pinged, post_content_filtered) "
        f"VALUES ({number}, 1, '{kind}', '{name}', 'publish', '{url}/?p={number}', '', '{name}', '', '', '', '');",
    )


@pytest.mark.long
def test_no_option_names_another_thing_in_the_target(shop: Shop) -> None:
    """Post 727 is a page of the copy and an order here: nobody's order becomes the front page, or Additional CSS."""
    post(shop, STAGING, 727, "page", "welcome")
    post(shop, PRODUCTION, 727, "shop_order", "order-727")
    theme = shop.option(STAGING, "stylesheet")
    shop.put(STAGING, f"theme_mods_{theme}", 'a:1:{s:18:"custom_css_post_id";i:727;}')
    shop.put(STAGING, "page_on_front", "727")
    shop.put(STAGING, "page_for_posts", "2")
    shop.put(STAGING, "show_on_front", "page")
    shop.put(STAGING, "wp_page_for_privacy_policy", "2")
    shop.put(STAGING, "wc_pending_batch_processes", "a:0:{}")
    shop.put(PRODUCTION, "_transient_made_of_options", "old")
    before = [shop.option(PRODUCTION, name) for name in (f"theme_mods_{theme}", "page_on_front", "show_on_front")]
    drop_in = shop.hosting.path(PRODUCTION, "current/wp-content/db.php")
    shop.hosting.node.ssh(["tee", drop_in], input="<?php // of the owner's\n")
    compared = shop.compare()
    assert f'"held": ["page_on_front", "show_on_front", "theme_mods_{theme}"]' in re.sub(r"\s+", " ", compared.output)
    run = shop.promote("-v")
    assert run.status == 0, run.output
    assert "Option page_on_front stays" in run.output
    after = [shop.option(PRODUCTION, name) for name in (f"theme_mods_{theme}", "page_on_front", "show_on_front")]
    assert after == before
    assert shop.option(PRODUCTION, "wp_page_for_privacy_policy") == "2", "the page that both had before the copy"
    assert shop.option(PRODUCTION, "page_for_posts") == "2"
    assert shop.option(PRODUCTION, "wc_pending_batch_processes") == ""
    assert shop.option(PRODUCTION, "_transient_made_of_options") == ""
    here = shop.hosting.node.ssh(["cat", shop.hosting.path(PRODUCTION, "current/wp-content/db.php")])
    assert "of the owner" in here.stdout, "what the comparison says stays, stays"
    shop.hosting.node.ssh(["rm", shop.hosting.path(PRODUCTION, "current/wp-content/db.php")])
    for key in (STAGING, PRODUCTION):
        shop.sql(key, "DELETE FROM wp_posts WHERE ID = 727;")


@pytest.mark.long
def test_it_may_be_killed_anywhere_and_run_again(shop: Shop) -> None:
    shop.put(STAGING, "only_there", "a third value")
    shop.sql(STAGING, "DELETE FROM wp_options WHERE option_name = 'brand_new';")
    shop.declare_promotion()
    node, hosting = shop.hosting.node, shop.hosting
    ended: list[Run] = []
    for fence, delay in enumerate(KILLED_AFTER_S[: count(short=2, full=len(KILLED_AFTER_S))], 10):
        job = {"id": str(uuid5(NAMESPACE_URL, f"kill {delay}")), "fence": fence}
        thread = threading.Thread(target=lambda job=job: ended.append(hosting.run("promote", PRODUCTION, job=job)))  # type: ignore[misc]
        thread.start()
        unit = f"trueup-{job['id']}.scope"
        # The last ones find little left to do, and may be over before anybody sees them at work.
        is_active = ["systemctl", "is-active", unit]
        until(
            lambda thread=thread, argv=is_active: (  # type: ignore[misc]
                node.ssh(argv, check=False).returncode == 0 or not thread.is_alive()
            ),
            "work",
        )
        time.sleep(delay)
        node.ssh(["systemctl", "kill", "--signal=KILL", unit], check=False)
        thread.join()
        assert hosting.fetch(PRODUCTION).status_code == 200
    assert ended[0].status != 0, "it was killed as soon as it was at work"
    run = hosting.run("promote", PRODUCTION, job={"id": str(uuid4()), "fence": 99})
    assert run.status == 0, run.output
    assert shop.option(PRODUCTION, "only_there") == "a third value"
    assert shop.option(PRODUCTION, "brand_new") == ""
    leftovers = node.ssh(["mariadb", "-BN", "-e", "SHOW DATABASES LIKE '%\\_former'"]).stdout
    assert f"wp_{hosting.short(PRODUCTION)}_former" not in leftovers


EDITS = """
SET sql_mode = '';
UPDATE wp_posts SET post_title = 'About us', post_modified = NOW() WHERE ID = 2;
UPDATE wp_posts SET post_content = CONCAT(post_content, '!') WHERE ID = 1;
INSERT INTO wp_posts (ID, post_title, post_type, post_status, guid) VALUES
  (910, CONCAT('New hat', CHAR(27), REPEAT('x', 180)), 'product', 'publish', 'a'),
  (911, '', 'nav_menu_item', 'publish', 'b'), (912, 'About us', 'revision', 'inherit', 'c'),
  (913, 'Auto Draft', 'page', 'auto-draft', 'd'), (914, 'An order', 'shop_order', 'wc-processing', 'e'),
  (915, 'A form', 'gf_form', 'publish', 'f');
UPDATE wp_postmeta SET meta_value = '12.50' WHERE meta_id = 9001;
INSERT INTO wp_postmeta (post_id, meta_key, meta_value) VALUES (3, '_edit_lock', '1');
DELETE FROM wp_postmeta WHERE meta_id = 9003;
INSERT INTO wp_terms (term_id, name, slug) VALUES (900, 'Main menu', 'main'), (901, 'Hats', 'hats');
INSERT INTO wp_term_taxonomy (term_taxonomy_id, term_id, taxonomy, description) VALUES
  (900, 900, 'nav_menu', ''), (901, 901, 'product_cat', '');
INSERT INTO wp_term_relationships (object_id, term_taxonomy_id) VALUES (911, 900), (910, 901);
UPDATE wp_term_taxonomy SET count = count + 1 WHERE term_id = 1;
INSERT INTO wp_users (user_login, user_email) VALUES ('ada-lovelace', 'ada@example.com');
INSERT INTO wp_comments (comment_author, comment_content) VALUES ('ada-lovelace', 'x'), ('y', 'z');
INSERT INTO wp_wc_orders (id, status) VALUES (5000, 'wc-new');
UPDATE wp_gf_entry SET note = 'changed again';
CREATE TABLE wp_only_there (id INT PRIMARY KEY);
INSERT INTO wp_links (link_url, link_name) VALUES ('https://example.com', 'A link');
"""


def previewed(run: Run) -> dict[str, Any]:
    """What a comparison told by name, by verdict and then by kind and name."""
    at = run.output.index('"preview": ') + len('"preview": ')
    found: dict[str, Any] = json.JSONDecoder().raw_decode(run.output, at)[0]
    counts = found.pop("counts")
    named = {verdict: {(one["kind"], one["name"]): one for one in each} for verdict, each in found.items()}
    return {"counts": counts, **named}


def test_comparing_tells_what_each_side_changed(shop: Shop) -> None:
    plugins = shop.hosting.path(STAGING, "current/wp-content/plugins")
    header = "<?php\n/*\nPlugin Name: Hats\nVersion: 1.2\n*/\n"
    shop.hosting.node.ssh(["mkdir", "-p", f"{plugins}/hats"])
    shop.hosting.node.ssh(["tee", f"{plugins}/hats/hats.php"], input=header)
    shop.put(STAGING, "active_plugins", 'a:1:{i:0;s:13:"hats/hats.php";}')
    shop.put(STAGING, "only_there", "fourth")
    shop.put(STAGING, "wp_page_for_privacy_policy", "913")
    shop.put(PRODUCTION, "only_here", "by production")
    shop.put(STAGING, "both", "one")
    shop.put(PRODUCTION, "both", "another")
    shop.sql(PRODUCTION, "INSERT INTO wp_wc_orders (id, status) VALUES (6000, 'wc-new'), (6001, 'wc-new');")
    shop.sql(PRODUCTION, "UPDATE wp_posts SET post_status = 'private' WHERE ID = 3;")
    shop.sql(STAGING, EDITS)
    run = shop.compare().raise_if_failed()
    protected = run.output.partition('"protected"')[2]
    assert '"wp_wc_orders"' in protected
    assert run.changed == 0
    told = previewed(run)
    moves, stays, left = told["moves"], told["stays"], told["left_behind"]
    assert moves["option", "only_there"]["reason"] == "changed_in_source"
    assert moves["link", "A link"]["change"] == "added"
    assert moves["plugin", "hats"]["change"] == "added"
    assert moves["plugin", "hats"]["details"] == ["none → 1.2", "activated"]
    assert ("option", "active_plugins") not in moves
    assert told["conflicts"]["option", "both"]["reason"] == "changed_in_both"
    assert stays["option", "only_here"]["reason"] == "changed_in_target"
    assert stays["page", "Privacy Policy"]["details"] == ["status"]
    assert stays["order", None]["count"] >= 2
    assert left["option", "wp_page_for_privacy_policy"]["reason"] == "names_other_content"
    assert left["product", "Hat"]["details"] == ["price"], "what WordPress calls it"
    assert left["page", "About us"]["details"] == ["title"], "what is gone of it has no name any more"
    assert left["post", "Hello world!"]["details"] == ["text"]
    new = next(one for (kind, name), one in left.items() if kind == "product" and name != "Hat")
    assert (new["change"], new["number"], len(new["name"]), new["reason"]) == ("added", 910, 120, "content")
    assert {("menu", "Main menu"), ("term", "Hats")} <= left.keys()
    assert left["content", "A form"]["type"] == "gf_form"
    assert left["table", "gf_entry"]["reason"] == "unknown_table"
    assert left["table", "only_there"]["reason"] == "only_in_source"
    assert left["order", None]["count"] >= 2, "of both kinds of storage"
    assert ("page", "Auto Draft") not in left
    assert not [one for one in left if one[0] == "table" and one[1] in ("posts", "postmeta", "terms")]
    assert "Uncategorized" not in [name for _, name in left], "how often it is used is no change of it"
    assert "Privacy Policy" not in [name for _, name in left], "who looked at it did not edit it"
    assert "ada-lovelace" not in run.output, "people are counted"
    assert left["user", None]["count"] == told["counts"]["left_behind"]["user"] >= 1
    assert told["counts"]["left_behind"]["product"] == 2


@pytest.mark.long
def test_an_environment_that_is_no_copy_is_refused(shop: Shop) -> None:
    was = shop.hosting.environments[PRODUCTION]
    shop.declare_promotion()
    other = shop.hosting.id("acme/staging")
    shop.hosting.environments[PRODUCTION]["content"]["source_environment"] = other
    run = shop.hosting.run("promote", PRODUCTION)
    shop.abandon(was)
    assert run.status != 0
    assert "BASELINE_MISSING" in run.output


FORMS = """
CREATE TABLE wp_ours_forms (id INT AUTO_INCREMENT PRIMARY KEY, title TEXT);
CREATE TABLE wp_ours_entries (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT);
CREATE TABLE wp_by_hand (id INT PRIMARY KEY);
INSERT INTO wp_ours_forms (title) VALUES ('Contact, {url}/contact');
INSERT INTO wp_ours_entries (note) VALUES ('a trial of staging');
"""
FORMS_PLUGIN = """<?php /* Plugin Name: Forms */
add_action( 'init', function () {
    global $wpdb;
    $wpdb->get_results( "SELECT * FROM {$wpdb->prefix}ours_forms, {$wpdb->prefix}ours_entries" );
    if ( $wpdb->last_error ) { wp_die( $wpdb->last_error ); }
} );
"""
PAIRED = """
CREATE TABLE wp_woocommerce_tax_rates (tax_rate_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    tax_rate VARCHAR(8), tax_rate_class VARCHAR(200));
CREATE TABLE wp_wc_tax_rate_classes (tax_rate_class_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(200), slug VARCHAR(191), UNIQUE KEY (slug));
CREATE TABLE wp_woocommerce_attribute_taxonomies (attribute_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    attribute_name VARCHAR(200));
"""


@pytest.mark.long
def test_both_halves_of_a_pair_move_or_neither(shop: Shop) -> None:
    """A plugin is active with its tables, a rate has its class, and no attribute comes without its terms."""
    shop.sql(PRODUCTION, PAIRED)
    assert (run := shop.clone()).status == 0, run.output
    was = shop.hosting.environments[PRODUCTION]
    url, copy = was["url"], shop.hosting.environments[STAGING]["url"]
    plugins = shop.hosting.path(STAGING, "current/wp-content/plugins")
    shop.hosting.node.ssh(["tee", f"{plugins}/our-forms.php"], input=FORMS_PLUGIN)
    shop.sql(STAGING, FORMS.format(url=copy))
    shop.hosting.wp(STAGING, "plugin", "activate", "our-forms")
    shop.sql(
        STAGING,
        "INSERT INTO wp_woocommerce_tax_rates VALUES (7, '5', 'reduced');"
        "INSERT INTO wp_wc_tax_rate_classes VALUES (4, 'Reduced', 'reduced'), (5, 'Zero', 'zero');"
        "INSERT INTO wp_woocommerce_attribute_taxonomies VALUES (3, 'color');",
    )
    shop.sql(PRODUCTION, "INSERT INTO wp_wc_tax_rate_classes VALUES (1, 'Zero', 'zero');")
    shop.hosting.wp(STAGING, "eval", "register_taxonomy('pa_color', 'post'); wp_insert_term('Red', 'pa_color');")
    broken = shop.hosting.path(STAGING, "current/wp-content/mu-plugins/broken.php")
    shop.hosting.node.ssh(["tee", broken], input="<?php this is not php;")

    def rows(tables: str) -> str:
        """All that the tables have; the numbers that their next rows get went on."""
        database = f"wp_{shop.hosting.short(PRODUCTION)}"
        dump = f"mariadb-dump --compact --skip-create-options --order-by-primary {database} {tables}"
        return shop.hosting.node.ssh(dump).stdout

    tables, changed = shop.sql(PRODUCTION, "SHOW TABLES;"), " ".join(re.findall(r"TABLE (\w+)", PAIRED))
    before = [shop.option(PRODUCTION, "active_plugins"), rows(changed)]
    assert shop.promote().status != 0
    shop.abandon(was)
    assert shop.sql(PRODUCTION, "SHOW TABLES;") == tables, "what came with the plugin went with it"
    assert [shop.option(PRODUCTION, "active_plugins"), rows(changed)] == before
    shop.hosting.node.ssh(["rm", broken])
    compared = shop.compare().raise_if_failed()
    told, named = re.sub(r"\s+", " ", compared.output), previewed(compared)
    assert named["moves"]["table", "ours_forms"]["reason"] == "comes_with_plugin"
    assert named["left_behind"]["attribute", "3"]["reason"] == "half_of_a_pair"
    assert named["left_behind"]["attribute", "3"]["details"] == ["it needs terms that the target lacks: red"]
    assert ("table", "ours_forms") not in named["left_behind"]
    run = shop.promote("-v")
    assert run.status == 0, run.output
    assert "our-forms.php" in shop.option(PRODUCTION, "active_plugins")
    page = shop.hosting.fetch(PRODUCTION, headers={"Cookie": "wordpress_no_cache=1"})
    assert page.status_code == 200, page.text
    assert shop.sql(PRODUCTION, "SELECT title FROM wp_ours_forms;") == f"Contact, {url}/contact"
    assert shop.sql(PRODUCTION, "SELECT COUNT(*) FROM wp_ours_entries;") == "0", "a copy's visitors are nobody's"
    assert shop.sql(PRODUCTION, "SHOW TABLES LIKE 'wp\\_by\\_hand';") == ""
    assert "Table wp_ours_forms comes with its plugin, with its rows" in run.output
    assert shop.sql(PRODUCTION, "SELECT tax_rate_id, tax_rate_class FROM wp_woocommerce_tax_rates;") == "7\treduced"
    assert shop.sql(PRODUCTION, "SELECT slug FROM wp_wc_tax_rate_classes ORDER BY 1;").split() == ["reduced", "zero"]
    assert shop.sql(PRODUCTION, "SELECT COUNT(*) FROM wp_woocommerce_attribute_taxonomies;") == "0"
    assert (
        "Row of wp_woocommerce_attribute_taxonomies, 3 stays: it needs terms that the target lacks: red" in run.output
    )
    assert '"made": ["wp_ours_entries", "wp_ours_forms"]' in told
    shop.sql(STAGING, "INSERT INTO wp_woocommerce_attribute_taxonomies VALUES (9, 'plain');")
    shop.put(PRODUCTION, "_transient_wc_attribute_taxonomies", "made of the rows before")
    assert (run := shop.promote()).status == 0, run.output
    assert shop.sql(PRODUCTION, "SELECT attribute_name FROM wp_woocommerce_attribute_taxonomies;") == "plain"
    assert shop.option(PRODUCTION, "_transient_wc_attribute_taxonomies") == ""
