"""A text replaced in the tables of a real MariaDB while others write, looked for, and taken back."""

import base64
import hashlib
import json
import random
from typing import Any

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.exploded import exploded
from tests.playbooks.test_rewrite import php

pytestmark = pytest.mark.lab
KEY = "replacing/production"
BEGIN = """
import json, os, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import replace
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
database, undo = sys.argv[1], "/root/undo.jsonl"
given = json.load(sys.stdin)
session = sql.within(database)
session.say("SET SESSION sql_mode = ''")
def table(name):
    return sql.qualified(database, name)
def all_of(name):
    return [[None if v is None else v.decode("latin-1") for v in row]
            for row in session.raw(f"SELECT * FROM {table(name)} ORDER BY 1")]
def anew(name, columns, *rows):
    session.say(f"DROP TABLE IF EXISTS {table(name)}", f"CREATE TABLE {table(name)} ({columns})")
    for row in rows:
        values = ", ".join(sql.literal(v.encode("latin-1") if isinstance(v, str) else v) for v in row)
        session.say(f"INSERT INTO {table(name)} VALUES ({values})")
def request(search, new, *tables, **more):
    return replace.Request(search, new, tables, **more)
def made(asked):
    replace.forget(undo)
    return replace.replace(database, asked, undo, "content").told()
"""
POSTS = "ID BIGINT PRIMARY KEY, post_title TEXT, post_content LONGTEXT, post_name VARCHAR(200), guid VARCHAR(255), "
POSTS += "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"


class Tables:
    """The draft database of an environment, in which nothing is but what a test makes."""

    def __init__(self, hosting: Hosting) -> None:
        self.node = hosting.node
        self.database = f"wp_{hosting.short(KEY)}_next"
        self.node.ssh(["mariadb", "-e", f"CREATE DATABASE IF NOT EXISTS {self.database} CHARACTER SET utf8mb4"])

    def run(self, script: str, **given: Any) -> Any:
        """What a script on the node says as JSON, after the code of the environment's module was loaded."""
        code = (
            f"cat > /root/replacing.json && python3 -c {_quoted(BEGIN + script)} {self.database} < /root/replacing.json"
        )
        return json.loads(self.node.ssh(code, input=json.dumps(given)).stdout)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.fixture(scope="module")
def tables(own_hosting: Hosting) -> Tables:
    exploded(own_hosting, KEY)
    return Tables(own_hosting)


def _value(chance: random.Random) -> str:
    text = "".join(chance.choice(["Acme", "a", " ", "é", '"', "\\", "/", "<p>", "Acme Acme"]) for _ in range(6))
    forms = [text, json.dumps({"t": text}), php({"t": [text, 1]}).decode(), php(json.dumps([text])).decode(), "s:3:x"]
    return chance.choice(forms).encode().decode("latin-1")


@pytest.mark.long
def test_a_dry_run_counts_what_the_run_changes_and_changes_nothing_itself(tables: Tables) -> None:
    """Over tables of any values, with and without the text; taken back, each is again what it was byte for byte."""
    chance = random.Random(20)
    rows = [[n, _value(chance), _value(chance), "acme", "Acme", "2011-02-03 04:05:06"] for n in range(1, 301)]
    found = tables.run(
        f'anew("wp_posts", "{POSTS}", *given["rows"])\n'
        f'anew("wp_old", "{POSTS}) ENGINE=MyISAM COMMENT=(", *[])\n'.replace(") ENGINE=MyISAM COMMENT=(", "")
        + "session.say(f\"ALTER TABLE {table('wp_old')} ENGINE=MyISAM\",\n"
        "    f\"INSERT INTO {table('wp_old')} SELECT * FROM {table('wp_posts')}\")\n"
        'names, states = ("wp_posts", "wp_old"), []\n'
        "def state():\n"
        "    states.append({name: all_of(name) for name in names})\n"
        'state()\nlooked = replace.look(database, request("Acme", "Acme plc", *names)).told()\nstate()\n'
        'done = made(request("Acme", "Acme plc", *names))\nstate()\n'
        "replace.take_back(database, undo)\nstate()\n"
        "print(json.dumps([looked, done, states, os.path.exists(undo)]))",
        rows=rows,
    )
    looked, done, (before, after_look, after, back), is_left = found
    assert looked == done
    changed = [
        a != b
        for name in before
        for old, new in zip(before[name], after[name], strict=True)
        for a, b in zip(old, new, strict=True)
    ]
    assert looked["count"] == sum(changed) > 300
    assert {one["table"]: one["count"] for one in looked["tables"]}.keys() == {"wp_posts", "wp_old"}
    assert after_look == before
    assert back == before
    assert not is_left
    # Key, slug, guid and the time of the last change stay as they are.
    for name in before:
        assert [[row[0], *row[3:]] for row in after[name]] == [[row[0], *row[3:]] for row in before[name]]


