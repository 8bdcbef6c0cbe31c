"""A site on an older WordPress, with a plugin and a theme of ours that a mirror knows, and one that it does not."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from reconciler.artifacts.learned import learn
from reconciler.core.manifests import Environment
from tests.churn import options
from tests.controlplane import run_git, site_documents, until
from tests.lab.mirror import Mirror, plugin, theme
from tests.lab.older_wordpress import VERSION as OLDER
from tests.lab.older_wordpress import older_wordpress
from tests.place import Place

ACTIVE = 'a:2:{i:0;s:21:"greeting/greeting.php";i:1;s:17:"bought/bought.php";}'


def speaking(word: str) -> str:
    """Code of a plugin that says a word on every page."""
    return f"add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


class Updatable:
    """The site `updated`, and what is asked of it."""

    document_path = "sites/updated/environments/production.yaml"

    def __init__(self, place: Place, mirror: Mirror, environment: dict[str, Any]) -> None:
        self.place = place
        self.mirror = mirror
        self.environment = environment
        self.node = place.node_of(environment)
        self.root = f"/var/www/sites/{environment['id']}"
        self.database = "wp_" + environment["id"].replace("-", "")[:12]
        self.host = environment["preview_url"].partition("://")[2]

    @classmethod
    def make(cls, place: Place, mirror: Mirror) -> "Updatable":
        """Declared by a push, its core learned from the mirror before."""
        mirror.publish_core(OLDER, older_wordpress())
        checksums = json.loads(mirror.get("/core/checksums/1.0/", {"version": [OLDER]}) or b"")["checksums"]
        with tempfile.TemporaryDirectory() as work:
            package = Path(work, "core.zip")
            package.write_bytes(mirror.core[OLDER])
            learn(OLDER, package, lambda: checksums, place.plane.home / "artifacts")
        documents = site_documents("updated")
        documents[cls.document_path] += f"  wordpress:\n    version: {OLDER}\n"
        place.plane.clone.push(documents, "Add a site on an older WordPress")
        until(lambda: any(s["slug"] == "updated" for s in place.plane.http.get("/api/sites").json()), "the site")
        found = cls(place, mirror, place.plane.environment_of("updated"))
        until(found.answers, "the site to answer", told=place.plane.log)
        found.bring()
        return found

    def bring(self) -> None:
        """Plugins and a theme at 1.0, as its owner would have put them there."""
        content = f"{self.root}/current/wp-content"
        for slug in ("greeting", "bought"):
            self.put(f"{content}/plugins/{slug}", f"{slug}.php", plugin(slug, "1.0", speaking(f"{slug} 1.0")))
        for name, text in theme("plain", "1.0", {}).items():
            self.put(f"{content}/themes/plain", name, text)
        self.sql(f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins'")
        self.sql("UPDATE wp_options SET option_value = 'plain' WHERE option_name IN ('template', 'stylesheet')")
        # WordPress keeps options in Redis.
        self.node.ssh(f"redis-cli -s /run/trueup-redis/{self.environment['id']}/redis.sock flushdb")
        until(lambda: "bought 1.0" in self.page(), "the plugins to be there")
        answer = self.place.plane.http.post(f"/api/environments/{self.environment['id']}/cache/purge")
        assert self.place.run(answer)["status"] == "succeeded"

    def put(self, directory: str, name: str, text: str) -> None:
        self.node.ssh(["mkdir", "-p", directory])
        self.node.ssh(["tee", f"{directory}/{name}"], input=text)

    def sql(self, query: str) -> str:
        return self.place.sql(self.environment, query)

    def answers(self) -> bool:
        with suppress(httpx.TransportError):
            return self.place.page(self.environment).status_code == 200
        return False

    def page(self) -> str:
        """The home page as it is made now."""
        answer = self.node.fetch("/", host=self.host, headers={"Cookie": "wordpress_no_cache=1"})
        assert answer.status_code == 200, answer.text
        return answer.text

    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.place.plane.http.get(f"/api/environments/{self.environment['id']}").json()
        return found

    def begin(self, scope: str) -> str:
        """An accepted update: its job's id."""
        answer = self.place.plane.http.post(
            f"/api/environments/{self.environment['id']}/updates", json={"scope": scope}
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def update(self, scope: str) -> dict[str, Any]:
        """The finished job."""
        return self.place.plane.wait_job(self.begin(scope), 240)

    def ready(self) -> None:
        """Active again after a failure."""
        self.place.plane.command("apply", "--yes", "updated/production")
        until(lambda: self.now()["status"] == "active", "the environment to be active")

    def document(self) -> str:
        run_git(self.place.plane.clone.path, "pull", "-q", "--rebase", "origin", "main")
        return (self.place.plane.clone.path / self.document_path).read_text(encoding="utf-8")

    def declared(self) -> Environment:
        """What its document says, however it is written."""
        return Environment.model_validate(YAML(typ="safe").load(self.document()))

    def backups(self) -> int:
        return len(self.place.plane.http.get(f"/api/environments/{self.environment['id']}/backups").json())

    def db_version(self) -> int:
        return int(self.sql("SELECT option_value FROM wp_options WHERE option_name = 'db_version'"))

    def fingerprint(self) -> str:
        """Of all that the site is on its node: database but for what WordPress itself changes, files, rights, units."""
        script = (
            "mariadb-dump --single-transaction --hex-blob --skip-dump-date --order-by-primary "
            f"--ignore-table={self.database}.wp_options "
            f"{self.database} | sha256sum; mariadb -N {self.database} "
            f'-e "{options("option_name, MD5(option_value)")}"; '
            f"readlink {self.root}/current; ls -A {self.root} {self.root}/releases; "
            f"find {self.root}/shared {self.root}/releases -type f -exec sha256sum {{}} + | sort | sha256sum; "
            f"mariadb -N -e \"SHOW DATABASES LIKE '{self.database}%'; SHOW GRANTS FOR {self.database}@localhost\"; "
            "systemctl list-units --no-legend 'trueup-rehearsal*'"
        )
        return self.node.ssh(script).stdout
