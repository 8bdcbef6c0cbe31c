"""Views, triggers, routines and events as texts, and a swap of content that is killed at any of its statements."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.paths import collection
from tests.playbooks.environments import Hosting
from tests.playbooks.exploded import exploded
from tests.playbooks.node_modules import load
from tests.playbooks.test_hostile_schema import NAMES, PWNED

stored = load("content.stored_objects")
sql = load("sql")
dump = load("dump")
baseline = load("promotion.baseline")
Failure = load("environment.run").Failure
KEY = "swapped/production"


def one(kind: str, name: str, text: str = "") -> Any:
    return stored.StoredObject(kind, name, text, "", "SYSTEM", "utf8mb4", "utf8mb4_general_ci")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select `wp_a`.`f`(1), wp_a.t, 'in wp_a'", "select `B`.`f`(1), B.t, 'in B'"),
        ("wp_a_next wp_ab xwp_a ünwp_a wp_aü $wp_a", "wp_a_next wp_ab xwp_a ünwp_a wp_aü $wp_a"),
        ("CALL wp_a.note(NEW.wp_ax)--wp_a\nwp_a", "CALL B.note(NEW.wp_ax)--B\nB"),
        ("", ""),
    ],
)
def test_a_name_is_replaced_as_a_whole_word(text: str, found: str) -> None:
    assert stored.renamed(text, {"wp_a": "B"}) == found


def test_two_names_that_change_places() -> None:
    assert stored.renamed("a.b c", {"a": "c", "c": "a"}) == "c.b a"


def test_a_former_hosts_name_of_the_schema_is_the_schemas_own() -> None:
    text = (
        "INSERT INTO o.k_a SELECT `o-l`.`k_b`.x, k_a.f, NEW.k_a, old.k_a, o . f (1), b.f FROM t.k_c JOIN k_b.z, x.o.k_a"
    )
    found = stored.StoredObjects("here", [one("FUNCTION", "f", text)]).at_home(["k_a", "k_b"])
    assert found.objects[0].text == (
        "INSERT INTO `here`.k_a SELECT `here`.`k_b`.x, k_a.f, NEW.k_a, old.k_a, `here`.f (1), b.f FROM t.k_c "
        "JOIN k_b.z, x.o.k_a"
    )


def test_what_is_needed_is_made_first() -> None:
    objects = [
        one("EVENT", "e"),
        one("TRIGGER", "t2"),
        one("TRIGGER", "t1"),
        one("VIEW", "a", "VIEW `a` AS select `b`.`x` from `b` join `c`"),
        one("VIEW", "b", "VIEW `b` AS select `f`(`x`) AS `x` from `c`"),
        one("VIEW", "c", "VIEW `c` AS select 1 AS `x`"),
        one("PROCEDURE", "p"),
        one("FUNCTION", "f"),
    ]
    assert [o.name for o in stored._ordered(objects)] == ["f", "p", "c", "b", "a", "t2", "t1", "e"]


def test_views_that_seem_to_need_each_other_are_made_all_the_same() -> None:
    """A column may be called like a view."""
    made = Made({"a": {"b"}, "b": set()})
    objects = [one("VIEW", "a", "VIEW `a` AS select `c` from `b`"), one("VIEW", "b", "VIEW `b` AS select 1 AS `a`")]
    stored.StoredObjects("x", objects).make(made, "y")
    assert made.there == ["b", "a"]


class Made:
    """A session in which a view can be made once those are there that it needs."""

    def __init__(self, needs: dict[str, set[str]]) -> None:
        self.needs = needs
        self.there: list[str] = []

    def say(self, *statements: str) -> None:
        for statement in statements:
            if statement.startswith("VIEW"):
                name = statement.split("`")[1]
                if self.needs[name] - {*self.there}:
                    raise sql.SqlError("no such table", 1146)
                self.there.append(name)


def test_what_cannot_be_made_is_named() -> None:
    objects = stored.StoredObjects("x", [one("VIEW", "a", "VIEW `a`"), one("VIEW", "b", "VIEW `b`")])
    with pytest.raises(Failure, match="view a: no such table") as raised:
        objects.make(Made({"a": {"gone"}, "b": set()}), "y")
    assert raised.value.facts == {"trueup_code": "CONTENT_UNMOVABLE"}


@pytest.mark.parametrize(
    "begins",
    [
        "CREATE DEFINER=`root`@`localhost` ",
        "CREATE DEFINER=`a``b @x`@`%` ",
        'CREATE DEFINER="a""b"@"localhost" ',
        "CREATE DEFINER=`a role` ",
        "CREATE OR REPLACE DEFINER=`x`@`y` ",
        "CREATE ALGORITHM=UNDEFINED DEFINER=`x`@`y` ",
    ],
)
def test_a_definer_is_left_out(begins: str) -> None:
    rest = "trigger t DEFINER=`root`@`localhost` x"
    found = stored._without_definer(begins + rest, "it")
    assert found.endswith(f" {rest}")
    assert found.count("DEFINER=") == 1
    with pytest.raises(Failure):
        stored._without_definer(rest, "it")


def test_what_was_noted_is_read_again_and_nothing_else_is() -> None:
    found = stored.StoredObjects("wp_a", [one("VIEW", "ü\n`", "\udcff '\"\\ 😀")])
    text = found.dumped()
    assert text.isascii()
    assert stored.StoredObjects.loaded(text) == found
    good = json.loads(text)
    for wrong in ("", "[]", "{", "{}", json.dumps({**good, "objects": [["VIEW"]]}), json.dumps({"database": "x"})):
        with pytest.raises(Failure):
            stored.StoredObjects.loaded(wrong)
    for part in (["USER", *good["objects"][0][1:]], [1, *good["objects"][0][1:]]):
        with pytest.raises(Failure):
            stored.StoredObjects.loaded(json.dumps({**good, "objects": [part]}))


def test_a_character_set_is_a_word() -> None:
    wrong = one("VIEW", "v")._replace(character_set="utf8; DROP TABLE x")
    with pytest.raises(Failure):
        wrong.steps({}, True)


def test_an_event_is_off_in_a_copy() -> None:
    event = one("EVENT", "e`", "CREATE EVENT `e``` ON SCHEDULE EVERY 1 DAY DO SELECT 1")
    assert event.steps({}, False)[-1] == "ALTER EVENT `e``` DISABLE"
    assert not any("ALTER" in step for step in event.steps({}, True))


def test_a_row_of_64_mb_fits_into_what_the_server_takes() -> None:
    """As text each byte may be two; a node is told the same as a run tells it."""
    assert sql.PACKET >= 160 << 20
    assert sql.PACKET > 2 * (dump.LONGEST_ROW + (1 << 20)) + (1 << 20)
    values = YAML(typ="safe").load(Path(collection(), "roles/node/vars/main.yml"))
    assert values["node_packet_mb"] << 20 == sql.PACKET


def test_a_rows_digest_is_what_it_was() -> None:
    """Baselines on nodes were written by it: of the values in hexadecimal, with the address taken out."""

    def normal(value: bytes) -> bytes:
        return value.replace(b"here", b"there")

    rows = [[b"1", b"at here", None], [b""], [None], [b"x" * (3 << 20) + b"here", b"", b"-"]]
    for row in rows:
        value = b",".join(b"-" if cell is None else cell.hex().upper().encode() for cell in row)
        told = b",".join(b"-" if cell is None else normal(cell).hex().upper().encode() for cell in row)
        assert baseline._digest(value, normal) == hashlib.sha1(told).hexdigest()[:20]
    assert baseline._digest(b"=" + b"AB" * 20, normal) == "ab" * 10


def test_a_dump_of_an_earlier_version_loses_its_definers() -> None:
    """And nothing else: a row of a table begins no line so."""
    text = (
        "INSERT INTO `t` VALUES ('/*!50013 DEFINER=`a`@`b` SQL SECURITY DEFINER */');\n"
        "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a = 1;;\n"
        "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`b` SQL SECURITY INVOKER */\n"
        '/*!50106 CREATE*/ /*!50117 DEFINER="a"@"b"*/ /*!50106 EVENT e ON SCHEDULE EVERY 1 DAY DO SET @a = 1 */ ;;\n'
        "CREATE DEFINER=`a`@`b` FUNCTION `f`() RETURNS int(11)\nRETURN 1 ;;\n"
    )
    argv = ["sed", "--regexp-extended", dump.NO_DEFINER]
    found = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout
    assert found == (
        "INSERT INTO `t` VALUES ('/*!50013 DEFINER=`a`@`b` SQL SECURITY DEFINER */');\n"
        "/*!50003 CREATE*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a = 1;;\n"
        "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 SQL SECURITY INVOKER */\n"
        "/*!50106 CREATE*/ /*!50106 EVENT e ON SCHEDULE EVERY 1 DAY DO SET @a = 1 */ ;;\n"
        "CREATE FUNCTION `f`() RETURNS int(11)\nRETURN 1 ;;\n"
    )


# On a node

SWAPPED = r"""
import json, os, pwd, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import snapshot, stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Staging, Swap
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Beside