def test_what_visitors_write_meanwhile_stays(tables: Tables) -> None:
    """Between a row's reading and its change somebody writes: into it, into another column, and takes one away."""
    after, told, back = tables.run(
        'anew("wp_comments", "id INT PRIMARY KEY, v TEXT, w TEXT", *[(n, "Acme", "Acme") for n in range(1, 6)])\n'
        "taken, tries = replace._Exact.taken, []\n"
        "def while_visitors_write(self, into, rows):\n"
        "    place = into.place\n"
        "    if not tries:\n"
        "        with sql.opened(database) as visitor:\n"
        "            visitor.say(f\"UPDATE {place} SET v = 'Acme, said a visitor' WHERE id = 2\",\n"
        '                f"UPDATE {place} SET v = \'nothing\' WHERE id = 3", f"DELETE FROM {place} WHERE id = 4",\n'
        "                f\"INSERT INTO {place} VALUES (9, 'Acme', 'new')\")\n"
        "    tries.append(len(rows))\n"
        "    return taken(self, into, rows)\n"
        "replace._Exact.taken = while_visitors_write\n"
        'told = made(request("Acme", "Acme Acme", "comments"))\n'
        'after = all_of("wp_comments")\n'
        "session.say(f\"UPDATE {table('wp_comments')} SET w = 'later' WHERE id = 1\")\n"
        "replace.take_back(database, undo)\n"
        'print(json.dumps([after, told, all_of("wp_comments")]))'
    )
    assert after == [
        ["1", "Acme Acme", "Acme Acme"],
        ["2", "Acme Acme, said a visitor", "Acme Acme"],
        ["3", "nothing", "Acme Acme"],
        ["5", "Acme Acme", "Acme Acme"],
        ["9", "Acme", "new"],
    ]
    assert told["count"] == 7
    assert back[1:] == [
        ["2", "Acme, said a visitor", "Acme"],
        ["3", "nothing", "Acme"],
        ["5", "Acme", "Acme"],
        after[4],
    ]
    # In the row that somebody has changed since, their word stays.
    assert back[0][2] == "later"


SPOILT = {
    "gone": "DROP TABLE {0}",
    "narrow": "ALTER TABLE {0} DROP COLUMN v",
    "unique": "INSERT INTO {0} VALUES (9, 'Acme 2')",
    "checked": "ALTER TABLE {0} ADD CHECK (id <> 2 OR v NOT LIKE 'Acme%')",
    "signal": "CREATE TRIGGER {0}_t BEFORE UPDATE ON {0} FOR EACH ROW IF OLD.id = 2 THEN SIGNAL SQLSTATE '45000' "
    "SET MESSAGE_TEXT = 'Not \\nfor you'; END IF",
    "liar": "CREATE TRIGGER {0}_t BEFORE UPDATE ON {0} FOR EACH ROW IF OLD.id = 2 THEN SIGNAL SQLSTATE '40001' "
    "SET MYSQL_ERRNO = 1213; END IF",
    "lost": "CREATE TRIGGER {0}_t BEFORE UPDATE ON {0} FOR EACH ROW IF OLD.id = 2 THEN SIGNAL SQLSTATE '45000' "
    "SET MYSQL_ERRNO = 2013; END IF",
    "killer": "CREATE TRIGGER {0}_t BEFORE UPDATE ON {0} FOR EACH ROW IF OLD.id = 2 THEN KILL CONNECTION_ID(); END IF",
}
"""What a site does to a table before a text is taken back in it, so that its second row, or none, can be."""


