"""A new site's rows come out of a seed, and are what WordPress itself would have made."""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.environments import VERSION, Hosting, variables_for
from tests.playbooks.exploded import exploded
from tests.playbooks.node_modules import load

seed = load("environment.seed")

CONTENT = {"title": "Plain", "admin_user": "trueup", "admin_email": "webmaster@example.com", "locale": "en_US"}
HOST = "1a2b3c4d.192-0-2-1.sslip.io"
MOMENT = "2026-01-02 03:04:05"
OF = {"version": VERSION, "locale": "en_US", "scheme": "http", "type": "production"}


def table(name: str, columns: list[list[Any]], *rows: list[str | None]) -> dict[str, Any]:
    listed = ",\n".join(f"  `{column}` longtext NOT NULL" for column, _ in columns)
    create = f"CREATE TABLE `{name}` (\n{listed}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    return {"name": name, "create": create, "columns": columns, "rows": [list(row) for row in rows]}


def tables() -> list[dict[str, Any]]:
    users = [["ID", True], ["user_login", False], ["user_pass", False], ["user_email", False]]
    users += [["user_registered", False]]
    password = "$wp$2y$10$" + "a" * 53
    options = [["option_id", True], ["option_name", False], ["option_value", False]]
    return [
        table(
            "wp_options",
            options,
            ["1", "cron", 'a:1:{i:1767326645;a:1:{s:1:"x";i:1767326645;}}'],
            ["2", "siteurl", f"http://{seed.HOST}"],
            ["3", "blogname", seed.TITLE],
            ["4", "admin_email_lifespan", "1782878645"],
            ["5", "serial", "9999999999"],
        ),
        table("wp_users", users, ["1", seed.ADMIN_USER, password, seed.ADMIN_EMAIL, MOMENT]),
    ]


def variables(**content: str) -> dict[str, Any]:
    return {"url": f"http://{HOST}", "content": {**CONTENT, **content}}


def decoded(statements: list[str]) -> list[str]:
    return [bytes.fromhex(found).decode() for found in re.findall(r"X'([0-9a-f]*)'", "\n".join(statements))]


def test_what_a_person_wrote_is_never_text_of_a_statement() -> None:
    title = "x'); DROP TABLE wp_users; -- \\' \U0001f600"
    statements = seed.Seed(tables()).statements(seed.values_of(variables(title=title)), 1767326645)
    assert "DROP" not in "".join(statements)
    assert "".join(statements).isascii()
    assert "x&#039;); DROP TABLE wp_users; -- \\&#039; \U0001f600" in decoded(statements)


def test_a_title_that_names_a_mark_stays_itself() -> None:
    title = f"{seed.HOST} {seed.ADMIN_USER} {seed.TITLE}"
    assert title in decoded(seed.Seed(tables()).statements(seed.values_of(variables(title=title)), 1767326645))


def test_every_moment_moves_by_as_much() -> None:
    later = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() + 1000
    found = decoded(seed.Seed(tables()).statements(seed.values_of(variables()), later))
    assert 'a:1:{i:1767327645;a:1:{s:1:"x";i:1767326645;}}' in found
    assert "2026-01-02 03:20:45" in found
    assert "1782879645" in found
    assert "9999999999" in found


def test_a_clock_that_went_back_is_as_good_as_any() -> None:
    found = decoded(seed.Seed(tables()).statements(seed.values_of(variables()), 86400))
    assert "1970-01-02 00:00:00" in found
    assert 'a:1:{i:90000;a:1:{s:1:"x";i:1767326645;}}' in found


def test_no_two_sites_have_the_same_password() -> None:
    of_one, of_other = (
        [text for text in decoded(seed.Seed(tables()).statements(seed.values_of(variables()), 0)) if "$wp$" in text]
        for _ in range(2)
    )
    assert len(of_one) == 1
    assert re.fullmatch(r"\$wp\$2y\$10\$[./A-Za-z0-9]{53}", of_one[0])
    assert of_one != of_other