layout = Layout(sys.argv[1])
run = Beside(False, layout.pending, None)
content = "11111111-2222-4333-8444-555555555555"
live = layout.database
told = []

def child(work, most=None):
    # In a process of its own, which dies as if by SIGKILL in front of its statement number `most`; its exit status.
    pid = os.fork()
    if pid == 0:
        sql._root.clear(); sql._accounts.clear()
        count, say = [0], sql.Session.say
        def counted(self, *statements):
            for statement in statements:
                count[0] += 1
                if count[0] == most:
                    os._exit(9)
                say(self, statement)
        sql.Session.say = counted
        try:
            work()
        except BaseException as error:
            print(repr(error)[:1500], file=sys.stderr)
            os._exit(1)
        for account in sql._accounts.values():
            account._drop()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def seen():
    # What the site has, as it says itself; fresh connections each time.
    sql._root.clear(); sql._accounts.clear()
    objects = stored_objects.read(live)
    rows = sql.root().rows(f"SELECT GROUP_CONCAT(title ORDER BY id) FROM {live}.wp_books")
    definers = sql.root().rows(
        f"SELECT DISTINCT definer FROM (SELECT definer, table_schema AS d FROM information_schema.views UNION ALL "
        f"SELECT definer, trigger_schema FROM information_schema.triggers UNION ALL "
        f"SELECT definer, routine_schema FROM information_schema.routines UNION ALL "
        f"SELECT definer, event_schema FROM information_schema.events) x WHERE d = '{live}'")
    for account in sql._accounts.values():
        account._drop()
    found = sorted((one.kind, one.name, one.text) for one in objects.objects)
    return json.dumps([found, rows, definers])

