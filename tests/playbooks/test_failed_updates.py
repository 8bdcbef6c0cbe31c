"""An update that fails when visitors have it already: its changes leave the tables, and what they wrote stays."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.updated_site import UpdatedSite, speaking

pytestmark = [pytest.mark.lab, pytest.mark.in_order]
KEY = "migrated/production"
SHOP = """
CREATE TABLE wp_shop_orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, token VARCHAR(60) NOT NULL, note VARCHAR(60) NOT NULL
DEFAULT 'none', seen TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00' ON UPDATE CURRENT_TIMESTAMP);
CREATE TABLE wp_shop_stock (product INT PRIMARY KEY, left_over INT NOT NULL);
CREATE TABLE wp_shop_prices (product INT PRIMARY KEY, price INT NOT NULL, sold INT NOT NULL);
CREATE TABLE wp_shop_old (id INT PRIMARY KEY, text VARCHAR(20));
INSERT INTO wp_shop_orders (token, note) VALUES ('first', 'kept');
INSERT INTO wp_shop_stock VALUES (1, 1000000);
INSERT INTO wp_shop_prices VALUES (1, 20, 0), (2, 30, 0);
INSERT INTO wp_shop_old VALUES (1, 'kept');
INSERT INTO wp_options (option_name, option_value) VALUES ('shop_version', '1'), ('shop_old', 'kept');
"""
SELLING = """
add_action('init', function () {
    if (isset($_POST['order'])) {
        global $wpdb;
        $wpdb->query('START TRANSACTION');
        $wpdb->query('UPDATE wp_shop_stock SET left_over = left_over - 1');
        $wpdb->query('UPDATE wp_shop_prices SET sold = sold + 1 WHERE product = 1');
        $done = $wpdb->insert('wp_shop_orders', array('token' => $_POST['order']));
        $id = $wpdb->insert_id;
        $wpdb->query($done ? 'COMMIT' : 'ROLLBACK');
        die($done ? "order $id" : 'no');
    }
}, 20);
"""
MIGRATING = """
add_action('init', function () {
    global $wpdb;
    if (get_option('shop_version') === '1' && $wpdb->get_var("SELECT GET_LOCK('shop', 0)")) {
        $wpdb->query('ALTER TABLE wp_shop_orders ADD COLUMN currency VARCHAR(3) NOT NULL DEFAULT "EUR"');
        $wpdb->query('ALTER TABLE wp_shop_orders DROP COLUMN note');
        $wpdb->query('UPDATE wp_shop_prices SET price = price * 100');
        $wpdb->query('DELETE FROM wp_shop_prices WHERE product = 2');
        $wpdb->query('INSERT INTO wp_shop_prices VALUES (3, 4000, 0)');
        $wpdb->query('DROP TABLE wp_shop_old');
        $wpdb->query('CREATE TABLE wp_shop_new (id INT PRIMARY KEY)');
        $wpdb->query('INSERT INTO wp_shop_new VALUES (1)');
        update_option('shop_settings', array('made' => microtime(true)));
        delete_option('shop_old');
        update_option('shop_version', '2');
    }
}, 10);
"""
ONLY_LIVE = "add_action('init', function () {{ if ('production' === TRUEUP_ENVIRONMENT) {{ {}; }} }}, 30);"
FAILURES = {
    "white": ONLY_LIVE.format("die()"),
    "fatal": ONLY_LIVE.format("no_such_function()"),
    "slow": ONLY_LIVE.format("sleep(40)"),
}
VISITORS = """
import http.client, json, select, sys, threading
host, name = json.loads(sys.stdin.readline())
over, told = threading.Event(), []
def visit(number):
    count = 0
    while not over.wait(0.05):
        count += 1
        token = "%s-%d-%d" % (name, number, count)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", timeout=60)
            connection.request("POST", "/", "order=" + token,
                {"Host": host, "Content-Type": "application/x-www-form-urlencoded"})
            answer = connection.getresponse()
            said = answer.read().decode()
            if answer.status == 200 and said.startswith("order "):
                told.append([int(said.split()[1]), token])
        except (OSError, http.client.HTTPException):
            pass
