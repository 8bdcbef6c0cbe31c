"""A site that was broken into makes of its own database what it likes: nothing of it reaches anybody else."""

import json
import shlex
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.playbooks.environments import Hosting, variables_for
from tests.playbooks.exploded import exploded
from tests.playbooks.node_modules import load
from tests.playbooks.nodes import Run

HACKED, COPY, NEIGHBOUR = "hacked/production", "hacked/staging", "acme/production"
PWNED = "/root/pwned"
SHELL = f"a`\\! id>{PWNED} # "
"""As a column's or a table's name: root's client ran the command."""
NAMES = (
    SHELL,
    'it\'s "quoted" `too` \\',
    "a\nline\r\nbreak\ttab",
    f"x\n\\! id>{PWNED}\n",
    f"x*/ \\! id>{PWNED} /*",
    "trueup_content",
    "trueup_keys_wp_options",
    "n" * 64,
    "`" * 40,
    "ünï漢",
    "per%cent %s",
    "-- x; DROP TABLE wp_users",
)

# What runs with the rights of whoever reads: it takes what it can reach, and notes who that was.
STEAL = """
CREATE TABLE IF NOT EXISTS {own}.stolen (what VARCHAR(20), who VARCHAR(200), secret LONGTEXT) ENGINE=MyISAM;
CREATE FUNCTION {own}.steal(given LONGTEXT) RETURNS LONGTEXT SQL SECURITY INVOKER MODIFIES SQL DATA
BEGIN
    BEGIN
        DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
        INSERT INTO {own}.stolen SELECT 'users', USER(), user_pass FROM {other}.wp_users;
        INSERT INTO {own}.stolen SELECT 'accounts', USER(), Priv FROM mysql.global_priv;
        UPDATE {other}.wp_options SET option_value = 'pwned' WHERE option_name = 'blogdescription';
        INSERT INTO {own}.stolen SELECT 'ran', USER(), NULL;
    END;
    RETURN given;
END
"""
VIEW = """
RENAME TABLE wp_options TO wp_options_real;
CREATE SQL SECURITY INVOKER VIEW wp_options AS
SELECT option_id, option_name, {own}.steal(option_value) AS option_value, autoload FROM wp_options_real;
"""


class Hacked:
    """The site and its neighbour, seen by root."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.node = hosting.node
        self.own = f"wp_{hosting.short(HACKED)}"
        self.other = f"wp_{hosting.short(NEIGHBOUR)}"

    def say(self, statements: str, delimiter: str = ";") -> None:
        """As the site's own database user, who is all that a web shell has."""
        self.node.ssh(self.client(delimiter), input=statements)

    def client(self, delimiter: str = ";") -> str:
        config = shlex.quote(self.hosting.path(HACKED, "shared/wp-config.php"))
        password = f"$(sed -n \"s/^define( 'DB_PASSWORD', '\\(.*\\)' );$/\\1/p\" {config})"
        client = f"mariadb --binary-mode --delimiter={shlex.quote(delimiter)} -u {self.own} {self.own}"
        return f"MYSQL_PWD={password} {client}"

    def steals(self) -> None:
        self.say("DROP TABLE IF EXISTS stolen; DROP FUNCTION IF EXISTS steal;")
        create, _, function = STEAL.format(own=self.own, other=self.other).partition(";")
        self.say(create)
        self.say(function, "//")

    def stolen(self) -> list[list[str]]:
        rows = self.hosting.sql(HACKED, "SELECT what, who FROM stolen GROUP BY 1, 2")
        return [row.split("\t") for row in rows.splitlines()]

    def accounts(self) -> list[str]:
        """Users of the database server that are of runs."""
        query = "SELECT User FROM mysql.global_priv WHERE User LIKE 'trueup%'"
        return self.node.ssh(["mariadb", "-BN", "-e", query]).stdout.split()

    def untouched(self) -> None:
        """Nothing of the neighbour's was read or written, nothing ran as root, and nobody was left."""
        assert self.node.ssh(["ls", PWNED], check=False).returncode != 0
        assert [row for row in self.stolen() if row[0] != "ran" or row[1].startswith("root@")] == []
        assert self.hosting.sql(NEIGHBOUR, "SELECT COUNT(*) FROM wp_options WHERE option_value = 'pwned'") == "0"
        assert self.accounts() == []

    def clone(self) -> Run:
        source = self.hosting.environments[HACKED]
        content = {**variables_for(COPY, self.node)["content"], "id": str(uuid4()), "origin": "clone"}
        content["source_environment"] = source["id"]
        release = {**source["release"], "id": str(uuid4()), "origin": "clone", "made_from": source["id"]}
        self.hosting.declare(COPY, content=content, release=release)
        given = json.dumps({"trueup_source": {"id": source["id"], "urls": [source["url"]]}})
        return self.hosting.run("clone", COPY, "-e", given)

    def compare(self) -> Run:
        given = json.dumps({"trueup_comparison": {"target": self.hosting.id(HACKED)}})
        return self.hosting.run("drift", COPY, "-v", "-e", given)

    def promote(self) -> Run:
        """The copy's changes into the site."""
        source, now = self.hosting.environments[COPY], self.hosting.environments[HACKED]
        content = {**now["content"], "id": str(uuid4()), "origin": "promote", "source_environment": source["id"]}
        release = {**now["release"], "id": str(uuid4()), "origin": "promote", "made_from": source["id"]}
        self.hosting.declare(HACKED, content=content, release=release, options=now["options"])
        run = self.hosting.run("promote", HACKED)
        if run.status:
            self.hosting.environments[HACKED] = now
        return run


