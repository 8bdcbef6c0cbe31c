"""Environments on a lab node, made as an operator would: the real playbook, a static inventory, real WordPress."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
import pytest

from reconciler.artifacts.pins import Archive, fetch_wordpress
from reconciler.core.observed import ObservedEnvironment, ObservedNode
from reconciler.core.variables import EnvironmentVariables
from reconciler.inventory import group_of, unsafe_values
from tests.lab import Lab, Node
from tests.lab.fixtures import unique_name
from tests.lab.paths import cache_directory
from tests.playbooks.nodes import Run, host_variables, run_playbook

VERSION = "7.1.1"
PROBE = Path(__file__).parents[2] / "reconciler" / "nodes" / "probe.py"


def variables_for(key: str, node: Node, **overrides: Any) -> dict[str, Any]:
    """`trueup_environment` for `site/environment`, complete and typed."""
    site, slug = key.split("/")
    identity = str(uuid5(NAMESPACE_URL, key))
    host = f"{identity[:8]}.{node.address.replace('.', '-')}.sslip.io"
    base: dict[str, Any] = {
        "id": identity,
        "site": site,
        "slug": slug,
        "type": "production" if slug == "production" else "staging",
        "url": f"http://{host}",
        "hostnames": [host],
        "wordpress_version": VERSION,
        "release": {
            "id": str(uuid5(NAMESPACE_URL, f"{key}/release")),
            "source_type": None,
            "source_ref": None,
            "revision": None,
        },
        "content": {
            "id": str(uuid5(NAMESPACE_URL, f"{key}/content")),
            "origin": "install",
            "title": f"Title of {key}",
            "admin_user": "trueup",
            "admin_email": "webmaster@example.com",
            "locale": "en_US",
        },
        "fastcgi_cache": True,
        "redis_cache": True,
        "php": {"memory_limit_mb": 256, "max_children": 4, "upload_max_mb": 64, "max_execution_s": 60},
        "files": "writable",
    }
    return EnvironmentVariables.model_validate({**base, **overrides}).model_dump(mode="json", exclude={"job"})


@dataclass
class Hosting:
    """A provisioned node and the environments that a test has made on it."""

    lab: Lab
    node: Node
    directory: Path
    wp_cli: Archive
    wordpress: Archive
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def declare(self, key: str, **overrides: Any) -> dict[str, Any]:
        self.environments[key] = variables_for(key, self.node, **overrides)
        return self.environments[key]

    def run(self, playbook: str, key: str, *options: str, job: Mapping[str, Any] | None = None) -> Run:
        self.directory.mkdir(parents=True, exist_ok=True)
        groups = self.directory / f"groups-{key.replace('/', '-')}.json"
        groups.write_text(json.dumps({group_of(one): {"hosts": {self.node.name: None}} for one in self.environments}))
        extra = ("-e", json.dumps({"trueup_job": dict(job)})) if job else ()
        hosts = {self.node.name: unsafe_values(self._host())}
        where = self.directory / f"run-{key.replace('/', '-')}"
        return run_playbook(playbook, hosts, where, "-i", str(groups), "-e", f"environment={key}", *extra, *options)

    def _host(self) -> dict[str, Any]:
        host = host_variables(self.lab, self.node, self.wp_cli)
        host["trueup_artifacts"]["wordpress"] = {
            VERSION: {"path": str(self.wordpress.path), "sha256": self.wordpress.sha256}
        }
        return {**host, "trueup_environments": self.environments}

    def apply(self, key: str, *options: str, job: Mapping[str, Any] | None = None, **overrides: Any) -> Run:
        """Run the playbook on a declared environment, or on one declared anew when there are overrides."""
        if overrides or key not in self.environments:
            self.declare(key, **overrides)
        return self.run("environment", key, *options, job=job)

    def id(self, key: str) -> str:
        return str(self.environments[key]["id"])

    def short(self, key: str) -> str:
        return self.id(key).replace("-", "")[:12]

    def path(self, key: str, *parts: str) -> str:
        return "/".join(("/var/www/sites", self.id(key), *parts))

    def fetch(self, key: str, path: str = "/", **options: Any) -> httpx.Response:
        return self.node.fetch(path, self.environments[key]["hostnames"][0], **options)

    def title(self, key: str) -> str:
        page = self.fetch(key, headers={"Cookie": "wordpress_no_cache=1"})
        assert page.status_code == 200, page.text
        found = re.search(r"<title>(.*?)</title>", page.text, re.DOTALL)
        assert found
        return found.group(1)

    def sql(self, key: str, query: str) -> str:
        return self.node.ssh(["mariadb", "-BN", f"wp_{self.short(key)}"], input=query).stdout.strip()

    def wp(self, key: str, *arguments: str) -> str:
        """WP-CLI as the environment's user."""
        user = f"wp-{self.short(key)}"
        argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "wp"]
        return self.node.ssh([*argv, f"--path={self.path(key, 'current')}", *arguments]).stdout.strip()

    def redis(self, key: str, *words: str) -> str:
        """What the environment's own Redis answers root."""
        return self.node.ssh(["redis-cli", "-s", f"/run/trueup-redis/{self.id(key)}/redis.sock", *words]).stdout.strip()

    def run_due(self, key: str) -> None:
        """Run the events that are due now. A run that the timer began before knows only of those of then."""
        unit = f"trueup-cron@{self.id(key)}.service"
        self.node.ssh(
            f"while [ $(systemctl is-active {unit}) = activating ]; do sleep 0.1; done; systemctl start {unit}"
        )

    @contextmanager
    def without_events(self, *keys: str) -> Iterator[None]:
        """The timers of these environments run nothing while the block runs."""
        units = [f"trueup-cron@{self.id(key)}" for key in keys]
        self.node.ssh(["systemctl", "stop", *(f"{one}.{kind}" for one in units for kind in ("timer", "service"))])
        try:
            yield
        finally:
            self.node.ssh(["systemctl", "start", *(f"{one}.timer" for one in units)])

    def observe(self, *, deep: bool = False) -> ObservedNode:
        argv = ["python3", "-I", "-S", "-", json.dumps({"deep": deep})]
        return ObservedNode.model_validate_json(self.node.ssh(argv, input=PROBE.read_text()).stdout)

    def look(self, key: str, *, deep: bool = False) -> ObservedEnvironment:
        return self.observe(deep=deep).environments[self.id(key)]

    def php(self, key: str, code: str) -> str:
        """What a script in the site's own plugins directory prints when it is fetched through nginx."""
        name = "trueup-test.php"
        place = self.path(key, "current", "wp-content", "plugins", name)
        self.node.ssh(["tee", place], input=f"<?php {code}")
        page = self.fetch(key, f"/wp-content/plugins/{name}", headers={"Cookie": "wordpress_no_cache=1"})
        self.node.ssh(["rm", place])
        return page.text


