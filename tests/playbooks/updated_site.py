"""A site with one plugin of ours, which is updated by hand."""

import json
import re
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.churn import options
from tests.lab.mirror import plugin, zipped
from tests.playbooks.environments import Hosting
from tests.playbooks.nodes import Run

ACTIVE = 'a:1:{i:0;s:21:"greeting/greeting.php";}'


def speaking(word: str) -> str:
    return f"add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


class UpdatedSite:
    """The environment ``key``, made with plugin ``greeting`` 1.0; ``directory`` is for the packages."""

    def __init__(self, hosting: Hosting, key: str, directory: Path, code: str) -> None:
        self.hosting = hosting
        self.key = key
        self.directory = directory
        self.former: dict[str, Any] = hosting.environments[self.key]["release"]
        self.given: dict[str, Any] = {}
        place = hosting.path(key, "current", "wp-content", "plugins", "greeting")
        hosting.node.ssh(["mkdir", place])
        hosting.node.ssh(["tee", f"{place}/greeting.php"], input=plugin("greeting", "1.0", code))
        hosting.sql(key, f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins'")
        # WordPress keeps options in Redis.
        hosting.redis(key, "flushdb")

    def update(self, version: str, code: str, *options: str) -> Run:
        self.former = self.hosting.environments[self.key]["release"]
        self.declare(version, code)
        return self.again(*options)

    def declare(self, version: str, code: str) -> None:
        path = self.directory / f"{version}.zip"
        path.write_bytes(zipped({"greeting/greeting.php": plugin("greeting", version, code).encode()}))
        made_from = self.hosting.environments[self.key]["release"]["id"]
        blank = {"source_type": None, "source_ref": None, "revision": None}
        release = {"id": str(uuid4()), **blank, "origin": "update", "made_from": made_from, "scope": "plugins"}
        self.hosting.declare(self.key, release=release)
        package = {"kind": "plugins", "key": "greeting/greeting.php", "directory": "greeting", "version": version}
        self.given = {"wordpress_version": "7.1.1", "packages": [{**package, "path": str(path)}]}

    def again(self, *options: str, playbook: str = "updates") -> Run:
        return self.hosting.run(playbook, self.key, "-e", json.dumps({"trueup_update": self.given}), *options)

    def back(self) -> None:
        self.hosting.declare(self.key, release=self.former)

    def page(self) -> str:
        return self.hosting.fetch(self.key, headers={"Cookie": "wordpress_no_cache=1"}).text

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
        current = self.hosting.path(self.key, "current")
        return f"readlink {current} | grep -q {self.hosting.environments[self.key]['release']['id']}"

    def databases(self) -> list[str]:
        query = f"SHOW DATABASES LIKE 'wp_{self.hosting.short(self.key)}%'"
        return self.hosting.node.ssh(["mariadb", "-N", "-e", query]).stdout.split()

    def names(self) -> list[str]:
        return self.hosting.node.ssh(["ls", "-A", self.hosting.path(self.key)]).stdout.split()

    def is_clean(self) -> bool:
        """Nothing is left of rehearsals and snapshots."""
        units = self.hosting.node.ssh("systemctl list-units --all --no-legend 'trueup-rehearsal*'").stdout
        return (self.databases(), units) == ([f"wp_{self.hosting.short(self.key)}"], "") and not (
            {"rehearsal", "updating"} & set(self.names())
        )

    def fingerprint(self) -> str:
        """From now on WordPress's own events wait, until the site is configured again."""
        events = f"trueup-cron@{self.hosting.id(self.key)}"
        self.hosting.node.ssh(["systemctl", "stop", f"{events}.timer", f"{events}.service"])
        database, root = f"wp_{self.hosting.short(self.key)}", self.hosting.path(self.key)
        return self.hosting.node.ssh(
            "mariadb-dump --single-transaction --hex-blob --skip-dump-date --order-by-primary "
            f"--ignore-table={database}.wp_options "
            f'{database} | sha256sum; mariadb -N {database} -e "{options("option_name, MD5(option_value)")}"; '
            f"readlink {root}/current; ls -A {root} {root}/releases; "
            f"find {root}/shared {root}/releases -type f -exec sha256sum {{}} + | sort | sha256sum"
        ).stdout