@pytest.fixture(scope="module")
def hacked(own_hosting: Hosting) -> Hacked:
    own_hosting.apply(HACKED, options={"blogname": "Hacked"}).raise_if_failed()
    return Hacked(own_hosting)


@pytest.fixture
def with_view(hacked: Hacked) -> Iterator[Hacked]:
    """Its table of options is a view that calls a function."""
    hacked.steals()
    hacked.say(VIEW.format(own=hacked.own))
    yield hacked
    hacked.say("DROP VIEW wp_options; RENAME TABLE wp_options_real TO wp_options")


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


@pytest.mark.long
@pytest.mark.lab
@pytest.mark.parametrize("names", [(SHELL,), NAMES], ids=["command", "all"])
def test_a_name_is_only_a_name(hacked: Hacked, names: tuple[str, ...]) -> None:
    """Of tables and columns that say where the site is, so that each of them is rewritten, compared and moved."""
    url = hacked.hosting.environments[HACKED]["url"]
    hacked.steals()
    made = [
        f"CREATE TABLE {quoted(name)} ({quoted(name)} TEXT, {quoted('key' + name[:60])} VARCHAR(50) PRIMARY KEY, "
        f"made TEXT AS (CONCAT({quoted(name)}, 'x')) VIRTUAL);"
        f"INSERT INTO {quoted(name)} ({quoted(name)}, {quoted('key' + name[:60])}) VALUES ('{url}/a', 'k');"
        for name in names
        if not name.endswith((" ", "\n"))
    ]
    made += [
        f"CREATE TABLE wp_col{n} (id INT PRIMARY KEY, {quoted(name + '.')} TEXT);"
        f"INSERT INTO wp_col{n} VALUES (1, '{url}/a');"
        for n, name in enumerate(name for name in names if len(name) < 64)
    ]
    hacked.say("DROP TABLE IF EXISTS trueup_content")
    hacked.say("\n".join(made).replace(";CREATE", ";\nCREATE"))
    try:
        hacked.clone().raise_if_failed()
        hacked.untouched()
        there = hacked.hosting.environments[COPY]["url"]
        copied = hacked.hosting.sql(COPY, f"SELECT {quoted(SHELL + '.')} FROM wp_col0")
        assert copied == f"{there}/a"
        hacked.compare().raise_if_failed()
        hacked.untouched()
        hacked.say("DROP TABLE IF EXISTS trueup_content")
        hacked.hosting.sql(
            COPY, f"UPDATE wp_options SET option_value = 'Moved {len(names)}' WHERE option_name = 'blogdescription'"
        )
        hacked.promote().raise_if_failed()
        hacked.untouched()
        query = "SELECT option_value FROM wp_options WHERE option_name = 'blogdescription'"
        assert hacked.hosting.sql(HACKED, query) == f"Moved {len(names)}"
    finally:
        hacked.say(
            "".join(f"DROP TABLE IF EXISTS {quoted(name)};" for name in names if not name.endswith((" ", "\n")))
            + "".join(f"DROP TABLE IF EXISTS wp_col{n};" for n in range(len(names)))
        )