def test_what_cannot_be_taken_back_stays_and_is_told_and_keeps_nothing_else_back(tables: Tables) -> None:
    """The next run takes a killed one's replacement back: whatever a site says to that, the run goes on."""
    before, after, notes, is_left = tables.run(
        "from ansible_collections.trueup.wordpress.plugins.module_utils.content import leftovers\n"
        "from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout\n"
        "from ansible_collections.trueup.wordpress.plugins.module_utils.environment.ledger import Ledger\n"
        "from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Run\n"
        'names = [*given["spoilt"], "whole"]\n'
        "for name in names:\n"
        '    unique = ", UNIQUE (v)" if name == "unique" else ""\n'
        '    anew(f"wp_{name}", "id INT PRIMARY KEY, v VARCHAR(50)" + unique, *[(n, f"Acme {n}") for n in (1, 2, 3)])\n'
        'before = all_of("wp_whole")\n'
        'made(request("Acme", "Beta", *names))\n'
        'for name, statement in given["spoilt"].items():\n'
        '    session.say(f"USE {sql.identifier(database)}", statement.format(f"wp_{name}"))\n'
        'layout = Layout("0a1b2c3d-4e5f-4000-8000-000000000000")\n'
        "layout.database, layout.replaced = database, undo\n"
        'run = Run(False, "/root/replacing.pending", None)\n'
        'assert leftovers.replacement(run, layout, Ledger("/root/none"))\n'
        "run.end()\n"
        'after = {name: all_of(f"wp_{name}") for name in names if name != "gone"}\n'
        'for name in ("signal", "liar", "lost", "killer"):\n'
        '    session.say("DROP TABLE " + table(f"wp_{name}"))\n'
        "print(json.dumps([before, after, run.notes, os.path.exists(undo)]))",
        spoilt=SPOILT,
    )
    assert not is_left
    assert after.pop("whole") == before
    assert after.pop("narrow") == [["1"], ["2"], ["3"]]
    assert after.pop("unique") == [before[0], ["2", "Beta 2"], before[2], ["9", "Acme 2"]]
    for name, rows in after.items():
        assert rows == [before[0], ["2", "Beta 2"], before[2]], name
    told = {name: next(note for note in notes if f" wp_{name} " in note) for name in SPOILT}
    assert len(notes) == len(SPOILT)
    counts = {name: 3 if name in ("gone", "narrow") else 1 for name in SPOILT}
    for name, note in told.items():
        rows = "row" if counts[name] == 1 else "rows"
        assert note.startswith(f"{counts[name]} {rows} of wp_{name} could not be taken back"), note
        assert note.endswith("began with: Acme 2" if counts[name] == 1 else "began with: Acme 1"), note
        assert note.isprintable()
    assert "1146" in told["gone"]
    assert "1054" in told["narrow"]
    assert "1062" in told["unique"]
    assert "4025" in told["checked"]
    assert "1644): Not ?for you" in told["signal"]