@pytest.mark.parametrize(
    "content",
    [
        {"title": "Tom &amp; Jerry"},
        {"title": "&#8364; 5"},
        {"title": "two\nlines"},
        {"title": 'a:1:{s:5:"title";s:4:"evil";}'},
        {"title": " N;"},
        {"admin_user": "two--dashes"},
        {"admin_user": "dash-"},
        {"admin_email": "o'hara@example.com"},
        {"admin_email": "a..b@example.com"},
    ],
)
def test_what_only_wordpress_can_clean_is_left_to_it(content: dict[str, str]) -> None:
    assert seed.values_of(variables(**content)) is None


@pytest.mark.parametrize(
    ("spoil", "flaw"),
    [
        (lambda found: found[0]["rows"][2].__setitem__(2, "nothing"), "is nowhere in it"),
        (lambda found: found[0]["rows"][4].__setitem__(2, f's:19:"{seed.HOST}";'), "serialized value"),
        (lambda found: found[0]["rows"][0].__setitem__(0, "1), (2"), "column of numbers"),
        (lambda found: found[0]["columns"].append(["a`b", False]), "another shape"),
        (lambda found: found[0].__setitem__("create", "CREATE TABLE `wp_a` (a INT); DROP"), "another shape"),
        (lambda found: found[0].__setitem__("create", r"CREATE TABLE `wp_a` (`\! id` INT)"), "another shape"),
    ],
)
def test_what_is_no_seed_is_told(spoil: Any, flaw: str) -> None:
    assert seed.Seed(tables()).flaw() is None
    found = tables()
    spoil(found)
    assert flaw in seed.Seed(found).flaw()


@pytest.mark.long
def test_a_damaged_or_another_seed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed, "SEEDS", str(tmp_path))
    assert seed.load(OF) is None
    seed.keep(OF, seed.Seed(tables()))
    assert seed.load(OF).tables == tables()
    assert seed.load({**OF, "permalinks": "others"}) is None
    path = Path(seed.path_of(OF))
    assert path.stat().st_mode & 0o777 == 0o600
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert seed.load(OF) is None
    path.write_bytes(whole.replace(b"wp_users", b"wp_abuse"))
    assert seed.load(OF) is None
    path.write_bytes(b"")
    assert seed.load(OF) is None


# On a node

KEY = "seed/production"
TITLES = (
    "Plain",
    "\U0001f980 crabs & \"quotes\" 'n' <b>tags</b> \\ back\\\\slashes",
    "'; DROP TABLE wp_users; -- %s %1$s {$x} ${y}",
    "  spaces around   ",
    "Größe 日本語 \u202e",
    "0",
)
DRIVER = """
import json, subprocess, sys
sys.path.insert(0, "/root/exploded")
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import caches
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.account import ensure_user
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.database import Database
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.installation import Installation
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Run
asked = json.load(sys.stdin)
variables, plugin = asked["variables"], asked["plugin"]
layout = Layout(variables["id"], variables["release"]["id"])
run = Run(False, "/run/trueup/proof.pending", None)
user = ensure_user(run, layout)
dump = ["mariadb-dump", "--skip-extended-insert", "--order-by-primary", "--skip-comments", "--skip-dump-date"]
found = {}
for how in ("seed", "tool"):
    run.command(["mariadb"], text=f"DROP DATABASE {layout.database}; CREATE DATABASE {layout.database} "
                "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;")
    caches.forget(layout)
    one = Installation(run, layout, Database(run, layout), variables, plugin)
    if how == "seed":
        one.begin(user)
    else:
        one.user = user
        one.process = one.start_tool()
    assert one.finish() is True
    assert one.seeded is (how == "seed"), run.notes
    found[how] = run.command([*dump, layout.database])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(hosting: Hosting) -> Iterator[str]:
    """A site that nobody visits, whose events nobody runs; and the module's code on the node."""
    hosting.declare(KEY)
    exploded(hosting, KEY)
    hosting.node.ssh(["systemctl", "stop", f"trueup-cron@{hosting.id(KEY)}.timer"])
    yield KEY
    del hosting.environments[KEY]


