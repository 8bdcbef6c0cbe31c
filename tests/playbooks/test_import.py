"""Imports on a real node: what an export becomes, and that nothing is touched when it does not become anything."""

import base64
import gzip
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.churn import options
from tests.lab.web_server import WebServer, web_server
from tests.playbooks.environments import Hosting
from tests.playbooks.exports import packed, whole
from tests.playbooks.nodes import Run

pytestmark = pytest.mark.lab
KEY = "moved/production"
SOURCE = "acme/production"
OLD = "https://www.old-home.example/blog"
PLUGIN = "<?php /* Plugin Name: Brought */ add_action('wp_footer', function () { echo '<i>brought along</i>'; });"
EXPORT = """
set -e; cd $(mktemp -d); mkdir files
cp -rL "$1/current/wp-content/." files/; rm -f files/object-cache.php files/mu-plugins/trueup.php
mkdir -p files/plugins/brought; printf '%s' "$3" > files/plugins/brought/brought.php
mkdir -p files/uploads/2026; echo picture > files/uploads/2026/a.txt
echo '<?php' > files/object-cache.php; echo '<?php die();' > files/wp-config.php
mariadb-dump --single-transaction --skip-triggers "$2" > db.sql
"""


class Site:
    def __init__(self, hosting: Hosting, web: WebServer) -> None:
        self.hosting = hosting
        self.web = web

    def bring(self, url: str, *options: str) -> Run:
        release = {"id": str(uuid4()), "source_type": None, "source_ref": None, "revision": None, "origin": "import"}
        base = self.hosting.declare(KEY)["content"]
        content = {**base, "id": str(uuid4()), "origin": "import", "archive_url": url}
        self.hosting.declare(KEY, release=release, content=content)
        return self.again(*options)

    def again(self, *options: str, playbook: str = "import") -> Run:
        given = json.dumps({"trueup_import": {"allowed_hosts": [self.web.address]}})
        return self.hosting.run(playbook, KEY, "-e", given, *options)

    def page(self) -> str:
        return self.hosting.fetch(KEY, headers={"Cookie": "wordpress_no_cache=1"}).text

    def option(self, name: str) -> str:
        return self.hosting.sql(KEY, f"SELECT option_value FROM wp_options WHERE option_name = '{name}'")

    @property
    def url(self) -> str:
        found: str = self.hosting.environments[KEY]["url"]
        return found

    def fingerprint(self) -> list[str]:
        """All that the site is, in lines. From now on WordPress's own events wait, until it is configured again."""
        database, root = f"wp_{self.hosting.short(KEY)}", self.hosting.path(KEY)
        events = f"trueup-cron@{self.hosting.environments[KEY]['id']}"
        script = (
            f"set -e; systemctl stop {events}.timer {events}.service; "
            f"mariadb-dump --hex-blob --skip-dump-date --order-by-primary --ignore-table={database}.wp_options "
            f'{database}; mariadb -N {database} -e "{options()}"; '
            f"readlink {root}/current; ls {root} {root}/releases; "
            f"find {root}/shared {root}/releases -type f -exec sha256sum {{}} + | sort; "
            f"mariadb -N -e \"SHOW DATABASES LIKE '{database}%'; SELECT User FROM mysql.user ORDER BY 1\""
        )
        return self.hosting.node.ssh(script).stdout.splitlines()


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture(scope="module")
def site(hosting: Hosting) -> Iterator[Site]:
    hosting.apply(KEY).raise_if_failed()
    with web_server(hosting.node.address.rsplit(".", 1)[0] + ".1") as web:
        yield Site(hosting, web)
    del hosting.environments[KEY]


@pytest.fixture(scope="module")
def export(hosting: Hosting) -> dict[str, bytes]:
    """The members of an export of one of our sites as if it had lived at another address: its files by name."""
    node, old = hosting.node, hosting.environments[SOURCE]["url"]
    script = EXPORT + "tar -cf - db.sql files | gzip -1 | base64 -w0"
    argv = ["bash", "-c", script, "bash", hosting.path(SOURCE), f"wp_{hosting.short(SOURCE)}", PLUGIN]
    data = gzip.decompress(base64.b64decode(node.ssh(argv).stdout))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    widget = f'<img src="{old}/a.png">'
    value = f'a:1:{{i:2;a:1:{{s:4:"text";s:{len(widget)}:"{widget}";}}}}'
    more = (
        f"\nREPLACE INTO `wp_options` (option_name, option_value) VALUES ('widget_ours', '{value}'), "
        "('active_plugins', 'a:1:{i:0;s:19:\"brought/brought.php\";}');\n"
        "CREATE TABLE `wp_orders` (name VARCHAR(200), note BLOB);\n"
        f"INSERT INTO `wp_orders` VALUES ('{old}/order/1', 0x00ff0a09);\n"
    )
    files["db.sql"] += more.encode()
    return files


