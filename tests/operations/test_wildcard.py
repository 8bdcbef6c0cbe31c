"""The certificate of preview URLs, on a real node, with a real name server (signed updates) and a real ACME server."""

import base64
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from reconciler.certificates.kept import Kept, Wildcard
from reconciler.storage.secret_store import Secrets
from tests.controlplane import until
from tests.lab.acme import Acme, acme_server, certificate, key_pem
from tests.lab.name_server import PREVIEW, NameServer, name_server
from tests.lab.s3 import S3
from tests.place import Place

# After a refusal the loop waits minutes before it tries again, so what is refused comes last.
pytestmark = [pytest.mark.lab, pytest.mark.in_order]

WRONG = base64.b64encode(b"not the key that the server has.").decode()
PATIENCE_S = 240


@dataclass
class Previews:
    """A place whose platform document wants a wildcard."""

    place: Place
    acme: Acme
    dns: NameServer
    roots: ssl.SSLContext
    wanted: str = ""
    """The platform document that wants it."""

    @property
    def kept(self) -> Kept:
        return Kept(self.place.plane.home / "preview")

    def set_key(self, key: str) -> None:
        Secrets(self.place.plane.home / "secrets").put("preview-dns", {"key": key})

    def get(
        self, environment: dict[str, Any], url: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """What the node answers, as if DNS led there; over https only with a certificate that browsers would take."""
        scheme, _, host = url.partition("://")
        with httpx.Client(verify=self.roots, timeout=20, trust_env=False) as client:
            return client.request(
                method,
                f"{scheme}://{self.place.node_of(environment).address}/",
                headers={"Host": host, "Cookie": "wordpress_no_cache=1", **(headers or {})},
                extensions={"sni_hostname": host},
            )

    def is_secure(self, environment: dict[str, Any]) -> bool:
        try:
            return self.get(environment, environment["preview_url"]).status_code == 200
        except httpx.TransportError:  # nobody is there, or nginx is told of it at this moment
            return False

    def shown(self, environment: dict[str, Any]) -> bytes:
        """The certificate that the node shows for the preview URL, checked; in DER."""
        host, address = environment["preview_url"].partition("://")[2], self.place.node_of(environment).address
        with (
            socket.create_connection((address, 443), timeout=20) as plain,
            self.roots.wrap_socket(plain, server_hostname=host) as secure,
        ):
            found = secure.getpeercert(binary_form=True)
        assert found
        return found

    def wait(self, condition: Any, what: str) -> None:
        until(condition, what, PATIENCE_S, self.place.plane.log)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.place.plane.command("status", "--output", "json").stdout)
        return found


@pytest.fixture(scope="module")
def previews(place: Place, storage: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previews]:
    where = tmp_path_factory.mktemp("wildcard")
    gateway = next(iter(place.nodes.values())).network.gateway
    with name_server(where, gateway) as dns, acme_server(where, gateway, dns=dns.server) as acme:
        before = place.plane.clone.read("platform.yaml")
        made = Previews(place, acme, dns, ssl.create_default_context(cafile=str(acme.roots(where / "roots.pem"))))
        made.set_key(WRONG)
        text = storage.platform() + acme.platform() + dns.platform()
        place.plane.clone.push({"platform.yaml": text}, "Want a certificate of preview URLs")
        made.wanted = text
        yield made
        place.plane.clone.push({"platform.yaml": before}, "Want none")


@pytest.fixture(scope="module")
def shop(previews: Previews) -> dict[str, Any]:
    return previews.place.make_site("wild", "Wild Shop")


@dataclass(frozen=True)
class Refused:
    """What was to be seen while no certificate had ever come, because the key was wrong."""

    told: dict[str, Any]
    updates: int
    log: str
    metrics: str
    page: httpx.Response
    is_secure: bool


@pytest.fixture(scope="module")
def refused(previews: Previews, shop: dict[str, Any]) -> Refused:
    place = previews.place
    previews.wait(lambda: previews.kept.notes().failure, "the refusal to be noted")
    told, metrics = previews.status()["preview_certificate"], place.plane.http.get("/metrics").text
    log, updates = place.plane.log_file.read_text(), previews.dns.updates()
    return Refused(told, updates, log, metrics, place.page(shop), previews.is_secure(shop))


@pytest.fixture
def secured(previews: Previews, shop: dict[str, Any], refused: Refused) -> None:
    """The preview URL answers over https, whatever the test before left."""
    if previews.place.plane.clone.read("platform.yaml") != previews.wanted:
        previews.place.plane.clone.push({"platform.yaml": previews.wanted}, "Want a certificate as in the beginning")
    previews.set_key(previews.dns.key)
    previews.wait(lambda: previews.is_secure(shop), "the preview URL to answer over https")

    def shows_what_is_kept() -> bool:
        kept = previews.kept.wildcard()
        if kept is None or "PRIVATE KEY" not in kept.key or previews.kept.notes().failure:
            return False
        return previews.shown(shop) == kept.leaf.public_bytes(serialization.Encoding.DER)

    previews.wait(shows_what_is_kept, "the certificate that is kept to be shown")


