"""What the old version did before the upgrade. `HISTORY` is what a test of an upgrade begins with; extend it here.

A step does one thing to one site as a client does it, and asserts that it went well. The steps of a site run in their
order, the sites side by side.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML

from tests.controlplane import until
from tests.lab.acme import Acme
from tests.lab.mirror import plugin
from tests.place import Place
from tests.upgrade.old_version import OldVersion

MARKER = "wp-content/uploads/marker.txt"
"""A static file of each site, which says what `Site.marker` says."""
PLAIN = "plain.example.com"
Document = dict[str, Any]


@dataclass
class Site:
    """A site of the old version's, and what its steps know of it."""

    slug: str
    old: OldVersion
    place: Place
    acme: Acme
    environments: dict[str, Document] = field(default_factory=dict)
    """As they were when they were made, by slug."""
    kept: dict[str, str] = field(default_factory=dict)
    """Ids that a later step or a test wants, by a word."""

    @property
    def production(self) -> Document:
        return self.environments["production"]

    @property
    def marker(self) -> str:
        return f"Marker of {self.slug}"

    @property
    def address(self) -> str:
        """Where visitors ask for production: scheme and host."""
        return f"https://{self.slug}.example.com" if self.slug == "shop" else str(self.production["preview_url"])

    def url(self, environment: str = "production") -> str:
        return f"/api/environments/{self.environments[environment]['id']}"

    def ask(self, method: str, url: str, **body: Any) -> Document:
        """The job of a request, which went well."""
        job = self.place.run(self.place.plane.http.request(method, url, json=body or None))
        assert job["status"] == "succeeded", f"{self.slug}: {job}\n{self.place.plane.log()}"
        return job

    def now(self, environment: str = "production") -> Document:
        found: Document = self.place.plane.http.get(self.url(environment)).json()
        return found

    def wordpress(self, *arguments: str) -> str:
        """What WP-CLI says in production."""
        path = f"/var/www/sites/{self.production['id']}/current"
        node = self.place.node_of(self.production)
        return node.ssh(["wp", "--allow-root", f"--path={path}", *arguments]).stdout.strip()


Step = Callable[[Site], None]


def create(site: Site) -> None:
    site.environments["production"] = site.place.make_site(site.slug)


def write(site: Site) -> None:
    """A post and an upload, by which the site's content is recognised."""
    site.wordpress("post", "create", f"--post_title={site.marker}", "--post_status=publish")
    node, path = site.place.node_of(site.production), f"/var/www/sites/{site.production['id']}/current/{MARKER}"
    node.ssh(["tee", path], input=site.marker)


def purge(site: Site) -> None:
    site.ask("POST", f"{site.url()}/cache/purge")


def cache_no_objects(site: Site) -> None:
    job = site.ask("PATCH", f"{site.url()}/cache", redis_cache_enabled=False)
    site.kept["cache-update"] = job["id"]


def deploy(word: str) -> Step:
    """Code that says the word on every page."""

    def step(site: Site) -> None:
        site.ask("POST", f"{site.url()}/deploy", source_type="upload", source_ref=upload(site.place, word))
        site.kept[f"release {word}"] = site.now()["current_release_id"]

    return step


def back_up(site: Site) -> None:
    site.ask("POST", f"{site.url()}/backups", backup_scope="full")
    site.kept["backup"] = site.place.plane.http.get(f"{site.url()}/backups").json()[0]["id"]


def restore(site: Site) -> None:
    site.ask("POST", f"{site.url()}/restore", backup_id=site.kept["backup"])


def add_domain(site: Site) -> None:
    hostname = f"{site.slug}.example.com"
    site.acme.point(hostname, site.place.node_of(site.production).address)
    site.ask("POST", f"{site.url()}/domains", hostname=hostname)


def declare(site: Site) -> None:
    """By a push, what the loop then makes so: a domain in plain http, and an option of WordPress."""
    path, yaml, written = f"sites/{site.slug}/environments/production.yaml", YAML(), io.StringIO()
    document = yaml.load(site.place.plane.clone.read(path))
    document["spec"]["domains"].append({"hostname": PLAIN, "tls": False})
    document["spec"]["options"] = {"posts_per_page": 7}
    yaml.dump(document, written)
    site.place.plane.clone.push({path: written.getvalue()}, "Declare a domain and an option")

    def applied() -> bool:
        variables = site.place.manifest(site.production)["variables"]
        return bool(variables["options"]) and PLAIN in [one["hostname"] for one in variables["domains"]]

    until(applied, "the loop to make it so", told=site.place.plane.log)


def remove_domain(site: Site) -> None:
    domains = site.place.plane.http.get(f"{site.url()}/domains").json()
    (domain,) = (one for one in domains if one["hostname"] == PLAIN)
    site.ask("DELETE", f"/api/domains/{domain['id']}")


def copy(slug: str) -> Step:
    """An environment made from production."""

    def step(site: Site) -> None:
        body = {"name": slug.title(), "slug": slug, "type": "staging", "promotion_preset": "content-protect"}
        job = site.ask("POST", f"/api/sites/{site.production['site_id']}/environments", **body)
        site.environments[slug] = site.place.plane.http.get(f"/api/environments/{job['environment_id']}").json()

    return step


