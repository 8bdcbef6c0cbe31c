"""What a hacked site plants, as data: where, and how it is made by whoever has the site."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Plants of one kind are planted together, and meet one run of an operation together."""

    LINKS = "links"
    SWAPPED = "swapped"
    SPECIALS = "specials"
    SIZES = "sizes"
    NAMES = "names"
    MODES = "modes"
    RACES = "races"
    SQL_NAMES = "sql-names"
    SQL_VIEWS = "sql-views"
    SQL_TRIGGERS = "sql-triggers"
    SQL_ROWS = "sql-rows"
    OPTIONS = "options"
    PAGES = "pages"


@dataclass(frozen=True)
class Plant:
    """``does``: Python for files (``d``: each directory that it is planted in; ``own``, ``near``: the site's own and
    its neighbour's), SQL for tables, statements parted by ``;;``, PHP for what WordPress runs. ``slug`` is the plant's.
    """

    name: str
    kind: Kind
    does: str

    @property
    def slug(self) -> str:
        """Names its canaries."""
        return f"{self.kind}-{self.name}"


def _all(kind: Kind, plants: dict[str, str]) -> tuple[Plant, ...]:
    return tuple(Plant(name, kind, does) for name, does in plants.items())


LINKS = _all(
    Kind.LINKS,
    {
        "root-file": "os.symlink(f'/root/canaries/{slug}/secret.php', f'{d}/root-file.php')",
        "root-directory": "os.symlink(f'/root/canaries/{slug}', f'{d}/root-directory')",
        "etc-file": "os.symlink(f'/etc/canaries/{slug}/secret.php', f'{d}/etc-file.php')",
        "etc-directory": "os.symlink(f'/etc/canaries/{slug}', f'{d}/etc-directory')",
        "neighbour-file": "os.symlink(f'{near}/shared/uploads/canaries/{slug}/secret.php', f'{d}/neighbour-file.php')",
        "neighbour-directory": "os.symlink(f'{near}/shared/uploads/canaries/{slug}', f'{d}/neighbour-directory')",
        "neighbour-configuration": "os.symlink(f'{near}/shared/wp-config.php', f'{d}/neighbour-configuration.php')",
        "relative": "os.symlink('../' * 12 + f'root/canaries/{slug}', f'{d}/relative')",
        "through-proc": "os.symlink(f'/proc/1/root/root/canaries/{slug}', f'{d}/through-proc')",
        "store": "os.symlink('/opt/trueup/wordpress', f'{d}/store')",
        "link-to-link": "os.symlink(f'/root/canaries/{slug}', f'{d}/one'); os.symlink('one', f'{d}/link-to-link')",
        "loop": "os.symlink('loop', f'{d}/loop')",
        "hard-link-to-core": "os.link(f'{own}/current/index.php', f'{d}/hard-link.php')",
        "hard-link-to-itself": "open(f'{d}/hard', 'w').write('x'); os.link(f'{d}/hard', f'{d}/hard-link-to-itself')",
    },
)

_SWAP = "os.rename(f'{content}/NAME', f'{content}/NAME.away'); os.symlink(TARGET, f'{content}/NAME')"
SWAPPED = _all(
    Kind.SWAPPED,
    {
        "plugins-are-core": _SWAP.replace("NAME", "plugins").replace("TARGET", "'../wp-includes'"),
        "themes-are-of-root": _SWAP.replace("NAME", "themes").replace("TARGET", "f'/root/canaries/{slug}'"),
        "languages-are-of-a-neighbour": _SWAP.replace("NAME", "languages").replace(
            "TARGET", "f'{near}/shared/uploads/canaries/{slug}'"
        ),
        "upgrade-is-etc": _SWAP.replace("NAME", "upgrade").replace("TARGET", "f'/etc/canaries/{slug}'"),
    },
)

SPECIALS = _all(
    Kind.SPECIALS,
    {
        "fifo": "os.mkfifo(f'{d}/fifo.php')",
        "fifo-as-plugin": "os.mkdir(f'{d}/piped'); os.mkfifo(f'{d}/piped/piped.php')",
        "link-to-fifo": "os.mkfifo(f'{d}/pipe'); os.symlink('pipe', f'{d}/link-to-fifo.php')",
        "endless-device": "os.symlink('/dev/zero', f'{d}/zero.php')",
        "waiting-device": "os.symlink('/dev/tty', f'{d}/tty.php'); os.symlink('/dev/stdin', f'{d}/stdin.php')",
        "kernel-log": "os.symlink('/proc/kmsg', f'{d}/kmsg.php')",
        "own-memory": "os.symlink('/proc/self/mem', f'{d}/memory.php')",
        "socket": "import socket; os.chdir(d); socket.socket(socket.AF_UNIX).bind('socket.php')",
    },
)