def test_what_makes_everybody_wait_is_given_up_and_all_else_is_taken_back(tables: Tables) -> None:
    """A trigger that sleeps, whatever limit it lifts, costs a few rows' time; a lock that nobody holds, none."""
    tries, before, after, notes = tables.run(
        "from ansible_collections.trueup.wordpress.plugins.module_utils.content import rewrite_tables\n"
        "class Clock:\n"
        "    now = 0\n"
        "    def monotonic():\n"
        "        return Clock.now\n"
        "rewrite_tables.STATEMENT_S, rewrite_tables.LOCK_S, rewrite_tables.time = 3, 1, Clock\n"
        'names = ("first", "held", "sleeping", "whole")\n'
        "for name in names:\n"
        '    anew(f"wp_{name}", "id INT PRIMARY KEY, v VARCHAR(50)", *[(n, f"Acme {n}") for n in range(1, 61)])\n'
        'before = all_of("wp_whole")\n'
        'made(request("Acme", "Beta", *names))\n'
        "place = table('wp_sleeping')\n"
        'session.say(f"USE {sql.identifier(database)}",\n'
        '    f"CREATE TRIGGER sleeper BEFORE UPDATE ON {place} FOR EACH ROW "\n'
        '    "BEGIN SET SESSION max_statement_time = 0; SET SESSION lock_wait_timeout = 86400; DO SLEEP(1000); END")\n'
        "with sql.opened(database) as gone:\n"
        "    held = f\"UPDATE {table('wp_held')} SET v = 'held'\"\n"
        "    gone.say(\"XA START 'replacing'\", held, \"XA END 'replacing'\", \"XA PREPARE 'replacing'\")\n"
        "tries, refused = [], rewrite_tables.InUse._refused\n"
        "def counted(self, statements):\n"
        '    tries.append(any("sleeping" in one for one in statements))\n'
        "    try:\n"
        "        return refused(self, statements)\n"
        "    finally:\n"
        "        Clock.now += rewrite_tables.PATIENCE_S + 1 if tries[-1] else 0\n"
        "rewrite_tables.InUse._refused = counted\n"
        "notes = replace.take_back(database, undo)\n"
        'session.say("DROP TRIGGER sleeper")\n'
        'print(json.dumps([sum(tries), before, {name: all_of(f"wp_{name}") for name in names}, notes]))',
    )
    assert after["first"] == after["held"] == after["whole"] == before
    assert after["sleeping"] == [[key, value.replace("Acme", "Beta")] for key, value in before]
    assert 0 < tries < 10
    (note,) = notes
    assert note.startswith("60 rows of wp_sleeping could not be taken back"), note


def test_a_server_that_is_not_there_keeps_the_way_back(tables: Tables) -> None:
    """Such a run fails, and the next one takes back what this one could not."""
    said, is_left, back = tables.run(
        'anew("wp_comments", "id INT PRIMARY KEY, v TEXT", (1, "Acme"))\n'
        'made(request("Acme", "Beta", "comments"))\n'
        "class Gone(sql.Session):\n"
        '    """Ends with the first statement, as the server is stopped."""\n'
        "    def together(self, statements):\n"
        "        self._connection._force_close()\n"
        '        sql.SOCKET = "/root/no.sock"\n'
        "        super().together(statements)\n"
        "socket, real, sql.Session = sql.SOCKET, sql.Session, Gone\n"
        "try:\n    replace.take_back(database, undo)\n"
        "except Failure as error:\n    said = str(error)\n"
        "is_left, sql.SOCKET, sql.Session = os.path.exists(undo), socket, real\n"
        "assert replace.take_back(database, undo) == []\n"
        'print(json.dumps([said, is_left, all_of("wp_comments")]))'
    )
    assert "MariaDB" in said
    assert is_left
    assert back == [["1", "Acme"]]


def test_a_server_that_cannot_write_keeps_the_way_back_whatever_a_site_s_triggers_say(tables: Tables) -> None:
    """A trigger may give any reason; that the server takes no writes is known without it."""
    said, is_left, back = tables.run(
        'anew("wp_comments", "id INT PRIMARY KEY, v TEXT", (1, "Acme"))\n'
        'made(request("Acme", "Beta", "comments"))\n'
        "place = table('wp_comments')\n"
        'session.say(f"USE {sql.identifier(database)}",\n'
        '    f"CREATE TRIGGER a_trigger BEFORE UPDATE ON {place} FOR EACH ROW SET @n = 1")\n'
        'sql.root().say("SET GLOBAL read_only = 1")\n'
        "try:\n    replace.take_back(database, undo)\n    said = None\n"
        "except Failure as error:\n    said = str(error)\n"
        'finally:\n    sql.root().say("SET GLOBAL read_only = 0")\n'
        "is_left = os.path.exists(undo)\n"
        "assert replace.take_back(database, undo) == []\n"
        'session.say("DROP TRIGGER a_trigger")\n'
        'print(json.dumps([said, is_left, all_of("wp_comments")]))'
    )
    assert "1290" in said
    assert is_left
    assert back == [["1", "Acme"]]


