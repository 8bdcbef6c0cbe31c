"""Services that sites share know who asks: Redis, MariaDB, nginx, the node's own tools. Each attempt is a case."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.controlplane import until
from tests.isolation.hacked import Hacked, hack
from tests.isolation.operations import Ground, backup
from tests.isolation.trial import Trials

pytestmark = pytest.mark.lab

REDIS = r"""
$near = 'NEAR';
$doors = array('tcp://127.0.0.1:6379', 'unix:///run/redis/redis-server.sock');
foreach (glob('/run/*redis*/{*,*/*}', GLOB_BRACE) as $path) { $doors[] = "unix://$path"; }
$doors[] = "unix:///run/trueup-redis/$near/redis.sock";
foreach (array_unique($doors) as $door) {
    $redis = @stream_socket_client($door, $number, $message, 2);
    if (!$redis) { continue; }
    stream_set_timeout($redis, 2);
    foreach (json_decode($_POST['r']) as $words) {
        $line = '*' . count($words) . "\r\n";
        foreach ($words as $word) { $line .= '$' . strlen($word) . "\r\n$word\r\n"; }
        fwrite($redis, $line);
        $said = (string) fread($redis, 65536);
        echo json_encode(array($door, $words[0], substr($said, 0, 4000)), JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    }
}
"""
COMMANDS = {
    "scan": ["SCAN", "0", "COUNT", "10000"],
    "keys": ["KEYS", "*"],
    "random-key": ["RANDOMKEY"],
    "evaluate": ["EVAL", "return redis.call('SCAN', '0', 'COUNT', '10000')", "0"],
    "track": ["CLIENT", "TRACKING", "ON", "BCAST"],
    "monitor": ["MONITOR"],
    "clients": ["CLIENT", "LIST"],
}
NEAR_COMMANDS = {
    "read": ["GET", "{near}:canary:canary"],
    "write": ["SET", "{near}:users:1", "taken over"],
    "flush": ["FLUSHALL"],
    "flush-database": ["FLUSHDB"],
    "configure": ["CONFIG", "SET", "dir", "/root"],
    "save": ["SAVE"],
    "replicate": ["REPLICAOF", "127.0.0.1", "1"],
    "sleep": ["DEBUG", "SLEEP", "0"],
    "load": ["MODULE", "LOAD", "/tmp/x.so"],
    "rules": ["ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all"],
}


@pytest.fixture(scope="module")
def hacked(ground: Ground, trials: Trials) -> Hacked:
    return hack(ground.place, "asking")


def _ask(hacked: Hacked, near: Hacked, words: list[str]) -> list[list[str]]:
    """What each Redis that lets the site in answers."""
    sent = json.dumps([[word.replace("{near}", near.id) for word in words]])
    said = hacked.php(REDIS.replace("NEAR", near.id), r=sent)
    return [json.loads(line) for line in said.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_key_of_a_neighbour_s_is_seen_in_redis(trials: Trials, hacked: Hacked, words: list[str]) -> None:
    near = trials.canaries.neighbours[0]
    near.eval_in_wordpress("wp_cache_get('alloptions', 'options');")
    answers = _ask(hacked, near, words)
    assert [answer for answer in answers if near.id in answer[2] or "TUCANARY" in answer[2]] == []


@pytest.mark.parametrize("words", NEAR_COMMANDS.values(), ids=NEAR_COMMANDS)
def test_no_object_of_a_neighbour_s_is_reached_in_redis(trials: Trials, hacked: Hacked, words: list[str]) -> None:
    near = trials.canaries.neighbours[0]
    before = near.eval_in_wordpress("echo json_encode(wp_cache_get('canary', 'canary'));")
    assert "TUCANARY" in before
    answers = _ask(hacked, near, words)
    assert near.eval_in_wordpress("echo json_encode(wp_cache_get('canary', 'canary'));") == before
    assert [answer for answer in answers if "TUCANARY" in answer[2]] == []
    shared = [answer for answer in answers if "+OK" in answer[2] and words[0] not in {"SET", "FLUSHDB", "FLUSHALL"}]
    assert shared == [], "it may not reconfigure what it is given either"
    if words[0] == "SET":
        kept = near.eval_in_wordpress("global $wp_object_cache; echo json_encode(wp_cache_get(1, 'users'));")
        assert "taken over" not in kept
        assert [answer for answer in answers if "+OK" in answer[2] and hacked.id not in answer[0]] == []


STATEMENTS = {
    "neighbour's-rows": "SELECT secret FROM {near}.wp_canary",
    "neighbour's-write": "INSERT INTO {near}.wp_canary VALUES ('by hand', 'x')",
    "other-users": "SELECT * FROM mysql.global_priv",
    "file-out": "SELECT 'x' INTO OUTFILE '/tmp/tupwned-outfile'",
    "file-in": "SELECT IF(LOAD_FILE('/etc/hosts') IS NULL, (SELECT 1 UNION SELECT 2), 1)",
    "local-file": "LOAD DATA LOCAL INFILE '/etc/hosts' INTO TABLE wp_options",
    "global-variable": "SET GLOBAL max_connections = 1",
    "event-scheduler": "SET GLOBAL event_scheduler = ON",
    "a-user": "CREATE USER tu_x@localhost",
    "a-grant": "GRANT ALL ON {own}.* TO root@localhost",
    "a-database": "CREATE DATABASE tu_x",
    "a-plugin": "INSTALL SONAME 'ha_spider'",
    "a-function-of-its-own": "CREATE FUNCTION sys_exec RETURNS INTEGER SONAME 'udf.so'",
    "a-definer": "CREATE DEFINER = root@localhost VIEW tu_definer AS SELECT 1",
    "a-server": "CREATE SERVER tu_s FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.1')",
    "as-root": "SET ROLE root",
    "kill-others": "KILL 1",
    "shut-down": "SHUTDOWN",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_the_database_user_has_its_own_database_alone(trials: Trials, hacked: Hacked, statement: str) -> None:
    near = trials.canaries.neighbours[0]
    text = statement.replace("{near}", near.database).replace("{own}", hacked.database)
    (error,) = hacked.sql(text)
    assert error, f"MariaDB took {text}"
    assert hacked.node.ssh("ls /tmp/tupwned* /var/lib/mysql/tupwned*", check=False).stdout == ""


def test_no_table_lies_outside_of_the_databases(hacked: Hacked) -> None:
    """Where the server may write, any user might have it keep tables: in what is memory, or beside what root does."""
    place = "DATA DIRECTORY = '/var/tmp'"
    hacked.sql(
        f"CREATE TABLE wp_t9_tupwned1 (id INT PRIMARY KEY) {place}",
        *(f"CREATE TABLE wp_t9_tupwned_{one} (id INT PRIMARY KEY) ENGINE={one} {place}" for one in ("MyISAM", "Aria")),
        f"CREATE TABLE wp_t9_tupwned2 (id INT PRIMARY KEY) PARTITION BY HASH (id) (PARTITION p0 {place})",
    )
    assert hacked.node.ssh("find /var/tmp -name '*tupwned*'").stdout == ""


def test_connections_are_counted(hacked: Hacked) -> None:
    """One site cannot take all that the server has, nor lift its bound."""
    code = f"""{hacked.connect}
    $m->query("ALTER USER CURRENT_USER() WITH MAX_USER_CONNECTIONS 0");
    for ($n = 0; $n < 390; $n++) {{
        $c = @new mysqli('localhost', '{hacked.database}', $p[1], '{hacked.database}');
        if ($c->connect_errno) {{ break; }}
        $kept[] = $c;
    }}
    echo $n;"""
    most = int(hacked.node.ssh(["mariadb", "-N", "-e", "SELECT @@GLOBAL.max_connections"]).stdout)
    assert int(hacked.php(code)) < most / 2


def test_a_statement_comes_to_an_end(hacked: Hacked) -> None:
    """By the limit of its user, if that cannot lift it, or by somebody who looks for what takes too long."""
    hacked.php(f"{hacked.connect} $m->query('SET SESSION max_statement_time = 0');")
    listed = hacked.node.ssh(["systemctl", "list-units", "--plain", "--no-legend", "trueup-statements.timer"]).stdout
    # Running: it looks at this very moment.
    states = (["active", "waiting"], ["active", "running"])
    assert listed.split()[2:4] in states, "nobody ends a statement whose user lifted its limit"
    late = "SELECT COUNT(*) FROM information_schema.processlist WHERE user LIKE 'wp\\_%' AND info LIKE '%LATE%'"
    text = hacked.node.ssh(["systemctl", "cat", "trueup-statements.service"]).stdout
    (begins,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    (bound,) = re.findall(r"time > (\d+)", begins)
    with ThreadPoolExecutor(1) as pool:
        statement = f"{hacked.connect} $m->query('SELECT SLEEP(50) /* LATE */'); echo $m->error;"
        ended = pool.submit(hacked.php, statement)
        until(lambda: hacked.node.ssh(["mariadb", "-N", "-e", late]).stdout.strip() == "1", "it to run")
        soon = begins.replace(f"time > {bound}", "time >= 0").replace("%%", "%").replace("\\\\", "\\")
        hacked.node.ssh(soon)
        assert any(words in ended.result() for words in ("killed", "gone away", "Lost connection"))


@pytest.mark.parametrize("name", ["tu", "tu''; CREATE DATABASE tu_pwned; -- ", "tu`\\\\! touch /tupwned #"])
def test_what_was_prepared_and_left_is_undone(hacked: Hacked, name: str) -> None:
    """Any database user may prepare (XA) and go away; the locks would stay for ever, and no table could be moved."""
    change = "UPDATE wp_options SET autoload = 'no' WHERE option_name = 'siteurl'"
    steps = [f"XA START '{name}'", change, f"XA END '{name}'", f"XA PREPARE '{name}'"]
    assert hacked.sql(*steps) == [""] * len(steps)
    hacked.node.ssh(["systemctl", "start", "trueup-statements.service"])
    assert hacked.node.ssh(["mariadb", "-N", "-e", "XA RECOVER"]).stdout == ""
    databases = hacked.node.ssh(["mariadb", "-N", "-e", "SHOW DATABASES LIKE 'tu\\_%'"]).stdout
    assert (databases, hacked.node.ssh("ls /tupwned* 2>/dev/null", check=False).stdout) == ("", "")
    assert hacked.sql("SET SESSION innodb_lock_wait_timeout = 1", "UPDATE wp_options SET autoload = autoload") == [
        "",
        "",
    ]


DOORS = {
    "bus": "/run/dbus/system_bus_socket",
    "systemd": "/run/systemd/private",
    "journal-of-others": "/var/log/journal",
    "mail-of-cron": "/var/spool/cron",
    "letters": "/var/lib/trueup",
    "manifests": "/etc/trueup/environments",
    "server-blocks": "/etc/nginx",
    "root": "/root",
    "logs": "/var/log/nginx",
    "databases": "/var/lib/mysql/mysql",
    "neighbours": "/run/trueup-php",
    "backups-in-flight": "/var/tmp",
}


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
def test_native_code_in_the_sandbox_finds_no_door(trials: Trials, hacked: Hacked, path: str) -> None:
    """Without `disable_functions`: what name spaces and modes alone leave it."""
    code = f"""
import os, socket
path = {path!r}
found = []
try:
    if path.endswith(('socket', 'private')):
        door = socket.socket(socket.AF_UNIX)
        door.connect(path)
        found = ['it is let in']
    else:
        for top, _, names in os.walk(path):
            for one in (os.path.join(top, name) for name in names):
                found += [one] if os.access(one, os.R_OK) and not {hacked.id!r} in one else []
except OSError:
    pass
print(found)
"""
    found = hacked.native(code).strip()
    assert found == "[]", found


@pytest.mark.long
def test_no_signature_of_the_storage_is_in_the_journal(ground: Ground, trials: Trials, hacked: Hacked) -> None:
    """Row 13: who reads a node's journal is not who may write to the storage."""
    (end,) = backup(ground, hacked)
    assert end.succeeded, end
    said = hacked.node.ssh(["journalctl", "--no-pager", "--output=cat"]).stdout
    assert [line[:200] for line in said.splitlines() if "X-Amz-Signature" in line] == []