@pytest.mark.lab
def test_the_probe_reads_no_view_and_is_no_root(with_view: Hacked) -> None:
    seen = with_view.hosting.look(HACKED)
    with_view.untouched()
    assert seen.options == {}
    assert with_view.hosting.look(NEIGHBOUR).applied is not None


LOOKS = """
SELECT SUM(data_length) FROM information_schema.tables WHERE table_schema = '{own}';
SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = '{own}' AND extra NOT LIKE '%x%';
SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = '{own}';
"""


@pytest.mark.lab
def test_what_root_asks_of_names_and_sizes_runs_nothing(with_view: Hacked) -> None:
    """Root's own questions, as backups and reconciles ask them."""
    with_view.say(
        f"CREATE SQL SECURITY INVOKER VIEW wp_early AS SELECT (SELECT {with_view.own}.steal('x')) AS a, d.b FROM "
        f"(SELECT {with_view.own}.steal('y') AS b UNION ALL SELECT NULL LIMIT 5) d"
    )
    try:
        with_view.node.ssh(["mariadb", "-BN"], input=LOOKS.format(own=with_view.own))
        with_view.untouched()
    finally:
        with_view.say("DROP VIEW wp_early")


@pytest.mark.lab
def test_a_reconcile_reads_no_view(with_view: Hacked) -> None:
    run = with_view.hosting.apply(HACKED)
    assert run.status == 2
    assert "is no table but a view" in run.output
    assert "DATABASE_UNUSABLE" in run.output
    with_view.untouched()


@pytest.mark.long
@pytest.mark.lab
def test_a_copy_and_a_comparison_read_no_view(hacked: Hacked) -> None:
    hacked.clone().raise_if_failed()
    hacked.steals()
    hacked.say(VIEW.format(own=hacked.own))
    try:
        run = hacked.clone()
        assert run.status == 2
        assert "wp_options of database" in run.output
        assert "DATABASE_UNUSABLE" in run.output
        hacked.untouched()
        hacked.compare()
        hacked.untouched()
        hacked.promote()
        hacked.untouched()
    finally:
        hacked.say("DROP VIEW wp_options; RENAME TABLE wp_options_real TO wp_options")


ACTORS = """
CREATE TRIGGER seen BEFORE UPDATE ON wp_options FOR EACH ROW SET NEW.option_value = {own}.steal(NEW.option_value)//
CREATE TRIGGER made BEFORE INSERT ON wp_options FOR EACH ROW SET NEW.option_value = {own}.steal(NEW.option_value)//
CREATE EVENT tick ON SCHEDULE EVERY 1 SECOND DO SELECT {own}.steal('x')//
CREATE SQL SECURITY INVOKER VIEW wp_other AS SELECT {own}.steal(user_pass) AS x FROM wp_users//
CREATE SQL SECURITY INVOKER VIEW trueup_content AS SELECT {own}.steal('x') AS id FROM wp_users//
"""


MADE_THERE = """
SELECT CONCAT('trigger ', trigger_name), definer, '-' FROM information_schema.triggers
WHERE trigger_schema = DATABASE() UNION ALL
SELECT CONCAT('view ', table_name), definer, '-' FROM information_schema.views WHERE table_schema = DATABASE() UNION ALL
SELECT CONCAT('function ', routine_name), definer, '-' FROM information_schema.routines
WHERE routine_schema = DATABASE() UNION ALL
SELECT CONCAT('event ', event_name), definer, status FROM information_schema.events
WHERE event_schema = DATABASE() ORDER BY 1
"""


