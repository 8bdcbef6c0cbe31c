"""Addresses replaced in the tables of a real MariaDB: at rest, in use and on the way back; and read by a real PHP."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.exploded import exploded
from tests.playbooks.rewrite_cases import CASES, NEW, NEW_SITE, OLD, OLD_SITE
from tests.playbooks.test_rewrite import php

pytestmark = pytest.mark.lab
KEY = "moving/production"
BEGIN = """
import json, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import rewrite, rewrite_tables
database, undo = sys.argv[1], "/root/undo"
given = json.loads(sys.argv[2])
rewriter = rewrite.Rewriter([given["addresses"]], [given["directories"]])
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
def at_rest(*names):
    return rewrite_tables.rewrite_database(database, names, rewriter)
"""


class Tables:
    """The draft database of an environment, in which nothing is but what a test makes."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.database = f"wp_{hosting.short(KEY)}_next"
        self.hosting.node.ssh(["mariadb", "-e", f"CREATE DATABASE IF NOT EXISTS {self.database}"])

    def run(self, script: str, **given: Any) -> Any:
        """What a script on the node says as JSON, after the code of the environment's module was loaded."""
        told = {"addresses": [OLD, NEW], "directories": [OLD_SITE, NEW_SITE], **given}
        argv = ["python3", "-", self.database, json.dumps(told)]
        return json.loads(self.hosting.node.ssh(argv, input=BEGIN + script).stdout)


@pytest.fixture(scope="module")
def tables(own_hosting: Hosting) -> Tables:
    exploded(own_hosting, KEY)
    return Tables(own_hosting)


TIMED = """
anew("wp_timed", '''id INT PRIMARY KEY, v TEXT, w VARCHAR(90), n INT,
    at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    fine DATETIME(6) NULL ON UPDATE CURRENT_TIMESTAMP(6), never DATETIME ON UPDATE CURRENT_TIMESTAMP''',
    (1, given["addresses"][0], "", 5, "2011-02-03 04:05:06", "2012-03-04 05:06:07.123456", None),
    (2, "nothing", "x " + given["addresses"][0], 6, "2013-04-05 06:07:08", None, "0000-00-00 00:00:00"))
anew("wp_keyless", "v TEXT, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
    (given["addresses"][0] + "/a", "2011-02-03 04:05:06"))
names = ["wp_timed", "wp_keyless"]
before = {name: all_of(name) for name in names}
"""


