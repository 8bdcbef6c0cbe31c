"""Updates on a real node: what is rehearsed, what is undone, and that a run can be killed anywhere."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.churn import options
from tests.lab.mirror import plugin, zipped
from tests.playbooks.environments import Hosting
from tests.playbooks.nodes import Run

pytestmark = [pytest.mark.lab, pytest.mark.in_order]
KEY = "updated/production"
ACTIVE = 'a:1:{i:0;s:21:"greeting/greeting.php";}'
ONLY_LIVE = """
if ('production' === TRUEUP_ENVIRONMENT) {
    if (get_option('migrated')) { http_response_code(500); die('no'); }
    update_option('migrated', '1');
    $GLOBALS['wpdb']->query('CREATE TABLE wp_made_by_update (id INT PRIMARY KEY)');
}
"""


def speaking(word: str) -> str:
    return f"add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


class Site:
    def __init__(self, hosting: Hosting, directory: Path) -> None:
        self.hosting = hosting
        self.directory = directory
        self.former: dict[str, Any] = hosting.environments[KEY]["release"]
        self.given: dict[str, Any] = {}

    def update(self, version: str, code: str, *options: str) -> Run:
        self.former = self.hosting.environments[KEY]["release"]
        self.declare(version, code)
        return self.again(*options)

    def declare(self, version: str, code: str) -> None:
        path = self.directory / f"{version}.zip"
        path.write_bytes(zipped({"greeting/greeting.php": plugin("greeting", version, code).encode()}))
        made_from = self.hosting.environments[KEY]["release"]["id"]
        blank = {"source_type": None, "source_ref": None, "revision": None}
        release = {"id": str(uuid4()), **blank, "origin": "update", "made_from": made_from, "scope": "plugins"}
        self.hosting.declare(KEY, release=release)
        package = {"kind": "plugins", "key": "greeting/greeting.php", "directory": "greeting", "version": version}
        self.given = {"wordpress_version": "7.1.1", "packages": [{**package, "path": str(path)}]}

    def again(self, *options: str, playbook: str = "updates") -> Run:
        return self.hosting.run(playbook, KEY, "-e", json.dumps({"trueup_update": self.given}), *options)

    def back(self) -> None:
        self.hosting.declare(KEY, release=self.former)

    def page(self) -> str:
        return self.hosting.fetch(KEY, headers={"Cookie": "wordpress_no_cache=1"}).text

    @property
    def word(self) -> str:
        """What the plugin says on every page."""
        found = re.search(r"<i>(\w+)</i>", self.page())
        assert found
        return found[1]

    def kill_when(self, condition: str) -> Run:
        """The declared update, killed with all that it started as soon as the condition holds on the node."""
        killed = threading.Event()

        def kill() -> None:
            kill = "systemctl kill --signal=KILL 'trueup-manual-*.scope'; exit 0"
            script = f"for i in $(seq 1 9000); do if {condition}; then {kill}; fi; sleep 0.01; done"
            if self.hosting.node.ssh(script + "; exit 1", check=False).returncode == 0:
                killed.set()

        killer = threading.Thread(target=kill)
        killer.start()
        run = self.again()
        killer.join()
        assert killed.is_set()
        assert run.status != 0, run.output
        return run

    def is_switched(self) -> str:
        """For `kill_when`: the declared release is served."""
        current = self.hosting.path(KEY, "current")
        return f"readlink {current} | grep -q {self.hosting.environments[KEY]['release']['id']}"

    def databases(self) -> list[str]:
        query = f"SHOW DATABASES LIKE 'wp_{self.hosting.short(KEY)}%'"
        return self.hosting.node.ssh(["mariadb", "-N", "-e", query]).stdout.split()

    def names(self) -> list[str]:
        return self.hosting.node.ssh(["ls", "-A", self.hosting.path(KEY)]).stdout.split()

    def is_clean(self) -> bool:
        """Nothing is left of rehearsals and snapshots."""
        units = self.hosting.node.ssh("systemctl list-units --all --no-legend 'trueup-rehearsal*'").stdout
        return (self.databases(), units) == ([f"wp_{self.hosting.short(KEY)}"], "") and not (
            {"rehearsal", "updating"} & set(self.names())
        )

    def fingerprint(self) -> str:
        database, root = f"wp_{self.hosting.short(KEY)}", self.hosting.path(KEY)
        return self.hosting.node.ssh(
            "mariadb-dump --single-transaction --hex-blob --skip-dump-date --order-by-primary "
            f"--ignore-table={database}.wp_options "
            f'{database} | sha256sum; mariadb -N {database} -e "{options("option_name, MD5(option_value)")}"; '
            f"readlink {root}/current; ls -A {root} {root}/releases; "
            f"find {root}/shared {root}/releases -type f -exec sha256sum {{}} + | sort | sha256sum"
        ).stdout


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture(scope="module")
def site(hosting: Hosting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosting.apply(KEY).raise_if_failed()
    directory = hosting.path(KEY, "current", "wp-content", "plugins", "greeting")
    hosting.node.ssh(["mkdir", directory])
    text = plugin("greeting", "1.0", speaking("one"))
    hosting.node.ssh(["tee", f"{directory}/greeting.php"], input=text)
    hosting.sql(KEY, f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins'")
    # WordPress keeps options in Redis.
    hosting.redis(KEY, "flushdb")
    site = Site(hosting, tmp_path_factory.mktemp("packages"))
    assert "<i>one</i>" in site.page()
    yield site
    del hosting.environments[KEY]


def test_a_check_tells_and_changes_nothing_and_a_second_run_neither(site: Site) -> None:
    before = site.fingerprint()
    site.declare("1.1", speaking("two"))
    assert site.again("--check", "--diff", playbook="rehearsal").raise_if_failed().changed == 1
    assert site.fingerprint() == before
    site.again(playbook="rehearsal").raise_if_failed()
    assert "<i>one</i>" in site.page()
    assert site.again().raise_if_failed().changed == 1, "only the role has something left to do"
    assert "<i>two</i>" in site.page()
    again = site.again().raise_if_failed()
    assert again.changed == 0, again.output
    assert site.is_clean()
    deep = site.hosting.look(KEY, deep=True).differences or ()
    assert [one for one in deep if one.area != "uploads"] == []


@pytest.mark.long
def test_what_breaks_only_afterwards_is_undone_with_its_tables(site: Site) -> None:
    before, word = site.fingerprint(), site.word
    run = site.update("1.2", ONLY_LIVE + speaking("never"))
    assert run.status != 0
    assert "RELEASE_UNHEALTHY" in run.output
    assert "put back as they were, and the site is healthy" in run.output, run.output
    assert site.fingerprint() == before
    assert site.word == word
    failed = f"wp_{site.hosting.short(KEY)}_failed"
    assert f"What was written meanwhile is in database {failed}" in run.output
    tables = site.hosting.node.ssh(["mariadb", "-N", failed, "-e", "SHOW TABLES LIKE 'wp_made%'"]).stdout
    assert tables == "wp_made_by_update\n"
    site.back()


@pytest.mark.long
def test_killed_in_the_rehearsal_and_run_again(site: Site) -> None:
    word = site.word
    site.declare("1.3", speaking("three"))
    site.kill_when(f"test -e /run/trueup-rehearsal-{site.hosting.short(KEY)}/fpm.sock")
    assert site.word == word
    site.again().raise_if_failed()
    assert "<i>three</i>" in site.page()
    assert site.is_clean()
    assert site.again().raise_if_failed().changed == 0


@pytest.mark.long
def test_killed_while_the_tables_change_and_run_again(site: Site) -> None:
    site.declare("1.4", speaking("four"))
    site.kill_when(site.is_switched())
    site.again().raise_if_failed()
    assert "<i>four</i>" in site.page()
    assert site.is_clean()
    assert site.again().raise_if_failed().changed == 0


@pytest.mark.long
def test_killed_while_the_tables_change_and_taken_back(site: Site) -> None:
    """The store says the former release again: its tables come back with it."""
    site.former, word = site.hosting.environments[KEY]["release"], site.word
    site.declare("1.5", "update_option('of_the_update', '1');" + speaking("five"))
    site.kill_when(site.is_switched())
    site.back()
    site.hosting.run("environment", KEY).raise_if_failed()
    assert site.word == word
    assert site.hosting.sql(KEY, "SELECT COUNT(*) FROM wp_options WHERE option_name = 'of_the_update'") == "0"
    assert [name for name in site.databases() if name.endswith(("_before", "_rehearsal"))] == []
    assert site.hosting.run("environment", KEY).raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("add_action('login_head', function () { die(); });", "/wp-login.php"),
        ("ob_start(function () { return ''; });", "white page"),
        ("if (!add_option('second', '1')) { http_response_code(500); die('no'); }", "answers 500"),
        ("while (true) { usleep(1000); }", "no answer"),
    ],
)
def test_what_the_rehearsal_catches(site: Site, code: str, words: str) -> None:
    before = site.fingerprint()
    run = site.update("1.9", code)
    assert run.status != 0
    assert "UPDATE_UNHEALTHY" in run.output
    assert words in run.output, run.output
    assert site.fingerprint() == before
    site.back()


@pytest.mark.long
def test_an_update_of_a_release_that_is_not_there(site: Site) -> None:
    before = site.fingerprint()
    site.declare("2.0", speaking("never"))
    site.hosting.environments[KEY]["release"]["made_from"] = str(uuid4())
    run = site.again()
    assert run.status != 0
    assert "Correct made_from" in run.output, run.output
    assert site.fingerprint() == before
    site.back()