@pytest.mark.long
@pytest.mark.lab
def test_triggers_events_and_views_have_no_rights(hacked: Hacked) -> None:
    """Neither where they were made, nor in a copy, into which they come with the copy's rights alone."""
    hacked.steals()
    hacked.say("DROP TABLE IF EXISTS trueup_content")
    hacked.say(ACTORS.format(own=hacked.own), "//")
    try:
        hacked.hosting.environments[HACKED]["options"] = {"blogname": f"Hacked {uuid4()}"}
        hacked.hosting.apply(HACKED).raise_if_failed()
        hacked.untouched()
        hacked.clone().raise_if_failed()
        hacked.untouched()
        copy = f"wp_{hacked.hosting.short(COPY)}"
        assert hacked.hosting.sql(COPY, MADE_THERE).splitlines() == [
            f"event tick\t{copy}@localhost\tDISABLED",
            f"function steal\t{copy}@localhost\t-",
            f"trigger made\t{copy}@localhost\t-",
            f"trigger seen\t{copy}@localhost\t-",
            f"view wp_other\t{copy}@localhost\t-",
        ]
        # They run there, as the copy's own user or a run's, and take nothing but the copy's.
        hacked.hosting.apply(COPY, options={"blogname": f"Copy {uuid4()}"}).raise_if_failed()
        assert hacked.hosting.sql(COPY, "SELECT DISTINCT what FROM stolen").splitlines() == ["ran"]
        assert hacked.hosting.sql(COPY, "SELECT COUNT(*) FROM stolen WHERE who LIKE 'root@%'") == "0"
        hacked.untouched()
        scheduler = hacked.node.ssh(["mariadb", "-BN", "-e", "SELECT @@event_scheduler"]).stdout.strip()
        assert scheduler in ("OFF", "DISABLED")
    finally:
        hacked.say(
            "DROP TRIGGER seen; DROP TRIGGER made; DROP EVENT tick; DROP VIEW wp_other; DROP VIEW trueup_content"
        )


@pytest.mark.lab
def test_one_site_does_not_take_all_connections(hacked: Hacked) -> None:
    most = 2 * hacked.hosting.environments[HACKED]["php"]["max_children"] + 10
    query = f"SELECT max_user_connections FROM mysql.user WHERE User = '{hacked.own}'"
    assert hacked.node.ssh(["mariadb", "-BN", "-e", query]).stdout.strip() == str(most)
    hacked.node.ssh(["mariadb", "-e", f"ALTER USER {hacked.own}@localhost WITH MAX_USER_CONNECTIONS 0"])
    assert "connections of" in hacked.hosting.apply(HACKED, "--diff").raise_if_failed().output
    assert hacked.node.ssh(["mariadb", "-BN", "-e", query]).stdout.strip() == str(most)


ENDED = """
cd /etc/systemd/system
sed 's/time > [0-9]*/time > 1/' trueup-statements.service >/run/systemd/system/statements-now.service
systemctl daemon-reload
(echo "SET SESSION max_statement_time = 0; SELECT SLEEP(500);" | CLIENT; echo "ended $?" >/root/ended) 2>/dev/null &
late="SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(500)' AND time > 2"
until [ "$(mariadb -BN -e "$late")" = 1 ]; do sleep 0.1; done
systemctl start statements-now.service
wait
cat /root/ended
rm /run/systemd/system/statements-now.service
"""


@pytest.mark.lab
def test_what_a_site_asks_for_has_an_end(hacked: Hacked) -> None:
    """However it set its own limit; with less patience than nodes have."""
    timer = ["systemctl", "is-active", "trueup-statements.timer"]
    assert hacked.node.ssh(timer).stdout.strip() == "active"
    said = hacked.node.ssh(ENDED.replace("CLIENT", hacked.client()), timeout=300).stdout
    assert said.startswith("ended ")
    assert said.strip() != "ended 0"