def each_kill(name, work, before, after):
    # Killed in front of each of its statements, run again, and then what it makes is there.
    number = 0
    while True:
        number += 1
        before()
        status = child(work, number)
        if status == 0:
            break
        assert status == 9, (name, number, status)
        assert child(work) == 0, (name, number)
        now = seen()
        assert now == after, (name, number, now, after)
    assert seen() == after, name
    told.append(f"{name}: {number - 1}")

def stage():
    user = pwd.getpwnam(layout.user)
    staging = Staging(run, layout, content)
    staging.open()
    dump.load(run, dump.started(run, live), staging.database, hint="not loaded", source=live)
    objects = stored_objects.read(live)
    sql.within(staging.database).say(f"UPDATE {staging.database}.wp_books SET title = 'staged'")
    changed = [one._replace(text=one.text.replace("'was'", "'came'")) for one in objects.objects if one.name != "gone"]
    staging.seal(user, uploads=False, objects=stored_objects.StoredObjects(live, changed))

swap = Swap(run, layout, content)
was = seen()
assert child(stage) == 0
assert seen() == was
assert child(swap.forward) == 0
came = seen()
assert came != was and "'came'" in came and "'was'" not in came and '"gone"' not in came and "staged" in came
assert json.loads(came)[2] == [[f"{live}@localhost"]]
assert child(swap.back) == 0
assert [seen(), json.loads(seen())[2]] == [was, [[f"{live}@localhost"]]]

def staged_anew():
    child(swap.back)
    assert child(stage) == 0

def put_in():
    staged_anew()
    assert child(swap.forward) == 0

each_kill("forward", swap.forward, staged_anew, came)
each_kill("back", swap.back, put_in, was)
# A run that is killed on the way in, and taken out.
number = 0
while True:
    number += 1
    staged_anew()
    status = child(swap.forward, number)
    assert child(swap.back) == 0
    assert seen() == was, ("in and out", number)
    if status == 0:
        break
child(swap.forget)

# What an update keeps, and takes out again.
kept = snapshot.Snapshot(run, layout)
CHANGE = "UPDATE wp_books SET title = 'updated'"

def rehearsed():
    copy = f"{live}_rehearsed"
    snapshot.copy_database(run, live, copy)
    kept.migration.begin(copy)
    with sql.Session("root") as session:
        session.say(f"USE {copy}", CHANGE)
    kept.migration.record(copy, content)
    sql.drop(copy)

def updated():
    assert child(rehearsed) == 0
    assert child(lambda: kept.take(content)) == 0
    def change():
        with sql.Session("root") as session:
            session.say(f"USE {live}", "DROP VIEW IF EXISTS books", "DROP TRIGGER IF EXISTS gone",
                        "CREATE OR REPLACE VIEW newer AS SELECT 1 AS a", CHANGE)
    assert child(change) == 0

def taken_out():
    # As a run does it, and the next one where this was killed.
    if kept.taken_for() == content:
        kept.take_out(content)
    kept.forget()