SIZES = _all(
    Kind.SIZES,
    {
        "sparse-code": "os.truncate(os.open(f'{d}/sparse.php', os.O_CREAT | os.O_WRONLY), 1 << 30)",
        "sparse-file": "os.truncate(os.open(f'{d}/sparse.bin', os.O_CREAT | os.O_WRONLY), 1 << 30)",
        "long-line": "open(f'{d}/line.php', 'w').write('<?php /*' + 'x' * (24 << 20) + '*/')",
        "deep": (
            "os.chdir(d)\n"
            "for _ in range(400):\n    os.mkdir('deeper-and-deeper'); os.chdir('deeper-and-deeper')\n"
            "open('end.php', 'w').write('x')"
        ),
        "wide": "os.mkdir(f'{d}/wide')\nfor n in range(5000): open(f'{d}/wide/{n}.php', 'w')",
        "huge-header": (
            "os.mkdir(f'{d}/named')\n"
            "open(f'{d}/named/named.php', 'w').write('<?php /* Plugin Name: ' + 'n' * (4 << 20) + ' */')"
        ),
    },
)

_NAMED = "os.mkdir(d.encode() + b'/' + NAME); open(d.encode() + b'/' + NAME + b'/x.php', 'w').write('<?php // named')"
NAMES = _all(
    Kind.NAMES,
    {
        "newline": _NAMED.replace("NAME", r"b'new\nline'"),
        "escape": _NAMED.replace("NAME", r"b'\x1b]0;owned\x07\x1b[2J'"),
        "right-to-left": _NAMED.replace("NAME", r"'\u202egnp.\u200b'.encode()"),
        "longest": _NAMED.replace("NAME", "b'l' * 255"),
        "no-utf-8": _NAMED.replace("NAME", r"b'\xff\xfe\xc3\x28'"),
        "option": _NAMED.replace("NAME", "b'--checkpoint-action=exec=id'"),
        "shell": _NAMED.replace("NAME", "b'$(touch ${HOME%root}tupwned-shell);`id`'"),
        "template": _NAMED.replace("NAME", "b\"{{ lookup('pipe', 'id') }}\""),
        "archive": _NAMED.replace("NAME", r"b'..\\..\\up'"),
        "sum-file": _NAMED.replace("NAME", r"b'  \\x  -'"),
    },
)

MODES = _all(
    Kind.MODES,
    {
        "directory-000": "os.mkdir(f'{d}/shut'); open(f'{d}/shut/x', 'w'); os.chmod(f'{d}/shut', 0)",
        "file-000": "open(f'{d}/shut.php', 'w'); os.chmod(f'{d}/shut.php', 0)",
        "for-everybody": "open(f'{d}/open.php', 'w'); os.chmod(f'{d}/open.php', 0o777)",
        "set-user-id": "open(f'{d}/suid', 'w'); os.chmod(f'{d}/suid', 0o6755)",
    },
)

# Each is a loop beside the operation: a directory that is a link whenever somebody is about to look into it.
_BUSY = """
os.mkdir(f'{d}/race'); os.mkdir(f'{d}/race/real'); open(f'{d}/race/real/secret.php', 'w').write('x')
os.symlink(TARGET, f'{d}/race/link')
while True:
    os.rename(f'{d}/race/real', f'{d}/race/NAME'); os.rename(f'{d}/race/NAME', f'{d}/race/real')
    os.rename(f'{d}/race/link', f'{d}/race/NAME'); os.rename(f'{d}/race/NAME', f'{d}/race/link')
"""
_WATCHING = """
import ctypes
libc = ctypes.CDLL(None)
os.mkdir(f'{d}/watched'); os.mkdir(f'{d}/watched/NAME'); open(f'{d}/watched/NAME/secret.php', 'w').write('x')
os.symlink(TARGET, f'{d}/watched/link')
watch = libc.inotify_init()
libc.inotify_add_watch(watch, f'{d}/watched'.encode(), 0x20 | 0x01)
while True:
    os.read(watch, 4096)
    os.rename(f'{d}/watched/NAME', f'{d}/watched/kept'); os.rename(f'{d}/watched/link', f'{d}/watched/NAME')
    time.sleep(0.01)
    os.rename(f'{d}/watched/NAME', f'{d}/watched/link'); os.rename(f'{d}/watched/kept', f'{d}/watched/NAME')
"""
RACES = _all(
    Kind.RACES,
    {
        "busy-root": _BUSY.replace("TARGET", "f'/root/canaries/{slug}'").replace("NAME", "a"),
        "busy-neighbour": _BUSY.replace("TARGET", "f'{near}/shared/uploads/canaries/{slug}'")
        .replace("NAME", "b")
        .replace("race", "race-b"),
        "watching-root": _WATCHING.replace("TARGET", "f'/root/canaries/{slug}'").replace("NAME", "c"),
        "watching-neighbour": _WATCHING.replace("TARGET", "f'{near}/shared/uploads/canaries/{slug}'")
        .replace("NAME", "d")
        .replace("watched", "watched-d"),
    },
)