STREAMED = """
import sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
database = sys.argv[1]
sizes = [None, 0, 1, 250, 251, 65535, 65536, (1 << 24) - 1, 1 << 24, 40_000_000]
sql.make_anew(database)
session, table = sql.within(database), sql.qualified(database, "wp_x")
session.say(f"CREATE TABLE {table} (id INT PRIMARY KEY, v LONGBLOB, w LONGTEXT)")
for n, size in enumerate(sizes):
    value = None if size is None else b"\\xff\\x00" * (size // 2) + b"x" * (size % 2)
    session.say(f"INSERT INTO {table} VALUES ({n}, {sql.literal(value)}, {sql.literal(n and 'end')})")
    found = list(session.stream(f"SELECT * FROM {table} WHERE id = {n}"))
    assert found == [(b"%d" % n, value, b"end" if n else b"0")], (n, size)
assert len(list(session.stream(f"SELECT id FROM {table}"))) == len(sizes)
assert list(session.stream(f"SELECT id FROM {table} WHERE id < 0")) == []
one = session.stream(f"SELECT * FROM {table} ORDER BY id")
next(one)
one.close()
try:
    list(session.stream(f"SELECT (SELECT id FROM {table}) AS x FROM {table}"))
    raise SystemExit("an answer that breaks off is no answer")
except sql.SqlError as error:
    assert error.code == 1242, error
sql.drop(database)
"""


@pytest.mark.long
@pytest.mark.lab
def test_a_stream_is_what_is_there(hacked: Hacked) -> None:
    exploded(hacked.hosting, HACKED)
    hacked.node.ssh(["python3", "-c", STREAMED, f"{hacked.own}_next"])


@pytest.mark.long
@pytest.mark.lab
def test_a_job_that_comes_before_the_baseline_installs_the_driver(hacked: Hacked) -> None:
    there = ["python3", "-c", "import pymysql"]
    hacked.node.ssh(["dpkg", "--purge", "--force-depends", "python3-pymysql"])
    assert hacked.node.ssh(there, check=False).returncode != 0
    check = hacked.hosting.apply(HACKED, "--check")
    assert "This node lacks python3-pymysql" in check.output
    assert hacked.node.ssh(there, check=False).returncode != 0
    assert "does not answer" not in hacked.hosting.run("health", HACKED).raise_if_failed().output
    hacked.hosting.apply(HACKED).raise_if_failed()
    hacked.node.ssh(there)


LEFT = """
import os, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
sql.within(sys.argv[1]).say("SELECT 1")
os.kill(os.getpid(), 9)
"""


@pytest.mark.long
@pytest.mark.lab
def test_the_user_of_a_killed_run_goes_with_the_next(hacked: Hacked) -> None:
    exploded(hacked.hosting, HACKED)
    hacked.node.ssh(["python3", "-c", LEFT, hacked.own], check=False)
    (left,) = hacked.accounts()
    assert left.startswith(f"trueup_{hacked.own[3:]}_")
    hacked.hosting.apply(HACKED).raise_if_failed()
    assert hacked.accounts() == []