def _moved(rows: Mapping[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    return {
        name: [[cell.replace(OLD, NEW) if isinstance(cell, str) else cell for cell in row] for row in found]
        for name, found in rows.items()
    }


def test_columns_that_say_when_a_row_was_changed_keep_it_at_rest(tables: Tables) -> None:
    found = tables.run(
        f"{TIMED}counts = at_rest(*names).counts\n"
        "print(json.dumps([before, {name: all_of(name) for name in names}, counts]))"
    )
    assert found[1] == _moved(found[0])
    assert found[2] == {"wp_timed": 2, "wp_keyless": 1}


def test_they_keep_it_in_use_and_on_the_way_back(tables: Tables) -> None:
    before, moved, back, counts = tables.run(
        f"{TIMED}rewrite_tables._tables = lambda _database: names\n"
        "counts = rewrite_tables.rewrite_in_use(database, rewriter, undo).counts\n"
        "moved = {name: all_of(name) for name in names}\n"
        "rewrite_tables.take_back(database, undo)\n"
        "print(json.dumps([before, moved, {name: all_of(name) for name in names}, counts]))"
    )
    assert moved == _moved(before)
    assert counts == {"wp_timed": 2, "wp_keyless": 1}
    assert back == before


def test_a_row_that_cannot_be_taken_back_keeps_no_other_back(tables: Tables) -> None:
    rows, notes = tables.run(
        'url = given["addresses"][0]\n'
        'names = ["wp_gone", "wp_unique"]\n'
        "for name in names:\n"
        '    anew(name, "id INT PRIMARY KEY, v VARCHAR(90) UNIQUE", *[(n, f"{url}/{n}") for n in (1, 2, 3)])\n'
        "rewrite_tables._tables = lambda _database: names\n"
        "rewrite_tables.rewrite_in_use(database, rewriter, undo)\n"
        "session.say(f\"DROP TABLE {table('wp_gone')}\",\n"
        "    f\"INSERT INTO {table('wp_unique')} VALUES (4, {sql.literal(url + '/1')})\")\n"
        "notes = rewrite_tables.take_back(database, undo)\n"
        'print(json.dumps([all_of("wp_unique"), notes]))'
    )
    assert rows == [["1", f"{NEW}/1"], ["2", f"{OLD}/2"], ["3", f"{OLD}/3"], ["4", f"{OLD}/1"]]
    assert [note.partition(" could")[0] for note in notes] == ["3 rows of wp_gone", "1 row of wp_unique"]


def test_rows_are_found_whatever_layer_has_the_address(tables: Tables) -> None:
    """Every case is a row, and the server itself says which of them are looked at."""
    cases = [[n, before.decode("latin-1")] for n, (before, _) in enumerate(CASES.values())]
    rows, left = tables.run(
        'anew("wp_cases", "id INT PRIMARY KEY, v LONGBLOB", *given["cases"])\n'
        'changes = at_rest("wp_cases")\n'
        'print(json.dumps([all_of("wp_cases"), changes.left]))',
        cases=cases,
    )
    found = {name: row[1].encode("latin-1") for name, row in zip(CASES, rows, strict=True)}
    assert found == {name: after for name, (_, after) in CASES.items()}
    assert left == []


def test_a_length_in_a_table_that_is_not_in_utf_8_stays_right_or_the_value_stays(tables: Tables) -> None:
    """PHP counts the bytes that it sees over its connection, which are not those that are stored."""
    values = [php({"u": f"{OLD}/a"}), php({"u": f"ä {OLD}/a"}), f"ä {OLD}/a".encode()]
    found, left = tables.run(
        'anew("wp_latin", "id INT PRIMARY KEY, v TEXT CHARACTER SET latin1")\n'
        'place = table("wp_latin")\n'
        'for n, value in enumerate(given["values"]):\n'
        '    session.say(f"INSERT INTO {place} VALUES ({n}, {sql.literal(value)})")\n'
        'left = at_rest("wp_latin").left\n'
        "print(json.dumps([[v for v, in session.rows(f'SELECT v FROM {place} ORDER BY id')], left]))",
        values=[value.decode() for value in values],
    )
    assert found == [php({"u": f"{NEW}/a"}).decode(), values[1].decode(), f"ä {NEW}/a"]
    assert [(one["column"], one["count"]) for one in left] == [("v", 1)]


def test_both_sides_of_a_copy_say_the_same_with_their_addresses_taken_out(tables: Tables) -> None:
    """Whatever layer has them; by the digests that drift and promotions compare."""
    sides = [[[n, case[side].decode("latin-1")] for n, case in enumerate(CASES.values())] for side in (0, 1)]
    source, copy = tables.run(
        "from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import baseline, merge\n"
        'for name, rows in zip(("wp_source", "wp_copy"), given["sides"]):\n'
        '    anew(name, "id INT PRIMARY KEY, v LONGBLOB", *rows)\n'
        "def digests(name, side):\n"
        '    normal = merge.address_taken_out(given["addresses"][side], given["directories"][side])\n'
        "    return baseline.rows(database, baseline.shapes(database)[name], normal)\n"
        'print(json.dumps([digests("wp_source", 0), digests("wp_copy", 1)]))',
        sides=sides,
    )
    assert source == copy
    assert len(source) == len(CASES)


def test_what_a_table_does_not_take_stays_and_is_told(tables: Tables) -> None:
    url = f"{OLD}/abc"
    rows = {
        "wp_short": [[1, f"{url}def"], [2, OLD], [3, f's:26:"{url}";']],
        "wp_unique": [[1, url], [2, f"{NEW}/abc"], [3, OLD]],
        "wp_named": [[url, url]],
        "wp_checked": [[1, url], [2, OLD]],
        "wp_broken": [[n, f's:9:"{url}'] for n in range(3)],
    }
    after, left, notes = tables.run(
        'for name, columns in given["columns"].items():\n'
        '    anew(name, columns, *given["rows"][name])\n'
        'changes = at_rest(*given["rows"])\n'
        'print(json.dumps([{name: all_of(name) for name in given["rows"]}, changes.left, changes.notes()]))',
        rows=rows,
        columns={
            "wp_short": "id INT PRIMARY KEY, v VARCHAR(34)",
            "wp_unique": "id INT PRIMARY KEY, v VARCHAR(90) UNIQUE",
            "wp_named": "v VARCHAR(90) PRIMARY KEY, w TEXT",
            "wp_checked": "id INT PRIMARY KEY, v TEXT CHECK (CHAR_LENGTH(v) < 30)",
            "wp_broken": "id INT PRIMARY KEY, v TEXT",
        },
    )
    assert after == {
        "wp_short": [["1", f"{url}def"], ["2", NEW], ["3", rows["wp_short"][2][1]]],
        "wp_unique": [["1", url], ["2", f"{NEW}/abc"], ["3", NEW]],
        "wp_named": [[url, f"{NEW}/abc"]],
        "wp_checked": [["1", url], ["2", NEW]],
        "wp_broken": [[str(n), value] for n, value in rows["wp_broken"]],
    }
    told = {(one["table"], one["column"]): (one["count"], one["example"]) for one in left}
    assert told == {
        ("wp_short", "v"): (2, f"{url}def"),
        ("wp_unique", "v"): (1, url),
        ("wp_named", "v"): (1, url),
        ("wp_checked", "v"): (1, url),
        ("wp_broken", "v"): (3, f's:9:"{url}'),
    }
    assert len(notes) == len(left)
    assert "wp_broken.v names the former address in 3 values, left so because it looks serialized" in notes[0]


def test_yoast_finds_a_page_by_the_digest_of_its_address(tables: Tables) -> None:
    rows = [[1, f"{OLD}/a/", None], [2, f"{OLD}/b/", "4:0123"], [3, None, None]]
    found = tables.run(
        "import hashlib\n"
        'for row in given["rows"][:1]:\n'
        '    row[2] = "%d:%s" % (len(row[1]), hashlib.md5(row[1].encode()).hexdigest())\n'
        'anew("wp_yoast_indexable", "id INT PRIMARY KEY, permalink LONGTEXT, permalink_hash VARCHAR(40)", '
        '*given["rows"])\n'
        "at_rest('wp_yoast_indexable')\n"
        "place = table('wp_yoast_indexable')\n"
        "wanted = session.rows(f\"SELECT CONCAT(LENGTH(permalink), ':', MD5(permalink)) FROM {place}\")\n"
        'print(json.dumps([all_of("wp_yoast_indexable"), wanted]))',
        rows=rows,
    )
    (first, second, third), wanted = found
    assert first == ["1", f"{NEW}/a/", wanted[0][0]]
    assert second == ["2", f"{NEW}/b/", "4:0123"], "what was no digest of it is none now"
    assert third == ["3", None, None]


@pytest.mark.long
def test_a_row_of_many_megabytes(tables: Tables) -> None:
    """Its statement has it once, and not a second time to know it by."""
    sizes = tables.run(
        'big = given["addresses"][0] + " x" * (8 << 20)\n'
        'anew("wp_big", "id INT PRIMARY KEY, v LONGTEXT", (1, big))\n'
        "rewrite_tables._tables = lambda _database: ['wp_big']\n"
        "counts = rewrite_tables.rewrite_in_use(database, rewriter, undo).counts\n"
        "moved = all_of('wp_big')[0][1] == big.replace(*given['addresses'])\n"
        "rewrite_tables.take_back(database, undo)\n"
        "print(json.dumps([counts, moved, all_of('wp_big')[0][1] == big]))"
    )
    assert sizes == [{"wp_big": 1}, True, True]


def test_php_reads_what_was_rewritten(tables: Tables) -> None:
    """What PHP serialized with the former address is what it serializes with the new one."""
    script = r"""<?php
    class Own implements Serializable {
        public $v; function __construct($v) { $this->v = $v; }
        function serialize() { return serialize($this->v); } function unserialize($s) { $this->v = unserialize($s); }
    }
    function values($url) {
        $store = new SplObjectStorage; $one = new stdClass; $one->url = "$url/é"; $store[$one] = "$url/inf";
        $list = new SplDoublyLinkedList; $list->push($url); $list->push([$url]);
        $mixed = ['a' => "$url/a", 'n' => [1, -2, 1.5, true, null, INF], 'o' => $one];
        $mixed += ['json' => json_encode(['u' => "$url/ü"]), 'r' => &$mixed['a']];
        $objects = [$store, $list, new ArrayObject($mixed), @new Own($mixed)];
        return array_map('serialize', [$mixed, serialize($mixed), ...$objects,
            json_encode(['d' => serialize($mixed)]), base64_encode(rawurlencode("<a href='$url'>"))])
            + ['j' => json_encode(['d' => serialize($mixed), 'e' => base64_encode("$url?x=??>>")]),
               'e' => urlencode(serialize($mixed)), 'h' => '<i data-x="' . htmlspecialchars(serialize($mixed)) . '">'];
    }
    error_reporting(0);
    echo json_encode(array_map(fn($url) => array_map('base64_encode', values($url)), json_decode($argv[1])));
    """
    node = tables.hosting.node
    node.ssh(["tee", "/root/values.php"], input=script)
    before, after = json.loads(node.ssh(["php", "/root/values.php", json.dumps([OLD, NEW])]).stdout)
    made = tables.run(
        "import base64\n"
        "read = lambda one: rewriter.read(base64.b64decode(one))\n"
        "found = {key: read(one) for key, one in given['values'].items()}\n"
        "print(json.dumps({key: [base64.b64encode(one.value).decode(), one.left] for key, one in found.items()}))",
        values=before,
    )
    assert made == {key: [value, []] for key, value in after.items()}