SQL_NAMES = _all(
    Kind.SQL_NAMES,
    {
        "column": r"CREATE TABLE wp_t1 (id INT PRIMARY KEY, `a``\! touch /tupwned-column #` TEXT)",
        "column-first-key": r"CREATE TABLE wp_t2 (`k``\! touch /tupwned-column-first-key #` INT PRIMARY KEY, v TEXT)",
        "table": r"CREATE TABLE `wp_t``\! touch /tupwned-table #` (id INT PRIMARY KEY, v TEXT)",
        "newline": "CREATE TABLE wp_t3 (id INT PRIMARY KEY, `a\n\\! touch /tupwned-newline\n` TEXT)",
        "delimiter": "CREATE TABLE wp_t4 (id INT PRIMARY KEY, `a``; SELECT 1; \\! touch /tupwned-delimiter\n` TEXT)",
        "quote": r"CREATE TABLE wp_t5 (id INT PRIMARY KEY, `a'\"\\``b` TEXT)",
        "comment": r"CREATE TABLE wp_t6 (id INT PRIMARY KEY, v TEXT) COMMENT '\\! touch /tupwned-comment'",
        "index": r"CREATE TABLE wp_t7 (id INT PRIMARY KEY, v TEXT, KEY `i``\! touch /tupwned-index #` (v(5)))",
        "injection": (
            "CREATE TABLE wp_t8 (id INT PRIMARY KEY, `v``=(SELECT MAX(secret)FROM {near}.wp_canary),``v` TEXT)"
        ),
        "check": (
            r"CREATE TABLE wp_t9 (id INT PRIMARY KEY, v INT CONSTRAINT `c``\! touch /tupwned-check #` CHECK (v > 0))"
        ),
        "unicode": "CREATE TABLE `wp_ß漢\u202e` (id INT PRIMARY KEY, `ä\u200b` TEXT)",
        "longest": f"CREATE TABLE `wp_{'l' * 61}` (id INT PRIMARY KEY, `{'c' * 64}` TEXT)",
    },
)

_STEAL = """
CREATE TABLE IF NOT EXISTS wp_loot (what TEXT);;
CREATE FUNCTION tu_NAME() RETURNS INT SQL SECURITY INVOKER MODIFIES SQL DATA
BEGIN
  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
  INSERT INTO wp_loot SELECT secret FROM {near}.wp_canary WHERE slug = '{slug}';
  INSERT INTO {near}.wp_canary VALUES ('by {slug}', 'written');
  INSERT INTO wp_loot SELECT CONCAT('TUCANARY-{slug} ', Priv) FROM mysql.global_priv LIMIT 1;
  RETURN 1;
END;;
"""


def _view(name: str, table: str) -> str:
    """A table that is a view of itself, whose reader runs a function with the reader's own rights."""
    away = f"RENAME TABLE {table} TO {table}_away;;"
    view = f"CREATE SQL SECURITY INVOKER VIEW {table} AS SELECT * FROM {table}_away WHERE tu_{name}() = 1"
    return _STEAL.replace("NAME", name) + away + view