@pytest.fixture
def brought(site: Site, export: dict[str, bytes]) -> Site:
    """The site, once an export has become it."""
    if "brought along" not in site.page():
        site.bring(site.web.serve("/brought.tar.gz", packed(export))).raise_if_failed()
    return site


def moved(export: dict[str, bytes], hosting: Hosting, url: str = OLD) -> bytes:
    """The dump as the site at `url` would have written it."""
    old = hosting.environments[SOURCE]["url"].encode()
    widget = b'<img src="%s/a.png">'
    text = export["db.sql"]
    before = b's:%d:\\"%s' % (len(widget % old), (widget % old).replace(b'"', b'\\"'))
    assert before not in text
    text = text.replace(b's:%d:"%s"' % (len(widget % old), widget % old), b"@widget@").replace(old, url.encode())
    return text.replace(b"@widget@", b's:%d:"%s"' % (len(widget % url.encode()), widget % url.encode()))


def test_an_export_of_another_prefix_and_address_becomes_the_site(
    site: Site, hosting: Hosting, export: dict[str, bytes]
) -> None:
    text = moved(export, hosting).replace(b"`wp_", b"`k7_").replace(b"'wp_", b"'k7_")
    source = {**export, "db.sql": text, "meta.json": json.dumps({"source_url": OLD}).encode()}
    site.web.serve("/export.tar.gz", packed(source))
    url = site.web.redirect("/start", "/export.tar.gz")
    run = site.bring(url).raise_if_failed()
    assert "object-cache.php" in run.output or run.changed
    assert "brought along" in site.page()
    assert (site.option("siteurl"), site.option("home")) == (site.url, site.url)
    widget = f'<img src="{site.url}/a.png">'
    assert site.option("widget_ours") == f'a:1:{{i:2;a:1:{{s:4:"text";s:{len(widget)}:"{widget}";}}}}'
    assert hosting.sql(KEY, "SELECT name, HEX(note) FROM wp_orders") == f"{site.url}/order/1\t00FF0A09"
    assert hosting.sql(KEY, "SELECT COUNT(*) FROM wp_usermeta WHERE meta_key LIKE 'k7%'") == "0"
    assert site.option("wp_user_roles").startswith("a:")
    assert "administrator" in hosting.wp(KEY, "user", "list", "--field=roles")
    assert hosting.fetch(KEY, "/wp-content/uploads/2026/a.txt").text == "picture\n"
    current = hosting.path(KEY, "current")
    assert "Trueup object cache" in hosting.node.ssh(["cat", f"{current}/wp-content/object-cache.php"]).stdout
    assert hosting.node.ssh(["ls", f"{current}/wp-content"]).stdout.count("wp-config.php") == 0
    again = site.again().raise_if_failed()
    assert again.changed == 0, again.output
    left = hosting.node.ssh(f"ls -d {hosting.path(KEY)}/i* 2>/dev/null || true").stdout
    assert left == ""
    assert hosting.node.ssh(["mariadb", "-N", "-e", "SELECT User FROM mysql.user WHERE User LIKE '%in'"]).stdout == ""


BESIDE_TABLES = r"""
CREATE TABLE k7_books (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(100));
CREATE TABLE k7_noted (what VARCHAR(200));
DELIMITER //
CREATE FUNCTION k7_shout(word TEXT) RETURNS TEXT DETERMINISTIC
BEGIN
    -- it's ours; and ends with ";"
    RETURN CONCAT(UPPER(word), '!;\'\\');
END//
CREATE PROCEDURE note(what TEXT) BEGIN INSERT INTO elsewhere.k7_noted VALUES (k7_shout(what)); END//
CREATE VIEW k7_titles AS SELECT k7_shout(title) AS title FROM k7_books//
CREATE VIEW a_view AS SELECT * FROM k7_titles//
CREATE TRIGGER noted AFTER INSERT ON k7_books FOR EACH ROW BEGIN CALL note(NEW.title); END//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO BEGIN CALL note('night'); END//
"""