def test_rows_whose_former_values_others_have_are_taken_back_with_those(tables: Tables) -> None:
    """The new text has the former one in it: each row got what the next one had, and gives it back."""
    rows = [[1, "abababab", ""], [2, "abab", ""], [3, "ab", ""]]
    after, notes, back = tables.run(
        'anew("wp_chain", "id INT PRIMARY KEY, v VARCHAR(50) UNIQUE, w TEXT", *given["rows"])\n'
        'made(request("ab", "abab", "chain"))\n'
        'after = all_of("wp_chain")\n'
        "notes = replace.take_back(database, undo)\n"
        'print(json.dumps([after, notes, all_of("wp_chain")]))',
        rows=rows,
    )
    assert after == [["1", "ab" * 8, ""], ["2", "ab" * 4, ""], ["3", "abab", ""]]
    assert notes == []
    assert back == [[str(row[0]), *row[1:]] for row in rows]


def test_yoast_finds_a_page_by_the_digest_of_its_address(tables: Tables) -> None:
    """A digest that has the text in it by chance is none of it."""
    rows = [[1, "/acme/a/", None], [2, "/acme/b/", "4:0123"], [3, "/other/", "9:acme"], [4, None, None]]
    rows[0][2] = f"8:{hashlib.md5(b'/acme/a/').hexdigest()}"
    found, told, back = tables.run(
        'anew("wp_yoast_indexable", "id INT PRIMARY KEY, permalink LONGTEXT, permalink_hash VARCHAR(40)", '
        '*given["rows"])\n'
        'told = made(request("acme", "beta-acme", "yoast_indexable"))\n'
        'found = all_of("wp_yoast_indexable")\n'
        "replace.take_back(database, undo)\n"
        'print(json.dumps([found, told, all_of("wp_yoast_indexable")]))',
        rows=rows,
    )
    digest = f"13:{hashlib.md5(b'/beta-acme/a/').hexdigest()}"
    assert found[0] == ["1", "/beta-acme/a/", digest]
    assert found[1:] == [["2", "/beta-acme/b/", "4:0123"], ["3", *rows[2][1:]], ["4", None, None]]
    assert [(one["column"], one["reason"]) for one in told["left"]] == [
        ("permalink_hash", "code knows it by this name")
    ]
    assert back == [[str(row[0]), *row[1:]] for row in rows]


