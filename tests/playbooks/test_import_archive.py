"""Hostile exports and addresses, judged without a node: each refused with its code, in bounded memory and time."""

import gzip
import socket
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.jobs import JobErrorCode
from tests.lab.web_server import WebServer, web_server
from tests.playbooks.exports import dump, member, packed, tarred, whole
from tests.playbooks.node_modules import COLLECTIONS, load

archives = load("site_import.archive")
fetching = load("site_import.fetch")
sql = load("site_import.sql")
urls = load("site_import.url")
Failure = load("environment.run").Failure


def _refused(call: Any, code: str) -> str:
    with pytest.raises(Failure) as caught:
        call()
    assert caught.value.facts["trueup_code"] == code, caught.value
    assert code in set(JobErrorCode)
    return str(caught.value)


def _without(name: str) -> dict[str, str | bytes]:
    return {key: text for key, text in whole().items() if not key.startswith(name)}


def _pax_bomb() -> bytes:
    """A member's header that says it is 64 MiB of attributes."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = b"x", 64 << 20
    return gzip.compress(info.tobuf() + b"a" * (64 << 20))


def _nested_headers() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = b"L", 4
    return gzip.compress((info.tobuf() + b"abc\0".ljust(512, b"\0")) * 5000)


def _sparse() -> bytes:
    info = tarfile.TarInfo("files/uploads/s")
    info.type = tarfile.GNUTYPE_SPARSE
    return packed(whole(), info)


def _huge_claim() -> bytes:
    info = tarfile.TarInfo("files/uploads/huge")
    info.size = 1 << 50
    return gzip.compress(tarred(whole())[:4096] + info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)


def _broken_header() -> bytes:
    data = bytearray(tarred(whole()))
    data[512 * 2 + 148 : 512 * 2 + 156] = b"9999999\0"
    return gzip.compress(bytes(data))


GOOD = packed(whole())
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "ARCHIVE_INVALID"),
    "a page": (lambda: b"<html>404</html>", "ARCHIVE_INVALID"),
    "a zip": (lambda: b"PK\x03\x04" + b"\0" * 100, "ARCHIVE_INVALID"),
    "gzip of no tar": (lambda: gzip.compress(b"hello" * 1000), "ARCHIVE_INVALID"),
    "gzip of nothing": (lambda: gzip.compress(b""), "ARCHIVE_INVALID"),
    "cut in the middle": (lambda: GOOD[: len(GOOD) // 2], "ARCHIVE_INVALID"),
    "without its checksum": (lambda: GOOD[:-8], "ARCHIVE_INVALID"),
    "a byte short": (lambda: GOOD[:-1], "ARCHIVE_INVALID"),
    "wrong checksum": (lambda: GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "ARCHIVE_INVALID"),
    "something after it": (lambda: GOOD + b"surprise", "ARCHIVE_INVALID"),
    "tar cut short": (lambda: gzip.compress(tarred(whole())[: 512 * 3]), "ARCHIVE_INVALID"),
    "broken header": (_broken_header, "ARCHIVE_INVALID"),
    "header of 64 MiB": (_pax_bomb, "ARCHIVE_INVALID"),
    "headers of headers": (_nested_headers, "ARCHIVE_INVALID"),
    "up and out": (lambda: packed(whole(**{"../../evil.php": "x"})), "ARCHIVE_UNSAFE"),
    "out in the middle": (lambda: packed(whole(**{"files/../../evil.php": "x"})), "ARCHIVE_UNSAFE"),
    "absolute": (lambda: packed(whole(**{"/etc/cron.d/evil": "x"})), "ARCHIVE_UNSAFE"),
    "backslashes": (lambda: packed(whole(**{"files\\..\\evil.php": "x"})), "ARCHIVE_UNSAFE"),
    "symbolic link": (
        lambda: packed(whole(), member("files/plugins/l", tarfile.SYMTYPE, "/etc/passwd")),
        "ARCHIVE_UNSAFE",
    ),
    "link inside": (lambda: packed(whole(), member("files/plugins/l", tarfile.SYMTYPE, "a")), "ARCHIVE_UNSAFE"),
    "hard link": (lambda: packed(whole(), member("files/plugins/l", tarfile.LNKTYPE, "db.sql")), "ARCHIVE_UNSAFE"),
    "character device": (lambda: packed(whole(), member("files/null", tarfile.CHRTYPE)), "ARCHIVE_UNSAFE"),
    "block device": (lambda: packed(whole(), member("files/sda", tarfile.BLKTYPE)), "ARCHIVE_UNSAFE"),
    "fifo": (lambda: packed(whole(), member("files/fifo", tarfile.FIFOTYPE)), "ARCHIVE_UNSAFE"),
    "sparse": (_sparse, "ARCHIVE_UNSAFE"),
    "too deep": (lambda: packed(whole(**{"files/" + "a/" * 90 + "b": "x"})), "ARCHIVE_UNSAFE"),
    "two dumps": (lambda: packed(whole(**{"./db.sql": dump()})), "ARCHIVE_UNSAFE"),
    "claims a petabyte": (_huge_claim, "ARCHIVE_TOO_LARGE"),
    "no dump": (lambda: packed(_without("db.sql")), "ARCHIVE_INCOMPLETE"),
    "no files": (lambda: packed(_without("files")), "ARCHIVE_INCOMPLETE"),
    "files are no wp-content": (lambda: packed(_without("files") | {"files/x.txt": "x"}), "ARCHIVE_INCOMPLETE"),
    "in a directory": (lambda: packed({f"site/{name}": text for name, text in whole().items()}), "ARCHIVE_INCOMPLETE"),
    "meta is no JSON": (lambda: packed(whole(**{"meta.json": "{"})), "ARCHIVE_INCOMPLETE"),
    "meta is a list": (lambda: packed(whole(**{"meta.json": "[]"})), "ARCHIVE_INCOMPLETE"),
    "meta is deep": (lambda: packed(whole(**{"meta.json": "[" * 60000})), "ARCHIVE_INCOMPLETE"),
    "meta is large": (lambda: packed(whole(**{"meta.json": " " * 70000})), "ARCHIVE_INCOMPLETE"),
    "meta has no address": (
        lambda: packed(whole(**{"meta.json": '{"source_url": "file:///etc"}'})),
        "ARCHIVE_INCOMPLETE",
    ),
}
DUMPS: dict[str, str] = {
    "empty": "",
    "no WordPress": "CREATE TABLE wp_options (id INT);",
    "USE": dump(more="USE mysql;"),
    "CREATE DATABASE": dump(more="CREATE DATABASE /*!32312 IF NOT EXISTS*/ `x`;"),
    "DROP DATABASE": dump(more="DROP DATABASE mysql;"),
    "GRANT": dump(more="GRANT ALL ON *.* TO x@localhost;"),
    "CREATE USER": dump(more="CREATE USER x@localhost;"),
    "LOAD DATA": dump(more="LOAD DATA INFILE '/etc/passwd' INTO TABLE wp_posts;"),
    "OUTFILE": dump(more="INSERT INTO wp_posts SELECT 1 INTO OUTFILE '/tmp/x';"),
    "LOAD_FILE": dump(more="INSERT INTO wp_posts VALUES (LOAD_FILE('/etc/passwd'));"),
    "hidden in a comment that is run": dump(more="/*!50000 GRANT ALL ON *.* TO x */;"),
    "hidden in MariaDB's": dump(more="/*M! DROP DATABASE mysql */;"),
    "shell": dump(more="\\! touch /tmp/owned\n"),
    "source": dump(more="\\. /etc/passwd\n"),
    "system": dump(more="system touch /tmp/owned;\n"),
    "odd delimiter": dump(more="DELIMITER \\!\n"),
    "quote as a delimiter": dump(more="DELIMITER '\n"),
    "behind a delimiter": dump(more="DELIMITER ;;\nDROP DATABASE mysql ;;\nDELIMITER ;\n"),
    "shell in a body": dump(more="DELIMITER ;;\nCREATE PROCEDURE p() BEGIN SELECT 1;\n\\! id\nEND ;;\nDELIMITER ;\n"),
    "library": dump(more="CREATE FUNCTION f RETURNS STRING SONAME 'x.so';"),
    "file in a body": dump(more="CREATE PROCEDURE p() SELECT 1 INTO OUTFILE '/tmp/x';"),
    "no end of a delimiter": dump(more="DELIMITER ;;\nCREATE PROCEDURE p() SELECT 1;\n"),
    "SET GLOBAL": dump(more="SET GLOBAL general_log = 1;"),
    "SET @@GLOBAL": dump(more="SET @@GLOBAL.GTID_PURGED='x';"),
    "SET PASSWORD": dump(more="SET PASSWORD = 'x';"),
    "other lexing": dump(more="SET sql_mode = 'NO_BACKSLASH_ESCAPES';"),
    "other database": dump(more="CREATE TABLE `mysql`.`x` (id INT);"),
    "block": dump(more="BEGIN NOT ATOMIC DROP TABLE x; END;"),
    "select": dump(more="SELECT SLEEP(1000);"),
    "prepared": dump(more="PREPARE s FROM 'DROP DATABASE mysql';"),
    "directory": dump(more="CREATE TABLE x (id INT) DATA DIRECTORY='/tmp';"),
    "cut in a text": dump(more="INSERT INTO wp_posts VALUES ('abc"),
    "cut in a statement": dump(more="INSERT INTO wp_posts VALUES (1"),
    "two sites": dump() + dump("other_"),
    "multisite": dump(more="CREATE TABLE wp_blogs (id INT); CREATE TABLE wp_site (id INT);"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name: str, tmp_path: Path) -> None:
    data, code = HOSTILE[name]
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(data())
    assert "Nothing" in _refused(lambda: archives.judged(archive), code)


@pytest.mark.parametrize("name", DUMPS)
def test_a_dump_that_wants_more_is_refused(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(packed(whole(**{"db.sql": DUMPS[name]})))
    _refused(lambda: archives.judged(archive), "IMPORT_DATABASE_REFUSED")


def test_a_dump_in_utf_16_is_refused() -> None:
    _refused(lambda: sql.Dump().feed(dump().encode("utf-16")), "IMPORT_DATABASE_REFUSED")


TEXTS = [
    r"""INSERT INTO `wp_posts` VALUES (1,'GRANT ALL; USE x; it\'s \\','a''b',"say \"hi\"");""",
    "INSERT INTO wp_posts VALUES ('-- no comment', '/* none */', '# none');",
    "/*!40000 ALTER TABLE `wp_posts` DISABLE KEYS */;\nLOCK TABLES `wp_posts` WRITE;\nUNLOCK TABLES;",
    "SET SQL_MODE = \"NO_AUTO_VALUE_ON_ZERO\";\nSTART TRANSACTION;\nSET time_zone = '+00:00';\nCOMMIT;",
    "-- USE mysql; it's a comment\n# GRANT, isn't it\n/* DROP DATABASE don't */\nINSERT INTO wp_posts VALUES (3-1);",
    "INSERT INTO wp_posts VALUES (0x" + "ab" * 20000 + ");",
    "/*!50503 SET character_set_client = utf8mb4 */;\nDROP TABLE IF EXISTS `wp_links`;",
]


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_honest_dumps_pass_byte_for_byte_however_they_are_cut(size: int) -> None:
    text = dump(more="\n".join(TEXTS) + "\n").encode()
    reader = sql.Dump()
    out = b"".join(reader.feed(text[at : at + size]) for at in range(0, len(text), size)) + reader.end()
    assert out == text
    assert reader.prefix() == "wp_"


BESIDE_TABLES = [
    ("/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`%`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `wp_posts` FOR EACH ROW "
     "BEGIN SET NEW.a = 'DEFINER=`kept`@`x`;'; SET @b = 1; END */;;\n", "/*!50017 */"),
    ("/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a``b`@`localhost` SQL SECURITY DEFINER */\n"
     "/*!50001 VIEW `v` AS select 1 AS `a` */;;\n", "/*!50013  SQL SECURITY DEFINER */"),
    ("CREATE DEFINER='root'@'10.0.0.%' FUNCTION `f`() RETURNS int(11)\n    DETERMINISTIC\nRETURN 1 ;;\n",
     "CREATE  FUNCTION `f`"),
    ("CREATE DEFINER=root@localhost PROCEDURE p() SELECT 1; ;;\n", "CREATE  PROCEDURE p"),
    ("CREATE definer = CURRENT_USER() PROCEDURE p() SELECT 1 ;;\n", "CREATE  PROCEDURE p"),
    ("/*!50106 CREATE*/ /*!50117 DEFINER=`root`@`localhost`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY DO "
     "BEGIN DELETE FROM wp_posts; END */ ;;\n", "/*!50117 */"),
    ("/*!50003 DROP FUNCTION IF EXISTS `f` */ ;;\n", "DROP FUNCTION"),
]  # fmt: skip


@pytest.mark.parametrize("delimiter", [";;", "$$", "//"])
@pytest.mark.parametrize("size", [1, 3, 50, 100000])
def test_what_lies_beside_tables_passes_without_its_definers(size: int, delimiter: str) -> None:
    said = [(text.replace(";;\n", f"{delimiter}\n"), without) for text, without in BESIDE_TABLES]
    more = f"DELIMITER {delimiter}\n{''.join(text for text, _ in said)}delimiter ;\nINSERT INTO wp_posts VALUES (1);\n"
    text = dump(more=more).encode()
    reader = sql.Dump()
    out = (b"".join(reader.feed(text[at : at + size]) for at in range(0, len(text), size)) + reader.end()).decode()
    assert out.count("DEFINER=") == 1, "the one in a text"
    assert "DEFINER=`kept`" in out
    assert "root" not in out
    for _, without in said:
        assert without in out
    assert out.endswith("INSERT INTO wp_posts VALUES (1);\n")


@pytest.mark.parametrize("size", [3, 50, 100000])
def test_what_only_other_servers_know_is_replaced_outside_of_texts(size: int) -> None:
    head = "/*M!999999\\- enable the sandbox mode */ \n"
    more = "CREATE TABLE x (a TEXT) COLLATE=utf8mb4_0900_ai_ci;\nINSERT INTO x VALUES ('utf8mb4_0900_ai_ci');\n"
    text = (head + dump("my_", more)).encode()
    reader = sql.Dump()
    out = b"".join(reader.feed(text[at : at + size]) for at in range(0, len(text), size)) + reader.end()
    assert b"COLLATE=utf8mb4_unicode_520_ci;" in out
    assert b"('utf8mb4_0900_ai_ci')" in out
    assert b"sandbox" not in out
    assert reader.prefix() == "my_"


def test_a_good_archive_is_understood_and_unpacked(tmp_path: Path) -> None:
    files = whole(**{"files/object-cache.php": "<?php", "files/wp-config.php": "<?php", "readme.txt": "x"})
    archive, target = tmp_path / "a.tar.gz", tmp_path / "tree"
    data = packed({f"./{name}": text for name, text in files.items()}, member("./files/empty", tarfile.DIRTYPE))
    half = zlib.compressobj(6, zlib.DEFLATED, 31)
    archive.write_bytes(data + half.compress(b"") + half.flush() + b"\0" * 512)
    export = archives.judged(archive)
    assert (export.prefix, export.source_url) == ("wp_", "https://old.example")
    assert sorted(export.left_out) == ["object-cache.php", "wp-config.php"]
    target.mkdir()
    archives.unpack(archive, str(target))
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == ["db.sql", "files/plugins/a/a.php", "files/uploads/b.txt"]
    assert (target / "files" / "empty").is_dir()


def test_too_many_members_and_bytes_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(packed(whole(files__uploads__c="x" * 5000)))
    _refused(lambda: archives.judged(archive, archives.Limits(most_members=3)), "ARCHIVE_TOO_LARGE")
    _refused(lambda: archives.judged(archive, archives.Limits(most_bytes=4000)), "ARCHIVE_TOO_LARGE")


BOUNDED = """
import resource, sys, json
sys.path.append(sys.argv[1])
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import import archive as archives
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + (24 << 20), size + (24 << 20)))
try:
    archives.judged(sys.argv[2])
    code = "good"