@pytest.mark.long
def test_views_triggers_routines_and_events_come_along(site: Site, hosting: Hosting, export: dict[str, bytes]) -> None:
    """As mariadb-dump writes them, by a definer whom nobody knows here, and with the names that tables have here."""
    node = hosting.node
    node.ssh("mariadb -e 'CREATE DATABASE elsewhere; CREATE USER owner@localhost; GRANT ALL ON *.* TO owner@localhost'")
    node.ssh(["mariadb", "-u", "owner", "elsewhere"], input=BESIDE_TABLES)
    # Whatever begins a dump is at its beginning.
    more = node.ssh("mariadb-dump -u owner --routines --events elsewhere | sed '/sandbox mode/d'").stdout
    node.ssh("mariadb -e 'DROP DATABASE elsewhere; DROP USER owner@localhost'")
    assert more.count("DEFINER=`owner`@`localhost`") == 6
    text = moved(export, hosting).replace(b"`wp_", b"`k7_").replace(b"'wp_", b"'k7_") + more.encode()
    source = {**export, "db.sql": text, "meta.json": json.dumps({"source_url": OLD}).encode()}
    site.bring(site.web.serve("/programs.tar.gz", packed(source))).raise_if_failed()
    assert "brought along" in site.page()
    hosting.sql(KEY, "INSERT INTO wp_books (title) VALUES ('word')")
    asked = "SELECT title FROM a_view; SELECT title FROM wp_titles; SELECT what FROM wp_noted; SELECT wp_shout('word')"
    client = ["mariadb", "-N", "--raw", f"wp_{hosting.short(KEY)}"]
    assert hosting.node.ssh(client, input=asked).stdout.splitlines() == ["WORD!;'\\"] * 4
    own = f"wp_{hosting.short(KEY)}@localhost"
    query = (
        "SELECT definer FROM information_schema.views WHERE table_schema = DATABASE() UNION ALL "
        "SELECT definer FROM information_schema.triggers WHERE trigger_schema = DATABASE() UNION ALL "
        "SELECT definer FROM information_schema.routines WHERE routine_schema = DATABASE() UNION ALL "
        "SELECT definer FROM information_schema.events WHERE event_schema = DATABASE()"
    )
    assert hosting.sql(KEY, query).splitlines() == [own] * 6
    query = "SELECT status FROM information_schema.events WHERE event_schema = DATABASE()"
    assert hosting.sql(KEY, query) == "ENABLED", "this is production"


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda web: "http://169.254.169.254/latest/", "IMPORT_URL_REFUSED"),
        (lambda web: web.redirect("/in", "http://127.0.0.1/x"), "IMPORT_URL_REFUSED"),
        (lambda web: web.lie("/early", b"\x1f\x8b", 1000), "IMPORT_DOWNLOAD_FAILED"),
        (lambda web: web.serve("/text", b"hello"), "ARCHIVE_INVALID"),
        (lambda web: web.serve("/up", packed(whole(**{"../x": "x"}))), "ARCHIVE_UNSAFE"),
        (lambda web: web.serve("/zeros", packed({"a": b"\0" * (80 << 20)})), "ARCHIVE_BOMB"),
        (lambda web: web.serve("/none", packed({"files/plugins/a": "x"})), "ARCHIVE_INCOMPLETE"),
        (lambda web: web.serve("/grant", packed(whole(**{"db.sql": "GRANT ALL ON *.* TO x;"}))),
         "IMPORT_DATABASE_REFUSED"),
        (lambda web: web.serve("/empty", packed(whole())), "IMPORT_DATABASE_REFUSED"),
    ],
)  # fmt: skip
def test_what_is_refused_touches_nothing(site: Site, answer: Any, code: str) -> None:
    before = site.fingerprint()
    run = site.bring(answer(site.web))
    assert run.status != 0
    assert code in run.output
    assert site.fingerprint() == before