def promote(slug: str) -> Step:
    """A setting made in the copy moves to production."""

    def step(site: Site) -> None:
        words = f"UPDATE wp_options SET option_value = 'From {slug}' WHERE option_name = 'blogdescription'"
        site.place.sql(site.environments[slug], words)
        site.ask("POST", f"{site.url(slug)}/drift-check")
        site.ask("POST", f"{site.url(slug)}/promote", target_environment_id=site.production["id"])

    return step


def adopt(site: Site) -> None:
    put_plugin(site, "adopted", "1.0")
    site.ask("POST", f"{site.url()}/drift-check")
    site.ask("POST", f"{site.url()}/drift/adopt")


def discard(site: Site) -> None:
    put_plugin(site, "discarded", "1.0")
    site.ask("POST", f"{site.url()}/drift-check")
    site.ask("POST", f"{site.url()}/drift/discard")


def run_by_hand(site: Site) -> None:
    playbook = ["playbooks/environment.yml", "-e", f"environment={site.slug}/production"]
    site.old.by_hand(site.place.plane.home, *playbook)


def check_health(site: Site) -> None:
    site.ask("POST", f"{site.url()}/health-check")


def check_drift(site: Site) -> None:
    site.ask("POST", f"{site.url()}/drift-check")


def remove(site: Site) -> None:
    site.ask("DELETE", f"/api/sites/{site.production['site_id']}?confirm={site.slug}")


def report(site: Site) -> None:
    """A report that arrives."""
    url = f"/api/drift-reports/{site.ask('POST', '/api/drift-reports')['id']}"

    def arrived() -> bool:
        deliveries = site.place.plane.http.get(url).json()["deliveries"]
        return [one["status"] for one in deliveries] == ["sent"]

    until(arrived, "the report to arrive", told=site.place.plane.log)


HISTORY: Mapping[str, tuple[Step, ...]] = {
    "shop": (create, write, copy("staging"), back_up, promote("staging"), add_domain, declare, remove_domain),
    "news": (create, deploy("one"), write, back_up, restore, purge, check_health, report),
    "docs": (create, write, adopt, discard, run_by_hand, cache_no_objects, check_drift),
    "gone": (create, remove),
}
STANDING = ("shop", "news", "docs")
"""The sites that are there when the upgrade begins."""


def queue(sites: Mapping[str, Site]) -> dict[str, str]:
    """Asked for while nobody works, and left to the new version: job ids by what they do."""
    shop, news = sites["shop"], sites["news"]
    code = {"source_type": "upload", "source_ref": upload(shop.place, "queued")}
    return {
        "deploy": _accepted(shop, "POST", f"{shop.url('staging')}/deploy", **code),
        "backup": _accepted(news, "POST", f"{news.url()}/backups", backup_scope="db"),
    }


def cancel(sites: Mapping[str, Site]) -> None:
    """Asked for while nobody works, and taken back: jobs of the types that take longest, and their commits."""
    shop, docs = sites["shop"], sites["docs"]
    archive = f"http://{shop.acme.address}/export.tar.gz"
    _taken_back(shop, "DELETE", shop.url("staging"))
    _taken_back(docs, "POST", f"{docs.url()}/updates", scope="plugins")
    _taken_back(docs, "POST", f"/api/sites/{docs.production['site_id']}/import", archive_url=archive)


def _taken_back(site: Site, method: str, url: str, **body: Any) -> None:
    plane = site.place.plane
    before = plane.git("rev-parse", "main^{tree}")
    job = _accepted(site, method, url, **body)
    assert plane.http.post(f"/api/jobs/{job}/cancel").is_success
    assert plane.wait_job(job)["status"] == "cancelled"
    until(lambda: plane.git("rev-parse", "main^{tree}") == before, "its commit to be taken back", told=plane.log)


def happen(sites: Mapping[str, Site]) -> None:
    """All of the history."""
    with ThreadPoolExecutor(len(sites)) as pool:
        for done in [pool.submit(_run, site) for site in sites.values()]:
            done.result()


def _run(site: Site) -> None:
    for step in HISTORY[site.slug]:
        step(site)


def _accepted(site: Site, method: str, url: str, **body: Any) -> str:
    answer = site.place.plane.http.request(method, url, json=body or None)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def upload(place: Place, word: str) -> str:
    """The reference of uploaded code that says the word on every page."""
    text = f"<?php add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("wp-content/mu-plugins/ours.php")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    headers = {"Content-Type": "application/octet-stream"}
    sent = place.plane.http.post("/api/uploads", content=packed.getvalue(), headers=headers)
    assert sent.status_code == 201, sent.text
    return str(sent.json()["source_ref"])


def put_plugin(site: Site, slug: str, version: str) -> None:
    """As somebody does by hand on the node."""
    node, path = (
        site.place.node_of(site.production),
        f"/var/www/sites/{site.production['id']}/current/wp-content/plugins",
    )
    node.ssh(["mkdir", "-p", f"{path}/{slug}"])
    node.ssh(["tee", f"{path}/{slug}/{slug}.php"], input=plugin(slug, version, ""))