threads = [threading.Thread(target=visit, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(told))
"""


class Visitors:
    """They order on the node while the block runs; ``orders`` are those that were acknowledged: ``[number, token]``."""

    def __init__(self, hosting: Hosting, name: str) -> None:
        self.hosting = hosting
        self.name = name
        self.orders: list[tuple[int, str]] = []

    def __enter__(self) -> "Visitors":
        argv = [*self.hosting.node.ssh_command(), shlex.join(["python3", "-c", VISITORS])]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin
        self.process.stdin.write(json.dumps([self.hosting.environments[KEY]["hostnames"][0], self.name]) + "\n")
        self.process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        told, _error = self.process.communicate("stop\n", timeout=300)
        self.orders = [(number, token) for number, token in json.loads(told)]


class Shop(UpdatedSite):
    def query(self, query: str) -> str:
        return self.hosting.sql(self.key, query)

    def orders(self) -> list[tuple[int, str]]:
        lines = self.query("SELECT id, token FROM wp_shop_orders ORDER BY id").splitlines()
        return [(int(line.split("\t")[0]), line.split("\t")[1]) for line in lines]

    def holds(self, acknowledged: list[tuple[int, str]]) -> None:
        """Each acknowledged order is there once, by its number, and was taken from the stock; all else is as before."""
        there = self.orders()
        assert set(acknowledged) <= set(there), "an order was lost"
        assert len({number for number, _ in acknowledged}) == len(acknowledged), "a number was given twice"
        assert len({token for _, token in there}) == len(there)
        taken = len(there) - 1
        assert self.query("SELECT left_over FROM wp_shop_stock") == str(1000000 - taken)
        assert self.query("SELECT product, price FROM wp_shop_prices ORDER BY product") == "1\t20\n2\t30"
        assert self.query("SELECT sold FROM wp_shop_prices WHERE product = 1") == str(taken)
        columns = [line.split("\t")[0] for line in self.query("SHOW COLUMNS FROM wp_shop_orders").splitlines()]
        assert columns == ["id", "token", "note", "seen"]
        assert self.query("SELECT token, note, seen FROM wp_shop_orders WHERE id = 1") == (
            "first\tkept\t2020-01-01 00:00:00"
        )
        assert self.query("SELECT * FROM wp_shop_old") == "1\tkept"
        assert self.query("SHOW TABLES LIKE 'wp_shop_new'") == ""
        assert self.query(
            "SELECT option_name, option_value FROM wp_options WHERE option_name LIKE 'shop\\_%' ORDER BY 1"
        ) == ("shop_old\tkept\nshop_version\t1")


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture(scope="module")
def shop(hosting: Hosting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    hosting.apply(KEY).raise_if_failed()
    hosting.sql(KEY, SHOP)
    yield Shop(hosting, KEY, tmp_path_factory.mktemp("packages"), SELLING + speaking("one"))
    del hosting.environments[KEY]


@pytest.mark.parametrize(
    "failure", ["white", pytest.param("fatal", marks=pytest.mark.long), pytest.param("slow", marks=pytest.mark.long)]
)
def test_nobody_s_order_is_lost(shop: Shop, failure: str) -> None:
    with Visitors(shop.hosting, failure) as visitors:
        run = shop.update("2.0", MIGRATING + SELLING + FAILURES[failure])
    shop.back()
    assert run.status != 0

    assert "RELEASE_UNHEALTHY" in run.output, run.output
    assert "put back as they were, and the site is healthy" in run.output, run.output
    assert shop.word == "one"
    assert visitors.orders
    shop.holds(visitors.orders)
    aside = f"wp_{shop.hosting.short(KEY)}_failed"
    assert [one for one in shop.databases() if one != aside] == [f"wp_{shop.hosting.short(KEY)}"]
    set_aside = shop.hosting.node.ssh(["mariadb", "-N", aside, "-e", "SHOW TABLES"]).stdout.split()
    assert {"wp_shop_orders", "wp_shop_new"} <= set(set_aside), "and nothing of the update's was thrown away"
    with Visitors(shop.hosting, f"after-{failure}") as later:
        shop.hosting.run("environment", KEY).raise_if_failed()
    assert not {number for number, _ in later.orders} & {number for number, _ in visitors.orders}
    shop.holds([*visitors.orders, *later.orders])


@pytest.mark.long
def test_what_was_written_into_a_table_that_it_made_stays_there(shop: Shop) -> None:
    code = """
    add_action('init', function () {
        $GLOBALS['wpdb']->query('CREATE TABLE IF NOT EXISTS wp_shop_extra (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT)');
        if (isset($_POST['order'])) {
            $GLOBALS['wpdb']->insert('wp_shop_extra', array('t' => $_POST['order']));
        }
    }, 15);
    """
    with Visitors(shop.hosting, "extra") as visitors:
        run = shop.update("2.1", code + SELLING + FAILURES["slow"])
    shop.back()
    assert "stay, though the former code knows none of them: wp_shop_extra" in run.output, run.output
    kept: Any = set(shop.query("SELECT t FROM wp_shop_extra").splitlines())
    assert kept & {token for _, token in visitors.orders}
    shop.query("DROP TABLE wp_shop_extra")
    shop.holds(visitors.orders)


@pytest.mark.long
def test_killed_while_visitors_order_and_taken_back(shop: Shop) -> None:
    with Visitors(shop.hosting, "killed") as visitors:
        shop.former = shop.hosting.environments[KEY]["release"]
        shop.declare("2.2", MIGRATING + SELLING + FAILURES["slow"])
        shop.kill_when(shop.is_switched())
        shop.back()
        told = shop.hosting.run("environment", KEY, "-v").raise_if_failed()
    assert "without its changes" in told.output or told.changed, told.output
    assert shop.word == "one"
    shop.holds(visitors.orders)
    assert shop.hosting.run("environment", KEY).raise_if_failed().changed == 0