@pytest.mark.long
def test_the_loading_user_reaches_no_other_database(site: Site, hosting: Hosting, export: dict[str, bytes]) -> None:
    other = f"wp_{hosting.short('acme/staging')}"
    text = export["db.sql"] + f"INSERT INTO wp_orders SELECT user_pass, '' FROM `{other}`.`wp_users`;\n".encode()
    before = site.fingerprint()
    run = site.bring(site.web.serve("/reaching.tar.gz", packed({**export, "db.sql": text})))
    assert run.status != 0
    assert "IMPORT_DATABASE_REFUSED" in run.output
    assert "denied" in run.output
    assert site.fingerprint() == before


@pytest.mark.long
def test_a_site_that_does_not_run_here_is_undone(brought: Site, export: dict[str, bytes]) -> None:
    site = brought
    broken = {**export, "files/mu-plugins/broken.php": b"<?php this is no php"}
    run = site.bring(site.web.serve("/broken.tar.gz", packed(broken)))
    assert run.status != 0
    assert "RELEASE_UNHEALTHY" in run.output
    assert "brought along" in site.page()
    current = site.hosting.node.ssh(["readlink", site.hosting.path(KEY, "current")]).stdout
    assert current.strip().split("/")[-1] != site.hosting.environments[KEY]["release"]["id"]


@pytest.mark.long
@pytest.mark.parametrize("what", ["row", "statement"])
def test_a_row_that_could_not_be_backed_up_is_refused(site: Site, export: dict[str, bytes], what: str) -> None:
    row = "REPEAT('x', 68 << 20)" if what == "row" else f"'{'x' * (200 << 20)}'"
    heavy = f"CREATE TABLE wp_heavy (body LONGTEXT);\nINSERT INTO wp_heavy VALUES ({row});\n".encode()
    before = site.hosting.sql(KEY, "SHOW TABLES")
    # Not so well compressed that it would be refused for that.
    noise = {f"files/uploads/{n}.bin": os.urandom(1 << 20) for n in range(4)} if what == "statement" else {}
    run = site.bring(site.web.serve("/heavy.tar.gz", packed({**export, **noise, "db.sql": export["db.sql"] + heavy})))
    assert run.status != 0
    assert "CONTENT_TOO_LARGE" in run.output
    assert site.hosting.sql(KEY, "SHOW TABLES") == before
    assert "</html>" in site.page()


KILL = """
for unit in $(systemctl list-units --plain --no-legend 'trueup-manual-*.scope' | cut -d' ' -f1)
do systemctl kill --signal=KILL $unit && echo $unit; done
"""


@pytest.mark.long
def test_killed_halfway_and_run_again(brought: Site, hosting: Hosting, export: dict[str, bytes]) -> None:
    site, data = brought, packed({**export, "files/uploads/second.txt": b"second"})
    killed: list[str] = []
    dead = threading.Event()

    def answer(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2])
        if not killed:
            request.wfile.flush()
            killed.extend(hosting.node.ssh(KILL).stdout.split())
            dead.wait(60)  # a connection that ends would be a download that failed
            return
        request.wfile.write(data[len(data) // 2 :])

    site.web.answers["/kill.tar.gz"] = answer
    assert site.bring(site.web.url("/kill.tar.gz")).status != 0
    dead.set()
    assert len(killed) == 1
    assert "brought along" in site.page()
    run = site.again().raise_if_failed()
    assert run.changed > 0
    assert hosting.fetch(KEY, "/wp-content/uploads/second.txt").text == "second"
    assert site.again().raise_if_failed().changed == 0


@pytest.mark.long
def test_an_older_wordpress_is_brought_up_to_date(site: Site, hosting: Hosting, export: dict[str, bytes]) -> None:
    """A database of WordPress 6.4 has an older version in its options."""
    old = export["db.sql"] + b"UPDATE"[:0]
    old += b"REPLACE INTO `wp_options` (option_name, option_value) VALUES ('db_version', '56657');\n"
    site.bring(site.web.serve("/old.tar.gz", packed({**export, "db.sql": old}))).raise_if_failed()
    version = hosting.node.ssh(["grep", "wp_db_version =", f"{hosting.path(KEY, 'current')}/wp-includes/version.php"])
    assert site.option("db_version") in version.stdout
    assert site.option("db_version") != "56657"
