"""Domains through the API and the command line, on a real node with a real ACME server and its DNS."""

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from tests.controlplane import until
from tests.lab.acme import BLOCKED, Acme, acme_server, certificate, key_pem
from tests.lab.s3 import S3
from tests.place import Place

pytestmark = pytest.mark.lab

PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}


@dataclass
class Names:
    """A place whose sites may have names that an ACME server certifies."""

    place: Place
    acme: Acme
    roots: ssl.SSLContext

    def get(self, environment: dict[str, Any], url: str, method: str = "GET", **options: Any) -> httpx.Response:
        """What the node answers, as if DNS led there; over https only with a certificate that browsers would take."""
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        with httpx.Client(verify=self.roots, timeout=20, trust_env=False) as client:
            return client.request(
                method,
                f"{scheme}://{self.place.node_of(environment).address}{slash + path or '/'}",
                headers={"Host": host, **PAST_THE_CACHE},
                extensions={"sni_hostname": host},
                **options,
            )

    def point(self, environment: dict[str, Any], *names: str) -> None:
        for name in names:
            self.acme.point(name, self.place.node_of(environment).address)

    def add(self, environment: dict[str, Any], name: str) -> dict[str, Any]:
        """The job of adding it, finished."""
        url = f"/api/environments/{environment['id']}/domains"
        answer = self.place.plane.http.post(url, json={"hostname": name})
        assert answer.status_code == 202, answer.text
        return self.place.plane.wait_job(answer.json()["job_id"], 240)

    def of(self, environment: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The domains that the API tells, by name."""
        answer = self.place.plane.http.get(f"/api/environments/{environment['id']}/domains")
        assert answer.status_code == 200, answer.text
        return {domain["hostname"]: domain for domain in answer.json()}

    def remove(self, environment: dict[str, Any], name: str) -> dict[str, Any]:
        answer = self.place.plane.http.delete(f"/api/domains/{self.of(environment)[name]['id']}")
        assert answer.status_code == 202, answer.text
        return self.place.plane.wait_job(answer.json()["job_id"], 240)

    def environment(self, environment: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.place.plane.http.get(f"/api/environments/{environment['id']}").json()
        return found


@pytest.fixture(scope="module")
def names(place: Place, storage: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    where = tmp_path_factory.mktemp("acme")
    with acme_server(where, next(iter(place.nodes.values())).network.gateway) as acme:
        before = place.plane.clone.read("platform.yaml")
        place.plane.clone.push({"platform.yaml": storage.platform() + acme.platform()}, "Name the ACME server")
        roots = ssl.create_default_context(cafile=str(acme.roots(where / "roots.pem")))
        yield Names(place, acme, roots)
        place.plane.clone.push({"platform.yaml": before}, "Name no ACME server")


@pytest.fixture(scope="module")
def shop(names: Names) -> dict[str, Any]:
    return names.place.make_site("named", "Named Shop")


@pytest.fixture
def at_home(names: Names, shop: dict[str, Any]) -> None:
    """The site is at named.example.com and has no other domain, whatever the test before left."""
    for name in names.of(shop).keys() - {"named.example.com"}:
        assert names.remove(shop, name)["status"] == "succeeded"
    if not names.of(shop):
        names.point(shop, "named.example.com")
        assert names.add(shop, "named.example.com")["status"] == "succeeded"


@pytest.mark.long
def test_a_domain_from_nothing_to_https(names: Names, shop: dict[str, Any]) -> None:
    for name in names.of(shop):
        assert names.remove(shop, name)["status"] == "succeeded"
    names.point(shop, "named.example.com")
    job = names.add(shop, "named.example.com")
    assert job["status"] == "succeeded", job
    page = names.get(shop, "https://named.example.com/")
    assert page.status_code == 200
    assert "Named Shop" in page.text
    domain = names.of(shop)["named.example.com"]
    assert (domain["environment_id"], domain["tls_status"]) == (shop["id"], "active")
    assert "Pebble" in domain["tls_issuer"]
    assert datetime.fromisoformat(domain["created_at"]) <= datetime.now(UTC)
    after = names.environment(shop)
    assert after["primary_domain_id"] == domain["id"]
    assert (after["preview_url"], after["status"]) == (shop["preview_url"], "active")
    moved = names.get(shop, f"{shop['preview_url']}/")
    assert (moved.status_code, moved.headers["location"]) == (302, "https://named.example.com/")


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_the_administrator_comes_in_at_the_domain(names: Names, shop: dict[str, Any]) -> None:
    answer = names.place.plane.http.post(f"/api/environments/{shop['id']}/magic-login")
    url, _, token = answer.json()["login_url"].partition("?trueup_login=")
    assert url == "https://named.example.com/"
    page = names.get(shop, url, "POST", data={"trueup_login": token})
    assert (page.status_code, page.headers["location"]) == (302, "https://named.example.com/wp-admin/")
    assert all("secure" in cookie.lower() for cookie in page.headers.get_list("set-cookie"))


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_dns_elsewhere_is_told_and_costs_no_attempt(names: Names, shop: dict[str, Any]) -> None:
    names.acme.point("later.example.com", "192.0.2.9")
    orders = names.acme.orders()
    job = names.add(shop, "later.example.com")
    assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", "DNS_ELSEWHERE", 1), job
    assert "later.example.com leads to 192.0.2.9" in job["error_message"]
    assert names.acme.orders() == orders
    assert names.of(shop)["later.example.com"]["tls_status"] == "failed"
    assert names.environment(shop)["status"] == "active", "the site is none the worse for it"
    assert names.get(shop, "https://named.example.com/").status_code == 200
    cache = names.place.plane.http.patch(f"/api/environments/{shop['id']}/cache", json={"redis_cache_enabled": False})
    assert names.place.run(cache)["status"] == "succeeded", "other work is not held up by a name"
    names.point(shop, "later.example.com")
    assert names.add(shop, "later.example.com")["status"] == "succeeded", "asked for again, it is tried again"
    assert names.of(shop)["later.example.com"]["tls_status"] == "active"
    assert names.get(shop, "https://later.example.com/").status_code == 301


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_the_loop_waits_and_then_tries_again(names: Names, shop: dict[str, Any]) -> None:
    names.point(shop, BLOCKED)
    job = names.add(shop, BLOCKED)
    assert (job["status"], job["error_code"]) == ("failed", "CERTIFICATE_FAILED"), job
    orders, node = names.acme.orders(), names.place.node_of(shop)
    path = f"/etc/trueup/certificates/{shop['id']}.json"
    assert json.loads(node.ssh(["cat", path]).stdout)[BLOCKED]["count"] == 1, "a job asks once"
    seen = names.place.plane.http.get("/api/nodes").json()
    looked_at = {one["id"]: one["observed_at"] for one in seen}[shop["node_id"]]

    def observed_twice() -> bool:
        now = {one["id"]: one["observed_at"] for one in names.place.plane.http.get("/api/nodes").json()}
        return bool(
            now[shop["node_id"]] > looked_at and len(times.setdefault(now[shop["node_id"]], "")) == 0 < len(times) - 1
        )

    times: dict[str, str] = {}
    until(observed_twice, "two looks at the node")
    assert names.acme.orders() == orders, "it is not asked for again at once"
    notes = json.loads(node.ssh(["cat", path]).stdout)
    notes[BLOCKED]["at"] = (datetime.now(UTC) - timedelta(minutes=6)).isoformat()
    node.ssh(["tee", path], input=json.dumps(notes))
    until(lambda: json.loads(node.ssh(["cat", path]).stdout)[BLOCKED]["count"] == 2, "the second attempt")
    assert names.acme.orders() > orders
    assert names.environment(shop)["status"] == "active"
    assert names.remove(shop, BLOCKED)["status"] == "succeeded"
    assert node.ssh(["test", "-e", path], check=False).returncode != 0


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_the_command_line(names: Names, shop: dict[str, Any]) -> None:
    plane = names.place.plane
    names.point(shop, "cli.example.com")
    assert plane.cli("domain", "add", "named/production", "cli.example.com").exit_code == 0
    rows = json.loads(plane.cli("domain", "list", "named/production", "-o", "json").output)
    assert [(row["hostname"], row["primary"], row["tls"]) for row in rows] == [
        ("named.example.com", True, "active"),
        ("cli.example.com", False, "active"),
    ]
    assert plane.cli("domain", "remove", "cli.example.com").exit_code == 0
    assert "cli.example.com" not in names.of(shop)
    assert plane.cli("domain", "remove", "cli.example.com").exit_code == 1
    assert "hostname: " in plane.command("domain", "add", "named/production", "No Host", check=False).stderr


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_a_certificate_that_ends_soon_is_told_and_renewed(names: Names, shop: dict[str, Any]) -> None:
    plane, node = names.place.plane, names.place.node_of(shop)
    document = "sites/named/environments/production.yaml"
    text = plane.clone.read(document)
    plane.clone.push({document: text.replace("\nspec:\n", "\nspec:\n  reconcile: {mode: report}\n", 1)})
    key, own = certificate("named.example.com", days=10, age_days=80)
    live = "/var/lib/trueup/letsencrypt/live/named.example.com"
    node.ssh(["tee", f"{live}/privkey.pem"], input=key_pem(key).decode())
    node.ssh(["tee", f"{live}/fullchain.pem"], input=own.public_bytes(serialization.Encoding.PEM).decode())
    node.ssh(["systemctl", "reload", "nginx"])

    def told() -> str:
        return plane.cli("plan", "named/production").output

    until(lambda: "the certificate ends soon" in told(), "the warning", told=told)
    assert "certificate named.example.com" in told()
    assert "certificate of named.example.com (named/production): ends " in plane.cli("status").output
    plane.clone.push({document: text})
    until(
        lambda: "Pebble" in (names.of(shop)["named.example.com"]["tls_issuer"] or ""),
        "a new certificate",
        90,
        plane.log,
    )
    assert names.get(shop, "https://named.example.com/").status_code == 200


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_a_copy_takes_no_domain_and_can_be_promoted(names: Names, shop: dict[str, Any]) -> None:
    place = names.place
    place.sql(shop, "INSERT INTO wp_options (option_name, option_value) VALUES ('ours', 'https://named.example.com/a')")
    body = {"name": "Staging", "slug": "staging", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{shop['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    assert (names.of(copy), copy["primary_domain_id"]) == ({}, None)
    ours = "SELECT option_value FROM wp_options WHERE option_name = 'ours'"
    assert place.sql(copy, ours) == f"{copy['preview_url']}/a"
    assert "named.example.com" not in place.page(copy).text
    place.sql(copy, f"UPDATE wp_options SET option_value = '{copy['preview_url']}/b' WHERE option_name = 'ours'")
    for path, given in (("drift-check", None), ("backups", {"backup_scope": "full"})):
        target = shop if path == "backups" else copy
        answer = place.plane.http.post(f"/api/environments/{target['id']}/{path}", json=given)
        assert place.run(answer)["status"] == "succeeded"
    promote = place.plane.http.post(
        f"/api/environments/{copy['id']}/promote", json={"target_environment_id": shop["id"]}
    )
    job = place.run(promote)
    assert job["status"] == "succeeded", job
    assert place.sql(shop, ours) == "https://named.example.com/b"
    assert names.get(shop, "https://named.example.com/").status_code == 200


SHOP = """<?php
add_action( 'init', function () {
    if ( 'POST' !== $_SERVER['REQUEST_METHOD'] || ! isset( $_POST['order'] ) ) { return; }
    global $wpdb;
    $wpdb->insert( 'wp_orders', array( 'id' => (int) $_POST['order'], 'link' => home_url( '/order' ) ) );
    $wpdb->query( "UPDATE wp_counters SET orders = orders + 1, note = CONCAT('" . home_url( '/' ) . " ', orders)" );
    exit( 'thanks' );
}, 0 );
"""


@pytest.mark.long
def test_no_order_is_lost_while_the_address_moves(names: Names) -> None:
    """Orders are sent to the preview URL throughout: before, while, and after the address moves to a domain."""
    place = names.place
    busy = place.make_site("busy")
    place.sql(busy, "CREATE TABLE wp_orders (id INT PRIMARY KEY, link TEXT)")
    place.sql(busy, "CREATE TABLE wp_counters (orders INT PRIMARY KEY, note TEXT)")
    place.sql(busy, "INSERT INTO wp_counters VALUES (0, '')")
    content = f"SELECT 'busy', 'http://{busy['preview_url'].partition('://')[2]}/' FROM seq_1_to_5000"
    place.sql(busy, f"CREATE TABLE wp_old (name TEXT, link TEXT) AS {content.replace('SELECT', 'SELECT seq AS id,')}")
    plugin = f"/var/www/sites/{busy['id']}/current/wp-content/mu-plugins/shop.php"
    place.node_of(busy).ssh(["tee", plugin], input=SHOP)
    taken: list[int] = []
    refused: list[tuple[int, int, str]] = []
    done = threading.Event()

    def buy() -> None:
        number = 0
        while not done.is_set():
            number += 1
            answer = names.get(busy, f"{busy['preview_url']}/", "POST", data={"order": str(number)})
            if answer.status_code == 200 and answer.text == "thanks":
                taken.append(number)
            else:
                refused.append((number, answer.status_code, answer.text[:100]))

    buyer = threading.Thread(target=buy)
    buyer.start()
    try:
        names.point(busy, "busy.example.com")
        until(lambda: len(taken) > 5, "orders", told=lambda: str(refused))
        assert names.add(busy, "busy.example.com")["status"] == "succeeded"
        there = len(taken)
        until(lambda: len(taken) > there + 5, "orders after the move")
        assert names.remove(busy, "busy.example.com")["status"] == "succeeded"
        there = len(taken)
        until(lambda: len(taken) > there + 5, "orders after the way back")
    finally:
        done.set()
        buyer.join()
    assert refused == []
    kept = [int(row) for row in place.sql(busy, "SELECT id FROM wp_orders ORDER BY id").splitlines()]
    assert kept == taken, "every order that was thanked for is there"
    assert place.sql(busy, "SELECT orders FROM wp_counters") == str(len(taken)), "no write was overwritten"
    assert (
        place.sql(busy, "SELECT COUNT(*) FROM wp_old WHERE link LIKE 'http://busy%' OR link LIKE '%busy.example%'")
        == "0"
    )


@pytest.mark.long
@pytest.mark.usefixtures("at_home")
def test_without_its_last_domain_a_site_is_at_its_preview_url(names: Names, shop: dict[str, Any]) -> None:
    names.point(shop, "later.example.com")
    assert names.add(shop, "later.example.com")["status"] == "succeeded"
    assert names.remove(shop, "named.example.com")["status"] == "succeeded"
    assert names.get(shop, "https://later.example.com/").status_code == 200, "the next one is the address"
    assert names.remove(shop, "later.example.com")["status"] == "succeeded"
    page = names.get(shop, f"{shop['preview_url']}/")
    assert page.status_code == 200
    assert "example.com" not in page.text
    assert names.environment(shop)["primary_domain_id"] is None
    job = names.place.run(names.place.plane.http.post(f"/api/environments/{shop['id']}/drift-check"))
    assert job["status"] == "succeeded"
    assert names.environment(shop)["drift_status"] == "clean"


@pytest.mark.long
def test_a_name_that_another_environment_has_is_refused(names: Names, shop: dict[str, Any]) -> None:
    names.acme.point("taken.example.com")
    other = names.place.make_site("other")
    names.add(shop, "taken.example.com")
    answer = names.place.plane.http.post(
        f"/api/environments/{other['id']}/domains", json={"hostname": "taken.example.com"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert names.remove(shop, "taken.example.com")["status"] == "succeeded"