each_kill("an update", taken_out, updated, was)
assert not kept.is_there()
print(json.dumps(told))
sql.forget_accounts(layout.short)
"""
OBJECTS = """
CREATE TABLE wp_books (id INT PRIMARY KEY, title VARCHAR(50));
INSERT INTO wp_books VALUES (1, 'a'), (2, 'b');
DELIMITER //
CREATE DEFINER={own}@localhost FUNCTION said() RETURNS TEXT DETERMINISTIC RETURN 'was'//
CREATE DEFINER={own}@localhost VIEW books AS SELECT id, {own}.said() AS said FROM wp_books//
CREATE DEFINER={own}@localhost VIEW all_books AS SELECT id FROM books//
CREATE DEFINER={own}@localhost TRIGGER gone BEFORE DELETE ON wp_books FOR EACH ROW SET @a = 'was'//
CREATE DEFINER={own}@localhost TRIGGER stays BEFORE DELETE ON wp_books FOR EACH ROW SET @b = 'was'//
CREATE DEFINER={own}@localhost EVENT ticks ON SCHEDULE EVERY 1 DAY DO DELETE FROM {own}.wp_books WHERE title = 'was'//
"""


@pytest.mark.long
@pytest.mark.lab
def test_a_swap_may_be_killed_at_any_statement(own_hosting: Hosting) -> None:
    exploded(own_hosting, KEY)
    own_hosting.sql(KEY, OBJECTS.format(own=f"wp_{own_hosting.short(KEY)}"))
    done = own_hosting.node.ssh(["python3", "-c", SWAPPED, own_hosting.id(KEY)], check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    assert own_hosting.fetch(KEY).status_code == 200


NAMED = r"""
import json, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Beside
asked = json.load(sys.stdin)
name, root, of = asked["database"], sql.root(), sql.identifier
source, target = f"{name}_from", f"{name}_next"
sql.make_anew(source)
sql.make_anew(target)
root.say(f"USE {of(source)}", "CREATE TABLE wp_options (option_name VARCHAR(10))")
for one in asked["names"]:
    table, column = of("t" + one[:60] + "."), of(one[:60] + ".")
    root.say(
        f"CREATE TABLE {table} (id INT PRIMARY KEY, {column} TEXT)",
        f"CREATE VIEW {of(one[:62] + 'v')} AS SELECT * FROM {table}",
        f"CREATE TRIGGER {of(one[:62] + 't')} BEFORE INSERT ON {table} FOR EACH ROW SET @a = {sql.literal(one)}",
        f"CREATE PROCEDURE {of(one[:62] + 'p')}({column} INT) COMMENT 'a\\\\b''c\nd' SELECT 1",
        f"CREATE FUNCTION {of(one[:62] + 'f')}() RETURNS ENUM('a', 'b''c') RETURN 'a'",
        f"CREATE EVENT {of(one[:62] + 'e')} ON SCHEDULE EVERY 1 DAY COMMENT 'it''s\\\\' DO SELECT 1",
    )
root.say("SET SESSION sql_mode = 'ORACLE'", "CREATE FUNCTION oracles(a INT) RETURN INT AS BEGIN RETURN 1; END")
root.say("SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'")
root.say('CREATE TRIGGER "ansi" BEFORE DELETE ON wp_options FOR EACH ROW SET @a = \'\\\'')
root.say("SET SESSION sql_mode = DEFAULT, character_set_client = latin1")
root._connection.query(f"CREATE EVENT latin ON SCHEDULE EVERY 1 DAY DO SET @a = '\xe4'".encode("latin1"))
root.say("SET NAMES utf8mb4")
found = stored_objects.read(source)
stored_objects.check(found, f"{name}_trial")
dump.load(Beside(False, "/run/x", None), dump.started(Beside(False, "/run/x", None), source), target, hint="not loaded")
found.make(stored_objects.maker(target), target)
assert stored_objects.read(target).called(source) == found
stored_objects.drop(target)
assert stored_objects.names(target) == []
sql.drop(source, target)
print(len(found.objects))
"""


@pytest.mark.long
@pytest.mark.lab
def test_a_name_and_a_text_are_what_they_were(own_hosting: Hosting) -> None:
    """Whatever is in them, and however whoever made them had it read."""
    names = [one.strip() for one in NAMES if not one.startswith("trueup")]
    exploded(own_hosting, KEY)
    asked = json.dumps({"database": f"wp_{own_hosting.short(KEY)}", "names": names})
    done = own_hosting.node.ssh(["python3", "-c", NAMED], input=asked, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 5 * len(names) + 3
    assert own_hosting.node.ssh(["ls", PWNED], check=False).returncode != 0