@pytest.mark.long
def test_a_wrong_key_is_told_and_previews_go_on_over_http(
    previews: Previews, shop: dict[str, Any], refused: Refused
) -> None:
    assert shop["preview_url"] == f"https://{shop['id'][:8]}.{PREVIEW}"
    assert refused.told["ends_at"] is None
    assert f"{previews.dns.server} refuses the TSIG key trueup" in refused.told["trouble"]
    assert WRONG not in refused.log
    assert refused.updates == 0
    assert "trueup_preview_certificate_failures 1.0" in refused.metrics
    assert "trueup_preview_certificate_end" not in refused.metrics
    assert (refused.page.status_code, "Wild Shop" in refused.page.text) == (200, True)
    assert not refused.is_secure


@pytest.mark.usefixtures("secured")
def test_the_right_key_makes_the_preview_url_answer_over_https(previews: Previews, shop: dict[str, Any]) -> None:
    assert "Wild Shop" in previews.get(shop, shop["preview_url"]).text
    assert previews.dns.updates() >= 1
    assert previews.dns.texts() == [], "nothing is left in the zone"
    told = lambda: previews.status()["preview_certificate"]  # noqa: E731
    previews.wait(lambda: (told()["trouble"], told()["nodes"]) == (None, {}), "all nodes to have it")
    assert "trueup_preview_certificate_failures 0.0" in previews.place.plane.http.get("/metrics").text
    assert "strict-transport-security" not in previews.get(shop, shop["preview_url"]).headers


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_over_http_what_reads_is_sent_on_and_what_writes_is_served(previews: Previews, shop: dict[str, Any]) -> None:
    plain = shop["preview_url"].replace("https:", "http:")
    for method in ("GET", "HEAD"):
        moved = previews.get(shop, plain, method)
        assert (moved.status_code, moved.headers["location"]) == (301, f"{shop['preview_url']}/"), method
    assert previews.get(shop, plain, "POST").status_code == 200
    fronted = previews.get(shop, plain, headers={"X-Forwarded-Proto": "https"})
    assert (fronted.status_code, "Wild Shop" in fronted.text) == (200, True), "what TLS in front took does not turn"


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_wordpress_stays_at_the_address_that_it_always_had(previews: Previews, shop: dict[str, Any]) -> None:
    place, urls = previews.place, "SELECT option_value FROM wp_options WHERE option_name IN ('home', 'siteurl')"
    assert place.sql(shop, urls).split() == [shop["preview_url"]] * 2
    environment = place.plane.http.get(f"/api/environments/{shop['id']}").json()
    assert (environment["preview_url"], environment["status"]) == (shop["preview_url"], "active")
    login = place.plane.http.post(f"/api/environments/{shop['id']}/magic-login").json()["login_url"]
    assert login.startswith(f"{shop['preview_url']}/?trueup_login=")
    # A change goes through a health check: over https now.
    cache = place.plane.http.patch(f"/api/environments/{shop['id']}/cache", json={"fastcgi_cache_enabled": False})
    job = place.run(cache)
    assert job["status"] == "succeeded", job


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_the_key_is_read_by_nobody_else_and_told_nowhere(previews: Previews, shop: dict[str, Any]) -> None:
    home = previews.place.plane.home
    for name in ("certificate.json", "account.pem", "notes.json"):
        assert stat.S_IMODE((home / "preview" / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((home / "preview").stat().st_mode) == 0o700
    node, wildcard = previews.place.node_of(shop), previews.kept.wildcard()
    assert wildcard
    modes = node.ssh("cd /var/lib/trueup/preview && stat -c '%a %U' . */*/privkey.pem").stdout.splitlines()
    assert modes == ["700 root", "600 root"]
    secret = wildcard.key.splitlines()[1]
    assert not list((home / "run").glob("preview-*")), "no run has left what it was given"
    assert secret not in previews.place.plane.log_file.read_text()
    assert node.ssh(["grep", "-rlF", "-e", secret, "/etc", "/var/log", "/run", "/tmp"], check=False).stdout == ""
    assert node.ssh(["journalctl", "--no-pager", "-q", f"--grep={secret[:40]}"], check=False).stdout == ""


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_a_second_site_is_secure_from_the_beginning(previews: Previews) -> None:
    orders = previews.acme.orders()
    other = previews.place.make_site("wilder", "Wilder Shop")
    previews.wait(lambda: previews.is_secure(other), "the second preview URL to answer over https")
    assert previews.acme.orders() == orders, "one certificate is for all"


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_files_that_were_lost_or_changed_come_back(previews: Previews, shop: dict[str, Any]) -> None:
    node, log = previews.place.node_of(shop), previews.place.plane.log_file
    for damage, sign in (("rm", "test -s"), ("echo '# by hand' >>", "! grep -q 'by hand'")):
        path = "/var/lib/trueup/preview/*/*/privkey.pem" if damage == "rm" else "/var/lib/trueup/preview/*/nginx.conf"
        name = node.ssh(f"ls {path}").stdout.strip()
        node.ssh(f"{damage} {name}")
        healed = f"{sign} {name}"
        previews.wait(lambda one=healed: node.ssh(one, check=False).returncode == 0, f"{name} to be as it was")
        assert f"changed on the node: {name}" in log.read_text()
    assert node.ssh(["nginx", "-t", "-q"], check=False).returncode == 0
    assert previews.is_secure(shop)


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_a_decommissioned_node_loses_the_key(previews: Previews, shop: dict[str, Any]) -> None:
    place, used = previews.place, previews.place.node_of(shop)
    name = next(name for name, node in place.nodes.items() if node is not used)
    there = ["test", "-e", "/var/lib/trueup/preview"]

    def has_it() -> bool:
        return place.nodes[name].ssh(there, check=False).returncode == 0

    previews.wait(has_it, "the other node to have it")
    document = f"nodes/{name}.yaml"
    before = place.plane.clone.read(document)
    place.plane.clone.push({document: before.replace("\nspec:\n", "\nspec:\n  state: decommissioned\n", 1)})
    previews.wait(lambda: not has_it(), "the key to be gone from it")
    assert previews.is_secure(shop)
    place.plane.clone.push({document: before}, "Use the node again")
    previews.wait(has_it, "the other node to have it again")


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_a_renewal_replaces_what_is_shown(previews: Previews, shop: dict[str, Any]) -> None:
    before, found = previews.shown(shop), previews.kept.wildcard()
    assert found
    key, ending = certificate(f"*.{PREVIEW}", days=29, age_days=61)
    chain = ending.public_bytes(serialization.Encoding.PEM).decode()
    previews.kept.keep(Wildcard(found.domain, found.directory, chain, key_pem(key).decode()))

    def renewal() -> Wildcard | None:
        now = previews.kept.wildcard()
        return now if now and now.chain not in {chain, found.chain} else None

    previews.wait(renewal, "another certificate")
    renewed = renewal()
    assert renewed
    der = renewed.leaf.public_bytes(serialization.Encoding.DER)
    previews.wait(lambda: previews.is_secure(shop) and previews.shown(shop) == der, "nginx to show it")
    assert der != before
    left = previews.place.node_of(shop).ssh("ls -d /var/lib/trueup/preview/*/*/ | wc -l").stdout.strip()
    assert left == "1", "the former key is gone from the node"


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_a_renewal_that_fails_breaks_nothing(previews: Previews, shop: dict[str, Any]) -> None:
    before, found = previews.shown(shop), previews.kept.wildcard()
    assert found
    previews.set_key(WRONG)
    previews.place.plane.clone.replace("platform.yaml", "key_name: trueup", "key_name: somebody")
    _, ending = certificate(f"*.{PREVIEW}", days=1, age_days=89)
    previews.kept.keep(
        Wildcard(
            found.domain,
            found.directory,
            ending.public_bytes(serialization.Encoding.PEM).decode(),
            "no key, so that no node takes it",
        )
    )
    previews.wait(lambda: previews.kept.notes().failure, "the refusal to be noted")
    previews.wait(lambda: previews.kept.notes().refused, "the node to refuse what does not belong together")
    assert previews.shown(shop) == before
    assert previews.get(shop, shop["preview_url"]).status_code == 200
    assert previews.status()["preview_certificate"]["nodes"]


@pytest.mark.long
@pytest.mark.usefixtures("secured")
def test_wanted_no_more_it_leaves_the_nodes(previews: Previews, shop: dict[str, Any]) -> None:
    text = previews.place.plane.clone.read("platform.yaml")
    kept, _, rest = text.partition("  preview_tls:\n")
    left = [line for line in rest.splitlines() if not line.startswith("    ")]
    previews.place.plane.clone.push({"platform.yaml": "\n".join([kept.rstrip("\n"), *left, ""])}, "Want none")
    node = previews.place.node_of(shop)
    gone = ["test", "!", "-e", "/var/lib/trueup/preview"]
    previews.wait(lambda: node.ssh(gone, check=False).returncode == 0, "the certificate to be gone from the node")
    previews.wait(lambda: not previews.is_secure(shop), "nginx to show it no more")
    assert previews.place.page(shop).status_code == 200
    previews.wait(lambda: previews.kept.wildcard() is None, "the control plane to have forgotten it")
    assert previews.status()["preview_certificate"] is None