def test_the_way_back_leaves_room_on_the_disk(tables: Tables) -> None:
    """It is asked for before each part: what was replaced by then can be taken back."""
    said, (before, after, back) = tables.run(
        "import subprocess\n"
        'os.makedirs("/root/small", exist_ok=True)\n'
        'subprocess.run(["mount", "-t", "tmpfs", "-o", "size=270m", "tmpfs", "/root/small"], check=True)\n'
        'undo = "/root/small/undo.jsonl"\n'
        'anew("wp_full", "id INT PRIMARY KEY, v MEDIUMTEXT")\n'
        'place = table("wp_full")\n'
        "session.say(f'USE {sql.identifier(database)}')\n"
        "session.say(f\"INSERT INTO {place} SELECT seq, CONCAT('Acme', REPEAT('x', 20000)) FROM seq_1_to_400\")\n"
        'state = lambda: session.rows(f"SELECT LEFT(v, 4), COUNT(*) FROM {place} GROUP BY 1 ORDER BY 1")\n'
        "states = [state()]\n"
        "try:\n"
        '    made(request("Acme", "Beta", "full"))\n'
        "except Failure as error:\n"
        "    said = [str(error), error.facts]\n"
        "states.append(state())\n"
        "assert replace.take_back(database, undo) == []\n"
        "states.append(state())\n"
        'subprocess.run(["umount", "/root/small"], check=True)\n'
        "print(json.dumps([said, states]))"
    )
    assert said[1] == {"trueup_code": "SEARCH_NO_ROOM"}
    assert "of which 256 stay free" in said[0]
    assert before == back == [["Acme", "400"]]
    assert {text for text, _ in after} == {"Acme", "Beta"}


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM", "Aria"])
def test_a_row_that_is_refused_has_no_other_replaced_twice(tables: Tables, engine: str) -> None:
    after, told, back = tables.run(
        'anew("wp_checked", "id INT PRIMARY KEY, v VARCHAR(50)", *[(n, f"Acme {n}") for n in (1, 2, 3, 4)])\n'
        "session.say(f\"ALTER TABLE {table('wp_checked')} ENGINE={given['engine']}, \"\n"
        "    \"ADD CHECK (id <> 3 OR v = 'Acme 3')\")\n"
        'told = made(request("Acme", "Acme plc", "checked"))\n'
        'after = all_of("wp_checked")\n'
        "assert replace.take_back(database, undo) == []\n"
        'print(json.dumps([after, told, all_of("wp_checked")]))',
        engine=engine,
    )
    assert after == [[str(n), "Acme 3" if n == 3 else f"Acme plc {n}"] for n in (1, 2, 3, 4)]
    assert told["count"] == 3
    assert [(one["column"], one["reason"]) for one in told["left"]] == [("v", "the table does not take the new one")]
    assert back == [[str(n), f"Acme {n}"] for n in (1, 2, 3, 4)]


@pytest.mark.long
def test_a_row_of_64_mb_and_others_that_are_hostile(tables: Tables) -> None:
    found = tables.run(
        'anew("wp_large", "id INT PRIMARY KEY, v LONGBLOB")\n'
        'place = table("wp_large")\n'
        "session.say(f\"INSERT INTO {place} VALUES (1, CONCAT('Acme', REPEAT('x', {64 << 20}), 'Acme'))\",\n"
        "    f\"INSERT INTO {place} VALUES (2, CONCAT('[', REPEAT('[', 200000), 'Acme'))\",\n"
        "    f\"INSERT INTO {place} VALUES (3, REPEAT('<!-- wp:a {{Acme ', 50000))\",\n"
        "    f\"INSERT INTO {place} VALUES (4, REPEAT('Acme', 200000))\",\n"
        "    f\"INSERT INTO {place} VALUES (5, X'FF0041636D6500')\",\n"
        "    f\"INSERT INTO {place} VALUES (6, REPEAT('a:1:{{s:4:Acme', 50000))\")\n"
        'looked = replace.look(database, request("Acme", "Beta!", "large")).told()\n'
        'done = made(request("Acme", "Beta!", "large"))\n'
        'shape = f"SELECT id, LEFT(v, 5), RIGHT(v, 5), LENGTH(v) FROM {place} ORDER BY id"\n'
        "after = session.rows(shape)\n"
        "replace.take_back(database, undo)\n"
        "print(json.dumps([looked, done, after, session.rows(shape)]))"
    )
    looked, done, after, back = found
    assert looked == done
    assert after[0] == ["1", "Beta!", "Beta!", str((64 << 20) + 10)]
    assert back[0] == ["1", "Acmex", "xAcme", str((64 << 20) + 8)]
    assert {one["reason"] for one in done["left"]} >= {
        "its value has more than 100,000 addresses",
        "it is in base64 of what is no text",
    }