def rows_made(hosting: Hosting, **changed: Any) -> dict[str, str]:
    declared = hosting.environments[KEY]
    content = {**declared["content"], **changed.pop("content", {})}
    asked = {"variables": {**declared, **changed, "content": content}, "plugin": plugin(hosting)}
    done = hosting.node.ssh(["python3", "-c", DRIVER], input=json.dumps(asked))
    found: dict[str, str] = json.loads(done.stdout)
    return {how: masked(dump) for how, dump in found.items()}


def plugin(hosting: Hosting) -> str:
    return hosting.node.ssh(["cat", hosting.path(KEY, "current/wp-content/mu-plugins/trueup.php")]).stdout


def masked(dump: str) -> str:
    """Moments as minutes since the user was registered, and no password."""
    found = re.search(r"INSERT INTO `wp_users` .*'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)'", dump)
    assert found
    begin = datetime.fromisoformat(f"{found.group(1)}+00:00").timestamp()

    def of_date(text: "re.Match[str]") -> str:
        moment = datetime.fromisoformat(f"{text.group()}+00:00").timestamp()
        return f"<{(moment - begin) / 60:.0f} min>"

    dump = re.sub(r"(?!0000)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", of_date, dump)
    dump = re.sub(r"\b1[789]\d{8}\b", lambda text: f"<{(int(text.group()) - begin) / 60:.0f} min>", dump)
    return re.sub(r"\$wp\$2y\$10\$[./A-Za-z0-9]{53}", "<password>", dump)


@pytest.mark.long
@pytest.mark.lab
@pytest.mark.parametrize("title", TITLES)
def test_a_seed_is_what_wordpress_installs_row_by_row(hosting: Hosting, site: str, title: str) -> None:
    found = rows_made(hosting, content={"title": title})
    assert found["seed"].splitlines() == found["tool"].splitlines()
    assert found["seed"].count("CREATE TABLE") == 12
    assert found["seed"].count("<password>") == 1
    assert found["seed"].count("<0 min>") > 10


@pytest.mark.long
@pytest.mark.lab
@pytest.mark.parametrize(
    "changed",
    [
        {"content": {"locale": "de_DE"}},
        {"content": {"admin_user": "a_b-c1", "admin_email": "First.Last+tag@mail.Example.com"}},
        {"url": "https://1a2b3c4d.preview.example.com"},
        {"type": "staging"},
    ],
    ids=["locale", "administrator", "https", "staging"],
)
def test_so_is_every_kind_of_seed(hosting: Hosting, site: str, changed: dict[str, Any]) -> None:
    found = rows_made(hosting, **changed)
    assert found["seed"].splitlines() == found["tool"].splitlines()


SEED = f"/var/lib/trueup/seeds/{VERSION}-en_US-http-production.json"


@pytest.mark.long
@pytest.mark.lab
def test_a_damaged_seed_is_made_anew(hosting: Hosting, site: str) -> None:
    rows_made(hosting)
    whole = hosting.node.ssh(["cat", SEED]).stdout
    hosting.node.ssh(["truncate", "--size=-100", SEED])
    rows_made(hosting)
    digest, _, body = hosting.node.ssh(["cat", SEED]).stdout.partition("\n")
    assert hashlib.sha256(body.encode()).hexdigest() == digest
    assert json.loads(body)["of"] == json.loads(whole.partition("\n")[2])["of"]
    assert "trueup_seed" not in databases(hosting)
    assert hosting.node.ssh(["ls", "/run/trueup"]).stdout.split().count("seed") == 0


def databases(hosting: Hosting) -> list[str]:
    """And users of the database server."""
    return hosting.node.ssh(["mariadb", "-BNe", "SHOW DATABASES; SELECT User FROM mysql.user"]).stdout.split()