@pytest.fixture(scope="session")
def wordpress() -> Archive:
    """The pinned WordPress, kept between runs."""
    return fetch_wordpress(VERSION, cache_directory().parent / "artifacts")


def _hosting(lab: Lab, snapshot: str, wp_cli: Archive, wordpress: Archive, directory: Path) -> Iterator[Hosting]:
    node = lab.up(unique_name("env-hosting"), snapshot=snapshot)
    hosting = Hosting(lab, node, directory, wp_cli, wordpress)
    try:
        for key in ("acme/production", "acme/staging"):
            run = hosting.apply(key)
            assert run.status == 0, run.output
        yield hosting
    finally:
        node.down()


@pytest.fixture(scope="package")
def common_hosting(
    lab: Lab, provisioned_snapshot: str, wp_cli: Archive, wordpress: Archive, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosting]:
    """One node with a production and a staging environment."""
    yield from _hosting(lab, provisioned_snapshot, wp_cli, wordpress, tmp_path_factory.mktemp("hosting"))


@pytest.fixture(scope="package")
def hosting(common_hosting: Hosting) -> Hosting:
    """The common node: leave its environments, and the node, as they were."""
    return common_hosting


@pytest.fixture(scope="module")
def own_hosting(request: pytest.FixtureRequest) -> Iterator[Hosting]:
    """For a module whose long tests leave what no other test may meet: a node of its own, where one of them is run.

    Its environments have keys that no other module uses; elsewhere they are on the common node.
    """
    tests = [item for item in request.session.items if item.path == request.path]
    if not any(item.get_closest_marker("long") for item in tests):
        yield request.getfixturevalue("common_hosting")
        return
    get, directory = request.getfixturevalue, request.getfixturevalue("tmp_path_factory").mktemp("own-hosting")
    yield from _hosting(*map(get, ("lab", "provisioned_snapshot", "wp_cli", "wordpress")), directory)


__all__ = ["Hosting", "common_hosting", "hosting", "own_hosting", "wordpress"]