def test_passwords_keys_and_names_stay(tables: Tables) -> None:
    after, told = tables.run(
        'anew("wp_users", "ID INT PRIMARY KEY, user_login VARCHAR(60), user_pass VARCHAR(255), display_name TEXT",\n'
        '    (1, "Acme", "$P$Acme", "Acme"))\n'
        'anew("wp_options", "option_id INT PRIMARY KEY, option_name VARCHAR(191) UNIQUE, option_value LONGTEXT",\n'
        '    (1, "siteurl", "http://Acme"), (2, "Acme_color", "Acme"), (3, "auth_key", "Acme"))\n'
        'anew("wp_plain", "v TEXT", ("Acme",))\n'
        'anew("wp_named", "name VARCHAR(50) PRIMARY KEY, v VARCHAR(5), w VARCHAR(40) CHARACTER SET latin1",\n'
        '    ("Acme", "Acme", b"\\xe4 Acme"))\n'
        'told = made(request("Acme", "Société", "users", "options", "plain", "named"))\n'
        'print(json.dumps([{name: all_of(name) for name in ("wp_users", "wp_options", "wp_plain", "wp_named")}, told]))'
    )
    assert after == {
        "wp_users": [["1", "Acme", "$P$Acme", "Société".encode().decode("latin-1")]],
        "wp_options": [
            ["1", "siteurl", "http://Acme"],
            ["2", "Acme_color", "Société".encode().decode("latin-1")],
            ["3", "auth_key", "Acme"],
        ],
        "wp_plain": [["Acme"]],
        "wp_named": [["Acme", "Acme", "ä Société".encode().decode("latin-1")]],
    }
    left = {(one["table"], one["column"]): one for one in told["left"]}
    assert {key: one["reason"] for key, one in left.items()} == {
        ("wp_users", "user_login"): "code knows it by this name",
        ("wp_users", "user_pass"): "it is a password or a key",
        ("wp_options", "option_name"): "code knows it by this name",
        ("wp_options", "option_value"): "it is the environment's own, and declared elsewhere",
        ("wp_plain", ""): "the table has no primary key by which its rows are known",
        ("wp_named", "name"): "it is what the row is known by",
        ("wp_named", "v"): "the new one is too long for its column",
    }
    assert left["wp_users", "user_pass"]["example"] == left["wp_options", "option_value"]["example"] == ""


@pytest.mark.parametrize("charset", ["latin1", "latin2", "cp1251", "utf8mb3", "utf8mb4"])
def test_php_reads_what_was_replaced_whatever_a_column_is_stored_in(tables: Tables, charset: str) -> None:
    """Over a connection in utf8mb4, as WordPress has it: what is written there is what is read there."""
    old, new, beside = ("Акме", "Трест Ц", "Ё") if charset == "cp1251" else ("Acme", "Société", "ä")
    values = [old, f"{beside} {old}", {"t": old, beside: [beside, f"{beside}{old}"]}, json.dumps({"t": old})]
    before = [value.encode() if isinstance(value, str) else php(value) for value in values]
    before += [base64.b64encode(before[1]), php(json.dumps([f"{beside} {old}/"]))]
    new = new.replace("é", "ë") if charset == "latin2" else new
    found, told, back = tables.run(
        'anew("wp_stored", "id INT PRIMARY KEY, v TEXT CHARACTER SET " + given["charset"])\n'
        'place = table("wp_stored")\n'
        'for n, value in enumerate(given["values"]):\n'
        '    session.say(f"INSERT INTO {place} VALUES ({n}, {sql.literal(value)})")\n'
        "before = session.rows(f'SELECT v FROM {place} ORDER BY id')\n"
        'told = made(request(given["old"], given["new"], "stored"))\n'
        "found = session.rows(f'SELECT v FROM {place} ORDER BY id')\n"
        "replace.take_back(database, undo)\n"
        "back = session.rows(f'SELECT v FROM {place} ORDER BY id') == before\n"
        "print(json.dumps([[v for v, in found], told, back]))",
        charset=charset,
        values=[value.decode() for value in before],
        old=old,
        new=new,
    )
    assert found[:2] == [new, f"{beside} {new}"]
    assert json.loads(found[3]) == {"t": new}
    assert base64.b64decode(found[4]).decode() == f"{beside} {new}"
    assert found[2] == php({"t": new, beside: [beside, f"{beside}{new}"]}).decode()
    length, inner = found[5].removeprefix("s:").removesuffix('";').split(':"', 1)
    assert (int(length), json.loads(inner)) == (len(inner.encode()), [f"{beside} {new}/"])
    assert told["left"] == []
    assert back