@pytest.mark.long
@pytest.mark.lab
def test_where_a_seed_cannot_be_kept_it_is_made_for_each_site(hosting: Hosting, site: str) -> None:
    """As on a full disk: where seeds belong there is a file. And a title that WordPress alone can clean."""
    hosting.node.ssh("mv /var/lib/trueup/seeds /var/lib/trueup/seeds.kept && touch /var/lib/trueup/seeds")
    try:
        output = hosting.apply("seedless/production", "-v").raise_if_failed().output
    finally:
        hosting.node.ssh("rm /var/lib/trueup/seeds && mv /var/lib/trueup/seeds.kept /var/lib/trueup/seeds")
    assert "cannot be kept" in output
    assert hosting.title("seedless/production") == "Title of seedless/production"
    hosting.declare("entity/production")
    hosting.environments["entity/production"]["content"]["title"] = "5 &euro; & more"
    hosting.apply("entity/production").raise_if_failed()
    assert hosting.title("entity/production") == "5 &euro; &amp; more"
    assert hosting.sql("entity/production", "SELECT COUNT(*) FROM wp_users") == "1"


@pytest.mark.long
@pytest.mark.lab
def test_where_no_seed_can_be_made_wordpress_installs_itself(hosting: Hosting, site: str) -> None:
    """There is nobody who could make it."""
    hosting.node.ssh("mv /var/lib/trueup/seeds /root/seeds && sed -i s/^nobody:/somebody:/ /etc/passwd")
    try:
        output = hosting.apply("alone/production", "-v").raise_if_failed().output
    finally:
        hosting.node.ssh("sed -i s/^somebody:/nobody:/ /etc/passwd; mv /root/seeds /var/lib/trueup/seeds")
    assert "so it installs itself" in output
    assert hosting.title("alone/production") == "Title of alone/production"


@pytest.mark.long
@pytest.mark.lab
def test_killed_while_it_is_made_the_next_run_makes_it(hosting: Hosting, site: str) -> None:
    hosting.node.ssh("rm -rf /var/lib/trueup/seeds")
    declared = hosting.environments[KEY]
    asked = json.dumps({"variables": declared, "plugin": plugin(hosting)})
    hosting.node.ssh(["tee", "/root/asked.json"], input=asked)
    hosting.node.ssh(["tee", "/root/driver.py"], input=DRIVER)
    script = """
        python3 /root/driver.py < /root/asked.json >/dev/null 2>&1 &
        for i in $(seq 2000); do [ -d /var/lib/mysql/trueup_seed ] && break; sleep 0.005; done
        sleep 0.1; kill -KILL $!; wait; ls -d /var/lib/mysql/trueup_seed
    """
    assert "trueup_seed" in hosting.node.ssh(script).stdout
    assert hosting.node.ssh(["test", "-e", SEED], check=False).returncode == 1
    found = rows_made(hosting)
    assert found["seed"].splitlines() == found["tool"].splitlines()
    assert hosting.node.ssh(["test", "-e", SEED], check=False).returncode == 0
    assert "trueup_seed" not in databases(hosting)


@pytest.mark.long
@pytest.mark.lab
def test_of_two_sites_at_once_one_makes_it(hosting: Hosting, site: str) -> None:
    hosting.node.ssh("rm -rf /var/lib/trueup/seeds")
    runs = {}
    with ThreadPoolExecutor(2) as pool:
        for key in ("seed-a/production", "seed-b/production"):
            where = hosting.directory / key.replace("/", "-")
            one = Hosting(hosting.lab, hosting.node, where, hosting.wp_cli, hosting.wordpress)
            one.environments = {key: variables_for(key, hosting.node)}
            runs[key] = (one, pool.submit(one.apply, key, "-v"))
    for key, (one, run) in runs.items():
        assert "installs itself" not in run.result().raise_if_failed().output
        assert one.title(key) == f"Title of {key}"
        assert one.sql(key, "SELECT COUNT(*) FROM wp_users") == "1"
    assert "trueup_seed" not in databases(hosting)
