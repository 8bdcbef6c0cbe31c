"""A failed update taken out of the tables of a site that was broken into, and made of them what it likes meanwhile."""

import json
import shlex

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.exploded import exploded

pytestmark = [pytest.mark.long, pytest.mark.lab]
KEY = "taken-over/production"

SCRIPT = r"""
import json, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import snapshot, stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.database import end_connections
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Run
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.wordpress import Configuration
id_, hostile = json.load(sys.stdin)
release = "11111111-2222-4333-8444-555555555555"
layout = Layout(id_, release)
live, password = layout.database, Configuration(layout, "").password
run = Run(False, "/root/taken-over.pending", None)
kept = snapshot.Snapshot(run, layout)

def site(*statements):
    with sql.Session(live, password, live) as session:
        session.say(*statements)

def rows(query):
    with sql.Session("root", database=live) as session:
        return [list(row) for row in session.rows(query)]

def update(database):
    with sql.Session("root", database=database) as session:
        session.say(
            "UPDATE wp_prices SET price = price * 100", "DROP TABLE wp_gone", "DROP TABLE wp_old",
            "UPDATE wp_sums SET price = price * 100", "CREATE TABLE wp_new (id INT PRIMARY KEY)",
            "UPDATE wp_moved SET v = 'updated'", "UPDATE wp_history SET v = 'updated'",
        )

site(
    "CREATE TABLE wp_prices (id INT PRIMARY KEY, price INT)", "INSERT INTO wp_prices VALUES (1, 20), (2, 30)",
    "CREATE TABLE wp_sums (id INT PRIMARY KEY, price INT, both_ INT AS (price * 2) PERSISTENT, KEY (both_))",
    "INSERT INTO wp_sums (id, price) VALUES (1, 20)",
    "CREATE TABLE wp_gone (id INT PRIMARY KEY)", "INSERT INTO wp_gone VALUES (7)",
    "CREATE TABLE wp_old (id INT PRIMARY KEY)", "INSERT INTO wp_old VALUES (8)",
    "CREATE TABLE wp_moved (id INT PRIMARY KEY, v TEXT)", "INSERT INTO wp_moved VALUES (1, 'former')",
    "CREATE TABLE wp_history (id INT PRIMARY KEY, v TEXT)", "INSERT INTO wp_history VALUES (1, 'former')",
    "CREATE TRIGGER was BEFORE UPDATE ON wp_prices FOR EACH ROW SET @a = 'was'",
)
copy = f"{live}_rehearsed"
snapshot.copy_database(run, live, copy)
kept.migration.begin(copy)
update(copy)
kept.migration.record(copy, release)
sql.drop(copy)
kept.take(release)
update(live)
stored_objects.MOST = 3  # that a site has more of than what is carried along
connections = []
for one in hostile:
    # Whatever it is not let do does nobody any harm.
    connections.append(sql.Session(live, password, live))
    connections[-1].say(*one)
site("SET PASSWORD = PASSWORD('another-one-that-nobody-else-knows')")
end_connections(live)
prepared = rows("XA RECOVER")
told = kept.take_out(release)
aside = rows(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{live}_failed'")
print(json.dumps({
    "told": told, "prepared": prepared, "aside": [name for (name,) in aside], "is_there": kept.is_there(),
    "prices": rows("SELECT * FROM wp_prices ORDER BY id"), "sums": rows("SELECT * FROM wp_sums"),
    "gone": rows("SELECT * FROM wp_gone"), "old": rows("SELECT * FROM wp_old"), "moved": rows("SELECT * FROM wp_moved"),
    "history": rows("SELECT * FROM wp_history"),
    "kinds": rows("SELECT table_name, table_type FROM information_schema.tables WHERE table_type <> 'BASE TABLE' "
                  f"AND table_schema = '{live}'"),
    "triggers": rows(f"SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{live}'"),
    "packages": rows(f"SELECT name FROM mysql.proc WHERE type LIKE 'PACKAGE%' AND db = '{live}'"),
    "lets_in": bool(sql.own(live, password)),
}))
"""

HOSTILE = {
    "a trigger": [
        "CREATE TRIGGER refusing BEFORE UPDATE ON wp_sums FOR EACH ROW SIGNAL SQLSTATE '45000'",
        "CREATE TRIGGER sleeping BEFORE DELETE ON wp_moved FOR EACH ROW DO SLEEP(1000)",
    ],
    "a view": [
        "RENAME TABLE wp_moved TO wp_away",
        "CREATE SQL SECURITY INVOKER VIEW wp_moved AS SELECT id, SLEEP(1000) AS v FROM wp_away",
    ],
    "more of them": [f"CREATE VIEW wp_view_{n} AS SELECT 1" for n in range(9)],
    "a package": [
        "SET SESSION sql_mode = 'ORACLE'",
        "CREATE PACKAGE wp_package AS PROCEDURE one(a INT); END",
        "CREATE PACKAGE BODY wp_package AS PROCEDURE one(a INT) AS BEGIN NULL; END; END",
    ],
    "a sequence": ["CREATE SEQUENCE wp_gone", "CREATE SEQUENCE wp_sequence"],
    "a history": ["ALTER TABLE wp_history ADD SYSTEM VERSIONING"],
    "an unreadable one": [
        "CREATE TABLE wp_part (id INT) ENGINE=MyISAM",
        "CREATE TABLE wp_whole (id INT) ENGINE=MERGE UNION=(wp_part)",
        "DROP TABLE wp_part",
    ],
    # Of a user who may nothing more than what WordPress may.
    "prepared": [
        "XA START 'held'",
        "UPDATE wp_prices SET price = price + 1",
        "INSERT INTO wp_new VALUES (1)",
        "XA END 'held'",
        "XA PREPARE 'held'",
    ],
    "under way": ["BEGIN", "SELECT * FROM wp_options FOR UPDATE"],
}


def test_what_a_site_makes_of_its_tables_meanwhile_keeps_nothing_back(own_hosting: Hosting) -> None:
    """Triggers, views and sequences in place of tables, tables that nobody can read, locks that outlast who took them,
    and a password that it changed."""
    exploded(own_hosting, KEY)
    given = json.dumps([own_hosting.id(KEY), list(HOSTILE.values())])
    said = own_hosting.node.ssh(f"timeout 110 python3 -c {shlex.quote(SCRIPT)}", input=given, check=False, timeout=150)
    assert said.returncode == 0, said.stderr[-3000:]
    found = json.loads(said.stdout)
    assert found["prepared"] == []
    assert found["prices"] == [["1", "20"], ["2", "30"]]
    assert found["sums"] == [["1", "20", "40"]]
    assert (found["gone"], found["old"]) == ([["7"]], [["8"]])
    assert found["moved"] == [["1", "former"]]
    assert found["history"] == [["1", "former"]]
    assert found["kinds"] == [["wp_sequence", "SEQUENCE"]]
    assert found["triggers"] == [["was"]]
    assert found["packages"] == []
    assert found["lets_in"]
    assert not found["is_there"]
    assert {"wp_new", "wp_gone", "wp_history"} <= {*found["aside"]}, "nothing is thrown away"
    (unread,) = [one for one in found["told"] if "cannot be read" in one]
    assert "wp_whole" in unread
    assert own_hosting.fetch(KEY).status_code == 200