except archives.Failure as error:
    code = error.facts["trueup_code"]
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def _bounded(archive: Path) -> tuple[str, int]:
    argv = [sys.executable, "-c", BOUNDED, COLLECTIONS, str(archive)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=500, check=True)
    code, grown = done.stdout.split()
    return code, int(grown)


def _zeros(path: Path, count: int, name: str) -> Path:
    """`count` MiB of zeros as a member, never whole in memory."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(tarred(whole())[:4096])
        info = tarfile.TarInfo(name)
        info.size = count << 20
        file.write(info.tobuf())
        for _ in range(count):
            file.write(b"\0" * (1 << 20))
        file.write(b"\0" * 10240)
    return path


def test_a_gibibyte_of_zeros_is_refused_in_24_mebibytes(tmp_path: Path) -> None:
    code, grown = _bounded(_zeros(tmp_path / "bomb.tar.gz", 1024, "files/uploads/zeros"))
    assert code == "ARCHIVE_BOMB"
    assert grown < 24 << 10


def test_headers_and_many_members_need_no_more_memory(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(_pax_bomb())
    assert _bounded(archive)[0] == "ARCHIVE_INVALID"
    archive.write_bytes(packed(whole(**{f"files/uploads/{n}-{n * 7}": str(n) for n in range(20000)})))
    assert _bounded(archive)[0] == "good"


# Addresses

REFUSED_URLS = [
    "file:///etc/passwd",
    "ftp://example.com/a",
    "gopher://example.com/",
    "data:text/plain,x",
    "//example.com/a",
    "example.com/a",
    "http://",
    "http://user:secret@example.com/a",
    "http://example.com@127.0.0.1/a",
    "http://127.0.0.1/a",
    "http://127.1/a",
    "http://2130706433/a",
    "http://0x7f000001/a",
    "http://0x7f.0.0.1/a",
    "http://0177.0.0.1/a",
    "http://017700000001/a",
    "http://0/a",
    "http://0.0.0.0/a",
    "http://10.0.0.1/a",
    "http://172.16.0.1/a",
    "http://192.168.1.1/a",
    "http://100.64.0.1/a",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://224.0.0.1/a",
    "http://240.0.0.1/a",
    "http://255.255.255.255/a",
    "http://[::1]/a",
    "http://[::]/a",
    "http://[::ffff:127.0.0.1]/a",
    "http://[::ffff:a9fe:a9fe]/a",
    "http://[::127.0.0.1]/a",
    "http://[64:ff9b::7f00:1]/a",
    "http://[2002:7f00:1::]/a",
    "http://[fe80::1]/a",
    "http://[fe80::1%25eth0]/a",
    "http://[fd00:ec2::254]/latest/",
    "http://[fc00::1]/a",
    "http://[fec0::1]/a",
    "http://[ff02::1]/a",
    "http://exa mple.com/a",
    "http://example.com/\r\nHost: evil",
    "http://example.com:0/a",
    "http://example.com:99999/a",
    "http://ex\u0430mple.com/a",
    "http://[::1/a",
    "http://example.com\\@127.0.0.1/",
    "http://localhost/a",
    "http://localhost./a",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    _refused(lambda: urls.place_of(url), "IMPORT_URL_REFUSED")


def _answering(*addresses: str) -> Any:
    def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    return resolve


def test_a_name_is_judged_by_every_address_that_it_has() -> None:
    assert urls.place_of("https://files.example/a?b", (), _answering("93.184.216.34")).addresses == ["93.184.216.34"]
    for address in ("10.0.0.1", "127.0.0.1", "169.254.169.254"):
        resolve = _answering("93.184.216.34", address)
        _refused(lambda r=resolve: urls.place_of("https://files.example/a", (), r), "IMPORT_URL_REFUSED")


def test_an_operator_allows_internal_hosts_but_not_the_machine_itself() -> None:
    allowed = ("files.internal", "10.9.9.9")
    assert urls.place_of("http://files.internal/a", allowed, _answering("10.0.0.1")).addresses == ["10.0.0.1"]
    assert urls.place_of("http://10.9.9.9/a", allowed).addresses == ["10.9.9.9"]
    for address in ("127.0.0.1", "169.254.169.254", "::1"):
        resolve = _answering(address)
        _refused(lambda r=resolve: urls.place_of("http://files.internal/a", allowed, r), "IMPORT_URL_REFUSED")
    _refused(lambda: urls.place_of("http://10.9.9.8/a", allowed), "IMPORT_URL_REFUSED")


# Downloads, over a real wire

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server(HERE) as server:
        yield server


def _limits(**more: Any) -> Any:
    """Little, and otherwise so much that a busy machine is not taken for a source that is too slow."""
    return fetching.Limits(**{"most_bytes": 1 << 20, "seconds": 300, "slowest": 0, **more})


def test_an_archive_is_fetched_over_redirects(web: WebServer, tmp_path: Path) -> None:
    web.serve("/a.tar.gz", GOOD)
    url = web.redirect("/start", "/a.tar.gz")
    assert fetching.fetch(url, tmp_path / "a", (HERE,), _limits()) == len(GOOD)
    assert (tmp_path / "a").read_bytes() == GOOD


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2/a", "http://10.0.0.1/a", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd",
     "http://[::1]/a", "//127.0.0.3/a"],
)  # fmt: skip
def test_a_redirect_to_where_nobody_may_go_is_refused(web: WebServer, tmp_path: Path, location: str) -> None:
    url = web.redirect("/away", location)
    _refused(lambda: fetching.fetch(url, tmp_path / "a", (HERE,), _limits()), "IMPORT_URL_REFUSED")


def test_redirects_end(web: WebServer, tmp_path: Path) -> None:
    url = web.redirect("/round", "/round")
    before = len(web.asked)
    _refused(lambda: fetching.fetch(url, tmp_path / "a", (HERE,), _limits()), "IMPORT_URL_REFUSED")
    assert len(web.asked) - before == 6


def test_sources_that_fail_end_soon_with_a_code(web: WebServer, tmp_path: Path) -> None:
    failing = {
        web.drip("/drip"): ({"slowest": 1000, "grace": 0.5}, "IMPORT_DOWNLOAD_FAILED"),
        web.drip("/watched"): ({"seconds": 1, "slowest": 0}, "IMPORT_DOWNLOAD_FAILED"),
        web.drip_headers("/headers"): ({"seconds": 1}, "IMPORT_DOWNLOAD_FAILED"),
        web.endless("/endless"): ({}, "ARCHIVE_TOO_LARGE"),
        web.lie("/early", b"abc", 1000): ({}, "IMPORT_DOWNLOAD_FAILED"),
        web.lie("/large", b"abc", 1 << 40): ({}, "ARCHIVE_TOO_LARGE"),
        web.lie("/negative", b"abc", -1): ({}, "IMPORT_DOWNLOAD_FAILED"),
        web.status("/secret", 403): ({}, "IMPORT_DOWNLOAD_FAILED"),
        web.close_at_once("/closed"): ({}, "IMPORT_DOWNLOAD_FAILED"),
        web.url("/missing"): ({}, "IMPORT_DOWNLOAD_FAILED"),
    }
    for url, (limits, code) in failing.items():
        _refused(lambda u=url, n=limits: fetching.fetch(u, tmp_path / "a", (HERE,), _limits(**n)), code)
    assert (tmp_path / "a").stat().st_size <= 1 << 20


def test_nobody_there_is_no_traceback(tmp_path: Path) -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
    url = f"http://{HERE}:{port}/a?key=secret"
    message = _refused(lambda: fetching.fetch(url, tmp_path / "a", (HERE,), _limits()), "IMPORT_DOWNLOAD_FAILED")
    assert "secret" not in message