def test_what_a_column_cannot_hold_or_is_not_read_in_stays_and_is_told(tables: Tables) -> None:
    after, told = tables.run(
        'anew("wp_sets", "id INT PRIMARY KEY, v TEXT CHARACTER SET latin1, w TEXT CHARACTER SET ucs2, "\n'
        '    "x TEXT CHARACTER SET cp1251", (1, "a Acme", "Acme", "Acme"), (2, "nothing", "", ""))\n'
        "session.say(f\"UPDATE {table('wp_sets')} SET w = 'Acme', x = CAST(X'9841636D65' AS BINARY)\")\n"
        'told = made(request("Acme", "漢", "sets"))\n'
        'print(json.dumps([all_of("wp_sets"), told]))'
    )
    assert [row[:3] for row in after] == [["1", "a Acme", "Acme"], ["2", "nothing", "Acme"]]
    assert {(one["column"], one["reason"], one["count"], one["example"]) for one in told["left"]} == {
        ("v", "its column's character set has no such characters", 1, "a Acme"),
        ("w", "its column's character set is one that is not read", 1, ""),
        ("x", "its column's character set is one that is not read", 2, "\ufffdAcme"),
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [('"Acme", "Beta", "nowhere"', "SEARCH_TABLE_MISSING"), ('"A", "B"', "SEARCH_REFUSED")],
)
def test_what_is_refused(tables: Tables, arguments: str, code: str) -> None:
    said = tables.run(
        f"try:\n    made(request({arguments}))\nexcept Failure as error:\n    print(json.dumps(error.facts))\n"
    )
    assert said == {"trueup_code": code}


def test_by_hand_it_is_counted_then_declared_and_a_second_run_changes_nothing(own_hosting: Hosting) -> None:
    key = "byhand/production"
    own_hosting.apply(key).raise_if_failed()
    asked = {"search": "Welcome to WordPress", "replace": "Servus {{ 6 * 7 }}", "groups": ["content"]}
    given = json.dumps({"trueup_search": {**asked, "replace": "Servus"}})
    told = own_hosting.run("search_replace", key, "-e", given).raise_if_failed()
    assert told.changed == 0
    query = "SELECT COUNT(*) FROM wp_posts WHERE post_content LIKE '%Servus {{ 6 * 7 }}%'"
    assert own_hosting.sql(key, query) == "0"
    declared = own_hosting.declare(key)["content"]
    content = {**declared, **asked, "id": "7d0f6a3e-58a1-4d0b-9d0e-2f0c3f5b8a11", "origin": "search-replace"}
    assert own_hosting.apply(key, "--check", content=content).raise_if_failed().changed == 1
    assert own_hosting.sql(key, query) == "0"
    assert own_hosting.apply(key, content=content).raise_if_failed().changed == 1
    assert int(own_hosting.sql(key, query)) >= 1
    assert own_hosting.apply(key, content=content).raise_if_failed().changed == 0
    left = own_hosting.node.ssh(f"ls /var/lib/trueup/replaced-{own_hosting.id(key)}.jsonl", check=False)
    assert left.returncode != 0
    # What was left for something else is not made again.
    own_hosting.apply(key, content={**content, "id": "8d0f6a3e-58a1-4d0b-9d0e-2f0c3f5b8a11"}).raise_if_failed()
    again = own_hosting.apply(key, content=content)
    assert again.status != 0
    assert "was here and was left" in again.output