DUMPS = {
    "command": f"CREATE TABLE wp_x (id INT);\n\\! id>{PWNED}\n",
    "command in a statement": f"CREATE TABLE `a\\! id>{PWNED} # .` (id INT);\n",
    "command after a comment": f"-- Table structure for table `x\n\\! id>{PWNED}\n`\nSELECT 1;\n",
    "system": f"system id>{PWNED}\nSELECT 1;\n",
    "tee": f"tee {PWNED}\nSELECT 1;\n",
    "source": "source /etc/passwd\nSELECT 1;\n",
    "file of the host": "CREATE TABLE wp_x (a TEXT); LOAD DATA LOCAL INFILE '/etc/shadow' INTO TABLE wp_x;\n",
    "file of the server": f"SELECT 1 INTO OUTFILE '{PWNED}';\n",
    "another database": "INSERT INTO mysql.global_priv SELECT * FROM mysql.global_priv;\n",
    "a neighbour": "USE {other}; UPDATE wp_options SET option_value = 'pwned';\n",
    "qualified": "UPDATE {other}.wp_options SET option_value = 'pwned';\n",
    "a user": "CREATE USER pwned;\n",
    "trigger": "CREATE TABLE wp_x (id INT); /*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER t "
    "BEFORE INSERT ON wp_x FOR EACH ROW SET NEW.id = 1 */;\n",
    "view": "CREATE TABLE wp_x (id INT); /*!50013 CREATE DEFINER=`root`@`localhost` SQL SECURITY DEFINER "
    "VIEW v AS SELECT * FROM wp_x */;\n",
    "function": "CREATE DEFINER=`root`@`localhost` FUNCTION f() RETURNS INT RETURN 1;\n",
    "event": "CREATE DEFINER=`root`@`localhost` EVENT e ON SCHEDULE EVERY 1 SECOND DO SELECT 1;\n",
}
HARMLESS = {"command in a statement"}
EARLIER = {
    "its trigger": "CREATE TABLE wp_x (id INT);\nDELIMITER ;;\n/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ "
    "/*!50003 TRIGGER t BEFORE INSERT ON wp_x FOR EACH ROW SET NEW.id = 1 */;;\nDELIMITER ;\n",
    "its view": "CREATE TABLE wp_x (id INT);\n/*!50001 CREATE ALGORITHM=UNDEFINED */\n"
    "/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */\n/*!50001 VIEW `v` AS select 1 AS `a` */;\n",
}
LOADED = """
import json, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, Run
asked, said = json.load(sys.stdin), {}
run, database = Run(False, "/run/trueup/proof.pending", None), asked["database"]
for name, text in asked["dumps"].items():
    sql.make_anew(database)
    with open("/root/dump.sql", "w") as file:
        file.write(text)
    try:
        load = dump.load_whole if asked["whole"] else dump.load
        load(run, run.start(["cat", "/root/dump.sql"]), database, hint="The database was not loaded")
        said[name] = None
        stored_objects.take(database)
    except Failure as error:
        said[name] = [str(error), error.facts.get("trueup_code")]
sql.drop(database)
for session in (sql.root(), sql.within(database)):
    try:
        session.say("SELECT 1; SELECT 2")
        said["two statements"] = None
    except Failure as error:
        said["two statements"] = [str(error), None]
print(json.dumps(said))
"""


@pytest.mark.long
@pytest.mark.lab
def test_a_dump_fills_its_own_database_and_does_nothing_else(hacked: Hacked) -> None:
    exploded(hacked.hosting, HACKED)
    hacked.steals()
    dumps = {name: dump.replace("{other}", hacked.other) for name, dump in DUMPS.items()}
    asked = json.dumps({"database": f"{hacked.own}_next", "dumps": dumps, "whole": False})
    said = json.loads(hacked.node.ssh(["python3", "-c", LOADED], input=asked).stdout)
    assert {name for name, failure in said.items() if failure is None} == HARMLESS, said
    unmovable = {name for name, failure in said.items() if failure and failure[1] == "CONTENT_UNMOVABLE"}
    assert {"trigger", "view"} <= unmovable <= {"trigger", "view", "function", "event"}, said
    hacked.untouched()
    # Of an earlier version, whose views and triggers are among the tables: who loads it may make them there, no more.
    asked = json.dumps({"database": f"{hacked.own}_next", "dumps": {**dumps, **EARLIER}, "whole": True})
    said = json.loads(hacked.node.ssh(["python3", "-c", LOADED], input=asked).stdout)
    assert {name for name, failure in said.items() if failure is None} == {*HARMLESS, *EARLIER, "function"}, said
    hacked.untouched()
    assert hacked.node.ssh(["mariadb", "-BN", "-e", "SELECT User FROM mysql.user WHERE User = 'pwned'"]).stdout == ""


# What can be seen without a node.


def test_an_identifier_ends_nowhere_but_at_its_end() -> None:
    sql: Any = load("sql")
    assert sql.identifier("a`b``") == "`a``b`````"
    for name in ("", "x\0y", "n" * 65):
        with pytest.raises(sql.Failure):
            sql.identifier(name)
    assert [sql.literal(value) for value in ("it's", b"\0'", None, 12)] == [
        "_utf8mb4 X'69742773'",
        "X'0027'",
        "NULL",
        "12",
    ]


def test_only_databases_of_an_environment_have_a_user_of_their_own() -> None:
    sql: Any = load("sql")
    assert sql.short_of("wp_0123456789ab_next") == sql.short_of("wp_0123456789ab") == "0123456789ab"
    for name in ("mysql", "wp_", "wp_0123456789ab%", "wp_0123456789abc", "trueup_seed"):
        with pytest.raises(sql.Failure):
            sql.short_of(name)