SQL_VIEWS = _all(
    Kind.SQL_VIEWS,
    {
        "options": _view("options", "wp_options"),
        "usermeta": _view("usermeta", "wp_usermeta"),
        "posts": _view("posts", "wp_posts"),
        "comments": _view("comments", "wp_comments"),
        "beside": _STEAL.replace("NAME", "beside")
        + "CREATE SQL SECURITY INVOKER VIEW wp_beside AS SELECT tu_beside() AS id",
        "content-mark": _STEAL.replace("NAME", "mark")
        + "DROP TABLE IF EXISTS trueup_content;;"
        + "CREATE SQL SECURITY INVOKER VIEW trueup_content AS SELECT tu_mark() AS id",
        # What is neither a table nor a view, though it has the place of one.
        "history": "CREATE TABLE wp_r15 (id INT PRIMARY KEY) WITH SYSTEM VERSIONING;;INSERT INTO wp_r15 VALUES (1)",
        "sequence": "CREATE SEQUENCE wp_r16",
    },
)
SQL_TRIGGERS = _all(
    Kind.SQL_TRIGGERS,
    {
        "on-options": _STEAL.replace("NAME", "t1")
        + "CREATE TRIGGER tu_t1 BEFORE UPDATE ON wp_options FOR EACH ROW SET @x = tu_t1()",
        "on-users": _STEAL.replace("NAME", "t2")
        + "CREATE TRIGGER tu_t2 BEFORE INSERT ON wp_usermeta FOR EACH ROW SET @x = tu_t2()",
        "named": _STEAL.replace("NAME", "t3")
        + r"CREATE TRIGGER `t``\! touch /tupwned-named #` BEFORE DELETE ON wp_posts FOR EACH ROW SET @x = tu_t3()",
        "sleeping": (
            "CREATE TRIGGER tu_sleeping BEFORE UPDATE ON wp_posts FOR EACH ROW "
            "BEGIN SET SESSION max_statement_time = 0; DO SLEEP(1000); END"
        ),
        "event": _STEAL.replace("NAME", "e1") + "CREATE EVENT tu_e1 ON SCHEDULE EVERY 1 SECOND DO SET @x = tu_e1()",
        "procedure": r"CREATE PROCEDURE `p``\! touch /tupwned-procedure #`() SQL SECURITY INVOKER SELECT 1",
        "definer": "CREATE DEFINER = root@localhost PROCEDURE tu_definer() SELECT secret FROM {near}.wp_canary",
    },
)
SQL_ROWS = _all(
    Kind.SQL_ROWS,
    {
        "one-megabyte": (
            "CREATE TABLE wp_r1 (id INT PRIMARY KEY, v LONGTEXT);;INSERT INTO wp_r1 VALUES (1, REPEAT('x', 1 << 20))"
        ),
        "twenty-megabytes": (
            "CREATE TABLE wp_r2 (id INT PRIMARY KEY, v LONGTEXT);;INSERT INTO wp_r2 VALUES (1, REPEAT('x', 20 << 20))"
        ),
        "no-key": "CREATE TABLE wp_r3 (v TEXT);;INSERT INTO wp_r3 VALUES ('a'), ('a'), (NULL)",
        "many-columns": "CREATE TABLE wp_r4 (id INT PRIMARY KEY, " + ", ".join(f"c{n} INT" for n in range(900)) + ")",
        "another-engine": (
            "CREATE TABLE wp_r5 (id INT PRIMARY KEY, v TEXT) ENGINE=Aria;;INSERT INTO wp_r5 VALUES (1, 'x')"
        ),
        "another-prefix": "CREATE TABLE another_r6 (id INT PRIMARY KEY);;CREATE TABLE trueup_r6 (id INT PRIMARY KEY)",
        "merge": "CREATE TABLE wp_r7 (slug VARCHAR(64), secret VARCHAR(200)) ENGINE=MERGE UNION=({near}.wp_canary)",
        "outside": "CREATE TABLE wp_r8 (id INT) DATA DIRECTORY='/root/canaries/{slug}'",
        "partition-outside": (
            "CREATE TABLE wp_r10 (id INT PRIMARY KEY) PARTITION BY HASH (id) "
            "(PARTITION p0 DATA DIRECTORY = '/root/canaries/{slug}', PARTITION p1);;INSERT INTO wp_r10 VALUES (1)"
        ),
        "partitions": (
            "CREATE TABLE wp_r11 (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 64;;"
            "INSERT INTO wp_r11 SELECT seq FROM seq_1_to_200"
        ),
        "federated": "CREATE TABLE wp_r12 (slug VARCHAR(64)) ENGINE=FEDERATED CONNECTION='mysql://root@/{near}/wp_canary'",
        "connect": "CREATE TABLE wp_r13 (v VARCHAR(99)) ENGINE=CONNECT FILE_NAME='/root/canaries/{slug}/secret.php'",
        "file": "CREATE TABLE wp_r14 (v VARCHAR(99) NOT NULL) ENGINE=CSV;;INSERT INTO wp_r14 VALUES ('=1+1')",
        "computed": (
            "CREATE TABLE wp_r17 (id INT PRIMARY KEY, a INT, b INT AS (a * 2) PERSISTENT UNIQUE, c INT INVISIBLE);;"
            "INSERT INTO wp_r17 (id, a, c) VALUES (1, 2, 3)"
        ),
        "foreign-key": (
            "CREATE TABLE wp_r18 (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES wp_r18 (id) "
            "ON DELETE CASCADE);;INSERT INTO wp_r18 VALUES (1, 1)"
        ),
        "binary": (
            "CREATE TABLE wp_r9 (id INT PRIMARY KEY, v BLOB);;INSERT INTO wp_r9 VALUES (1, 0x5C2120746F7563680A00FF)"
        ),
    },
)

_HOME = "(SELECT o.option_value FROM wp_options o WHERE o.option_name = 'home')"


def _option(name: str, value: str) -> str:
    put = f"INSERT INTO wp_options (option_name, option_value) SELECT {name}, {value}"
    return f"DELETE FROM wp_options WHERE option_name = {name};;{put}"


OPTIONS = _all(
    Kind.OPTIONS,
    {
        "huge-declared": _option("'blogname'", "REPEAT('x', 20 << 20)"),
        "huge": _option("'tu_huge'", f"CONCAT({_HOME}, REPEAT('x', 20 << 20))"),
        "deep": _option(
            "'tu_deep'",
            f"CONCAT(REPEAT('a:1:{{i:0;', 50000), 's:', LENGTH({_HOME}), ':\"', {_HOME}, '\";', REPEAT('}}', 50000))",
        ),
        "deep-json": _option("'tu_json'", f"CONCAT(REPEAT('[', 50000), '\"', {_HOME}, '\"', REPEAT(']', 50000))"),
        "lying": _option("'tu_lying'", f"CONCAT('a:999999999:{{s:999999999:\"', {_HOME}, '\";')"),
        "escape": _option("'blogdescription'", "CONCAT(CHAR(27), ']0;owned', CHAR(7), CHAR(27), '[2J')"),
        "name-with-escape": _option("CONCAT('tu', CHAR(27), '[2J', CHAR(10), '`\\\\! id')", "'x'"),
        "outside-plugin": _option("'active_plugins'", "'a:1:{i:0;s:23:\"../../../../../etc/hosts\";}'"),
        "outside-theme": _option("'template'", "'../../../../../../etc'"),
        "many": (
            "INSERT INTO wp_options (option_name, option_value) SELECT CONCAT('tu_many_', seq), 'x' FROM seq_1_to_20000"
        ),
        "version": _option("'db_version'", "'99999999\\' OR 1'"),
    },
)

PAGES = _all(
    Kind.PAGES,
    {
        "endless-body": "for ($i = 0; $i < 600; $i++) { echo str_repeat('x', 1 << 20); flush(); } exit;",
        "slow-body": (
            "for ($i = 0; $i < 75; $i++) { echo str_repeat('x', 5000); flush(); sleep(1); } touch($ended); exit;"
        ),
        # PHP notices that nobody waits when it writes, and ends.
        "slow-headers": (
            "sleep(75); for ($i = 0; $i < 5; $i++) { echo 'x'; flush(); usleep(100000); } touch($ended); exit;"
        ),
        "long-header": "header('X-Long: ' . str_repeat('x', 1 << 20)); echo '</html>'; exit;",
        "many-headers": "for ($i = 0; $i < 20000; $i++) { header(\"X-$i: x\"); } echo '</html>'; exit;",
        "redirects-to-itself": "header('Location: /'); http_response_code(302); exit;",
        "redirects-inside": "header('Location: http://127.0.0.1:6379/'); http_response_code(307); exit;",
        "packed": "header('Content-Encoding: gzip'); echo gzencode(str_repeat('x', 200 << 20)); exit;",
        "odd-status": "header('Status: 999 \x1b[2J'); echo '</html>'; exit;",
        "fatal": "no_such_function();",
        "memory": "ini_set('memory_limit', '192M'); $x = ''; while (true) { $x .= str_repeat('x', 1 << 20); }",
    },
)

PLANTS = (
    *(*LINKS, *SWAPPED, *SPECIALS, *SIZES, *NAMES, *MODES, *RACES),
    *(*SQL_NAMES, *SQL_VIEWS, *SQL_TRIGGERS, *SQL_ROWS, *OPTIONS, *PAGES),
)
