"""Domains on a real node, certified by a real ACME server over HTTP-01, as the playbook alone makes them."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import churn
from tests.lab.acme import BLOCKED, Acme, acme_server
from tests.lab.commands import wait_until
from tests.playbooks.environments import Hosting, hosting, wordpress
from tests.playbooks.fixtures import provisioned_snapshot, wp_cli
from tests.playbooks.nodes import Run

__all__ = ["hosting", "provisioned_snapshot", "wordpress", "wp_cli"]

pytestmark = pytest.mark.lab

KEY = "named/production"
FIRST, SECOND, FAR = "shop.example.com", "www.example.com", "far.example.com"
ASK_PHP = "header('Content-Type: text/plain'); echo $_SERVER['HTTPS'] ?? 'off', ' ', $_SERVER['REQUEST_METHOD'];"


class Named:
    """One environment whose domains the tests of this module change, one after the other."""

    def __init__(self, hosting: Hosting, acme: Acme, roots: Path) -> None:
        self.hosting = hosting
        self.acme = acme
        self.roots = ssl.create_default_context(cafile=str(roots))
        self.tls = {
            "directory": acme.directory,
            "email": None,
            "ca_bundle": acme.ca_bundle,
            "resolvers": [acme.resolver],
        }
        self.preview = ""

    def declare(self, *names: str, options: tuple[str, ...] = (), **more: Any) -> Run:
        """Run the playbook with these domains, the first of them the primary one."""
        return self.hosting.apply(KEY, *options, hostnames=self.hostnames(*names), domains=self.domains(*names), **more)

    def hostnames(self, *names: str) -> list[str]:
        return [self.preview.partition("://")[2], *names]

    def domains(self, *names: str) -> list[dict[str, Any]]:
        return [{"id": self.hosting.id(KEY), "hostname": name} for name in names]

    def get(self, url: str, method: str = "GET", **options: Any) -> httpx.Response:
        """What the node answers, as if DNS led there; over https only with a certificate that browsers would take."""
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        with httpx.Client(verify=self.roots, timeout=60, trust_env=False, http2=False) as client:
            return client.request(
                method,
                f"{scheme}://{self.hosting.node.address}{slash + path or '/'}",
                headers={"Host": host, "Cookie": "wordpress_no_cache=1"},
                extensions={"sni_hostname": host},
                **options,
            )

    def attempts(self) -> dict[str, Any]:
        """Notes of what got no certificate, as the node has them."""
        path = f"/etc/trueup/certificates/{self.hosting.id(KEY)}.json"
        text = self.hosting.node.ssh(["cat", path], check=False).stdout
        found: dict[str, Any] = json.loads(text or "{}")
        return found

    def lineages(self) -> list[str]:
        script = "cd /var/lib/trueup/letsencrypt/live 2>/dev/null && ls -d */ 2>/dev/null || true"
        return sorted(self.hosting.node.ssh(script).stdout.split())

    def is_at(self, name: str) -> bool:
        home = self.hosting.sql(KEY, "SELECT option_value FROM wp_options WHERE option_name = 'home'")
        return home == f"https://{name}"

    def settle(self) -> None:
        """Have WordPress do what is due with its first requests, so that it changes nothing by itself for an hour."""
        for _ in range(2):
            assert self.get(f"{self.preview}/").status_code == 200
            self.hosting.run_due(KEY)

    def content(self) -> str:
        """All rows but what WordPress itself changes with every request."""
        database = f"wp_{self.hosting.short(KEY)}"
        script = (
            f"mariadb-dump --hex-blob --skip-dump-date --skip-comments --order-by-primary {database} "
            f'--ignore-table={database}.wp_options; mariadb -N {database} -e "{churn.options()}"'
        )
        return self.hosting.node.ssh(script).stdout

    def serial(self, name: str) -> int:
        plain = socket.create_connection((self.hosting.node.address, 443), timeout=60)
        with plain, self.roots.wrap_socket(plain, server_hostname=name) as secure:
            return int(str(secure.getpeercert()["serialNumber"]), 16)  # type: ignore[index]


@pytest.fixture(scope="module")
def acme(hosting: Hosting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    with acme_server(tmp_path_factory.mktemp("acme"), hosting.node.network.gateway) as server:
        yield server


@pytest.fixture(scope="module")
def named(hosting: Hosting, acme: Acme, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    named = Named(hosting, acme, acme.roots(tmp_path_factory.mktemp("roots") / "roots.pem"))
    hosting.apply(KEY).raise_if_failed()
    named.preview = hosting.environments[KEY]["url"]
    for name in (FIRST, SECOND):
        acme.point(name, hosting.node.address)
    acme.point(FAR, "192.0.2.7")
    widget = f'<a href="{named.preview}/a">'
    value = f'a:1:{{i:2;a:1:{{s:4:"text";s:{len(widget)}:"{widget}";}}}}'
    hosting.sql(KEY, f"INSERT INTO wp_options (option_name, option_value) VALUES ('widget_ours', '{value}')")
    named.settle()
    yield named
    run = hosting.run("remove", KEY, "-e", json.dumps({"confirm": hosting.id(KEY)}))
    del hosting.environments[KEY]
    run.raise_if_failed()
    assert named.lineages() == [], "an environment that goes takes its certificates with it"


@pytest.fixture
def at_first(named: Named) -> Named:
    """The site is at its first domain, with a certificate, whatever the test before left."""
    if named.lineages() != [f"{FIRST}/"] or not named.is_at(FIRST):
        named.declare(FIRST, tls=named.tls).raise_if_failed()
    return named


@pytest.fixture
def unnamed(named: Named) -> Named:
    """The site has no domain."""
    if named.lineages():
        named.declare().raise_if_failed()
    return named


@pytest.mark.usefixtures("unnamed")
def test_the_first_domain_becomes_the_address(named: Named) -> None:
    hosting = named.hosting
    assert named.get(f"{named.preview}/").status_code == 200
    named.declare(FIRST, tls=named.tls).raise_if_failed()
    page = named.get(f"https://{FIRST}/")
    assert page.status_code == 200
    assert named.preview not in page.text
    assert f"https://{FIRST}/" in page.text
    assert page.headers["strict-transport-security"] == "max-age=15552000"
    moved = named.get(f"{named.preview}/about?x=1")
    assert (moved.status_code, moved.headers["location"]) == (302, f"https://{FIRST}/about?x=1")
    plain = named.get(f"http://{FIRST}/a?b=c")
    assert (plain.status_code, plain.headers["location"]) == (301, f"https://{FIRST}/a?b=c")
    assert named.get(f"http://{FIRST}/", "POST").status_code == 308
    urls = "SELECT option_value FROM wp_options WHERE option_name IN ('home', 'siteurl')"
    assert hosting.sql(KEY, urls) == f"https://{FIRST}\nhttps://{FIRST}"
    widget = f'<a href="https://{FIRST}/a">'
    assert hosting.sql(KEY, "SELECT option_value FROM wp_options WHERE option_name = 'widget_ours'") == (
        f'a:1:{{i:2;a:1:{{s:4:"text";s:{len(widget)}:"{widget}";}}}}'
    )


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_a_second_run_changes_nothing(named: Named) -> None:
    orders = named.acme.orders()
    for options in (("--check",), ()):
        run = named.declare(FIRST, tls=named.tls, options=options).raise_if_failed()
        assert run.changed == 0, run.output
    assert named.acme.orders() == orders


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_requests_that_write_are_served_where_they_were_sent(named: Named) -> None:
    place = named.hosting.path(KEY, "current", "wp-content", "plugins", "ask.php")
    named.hosting.node.ssh(["tee", place], input=f"<?php {ASK_PHP}")
    path = "/wp-content/plugins/ask.php"
    assert named.get(f"{named.preview}{path}", "POST", data={"order": "1"}).text == "off POST"
    assert named.get(f"https://{FIRST}{path}", "POST", data={"order": "1"}).text == "on POST"
    assert named.get(f"{named.preview}{path}").status_code == 302
    named.hosting.node.ssh(["rm", place])


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_http_2_is_spoken(named: Named) -> None:
    context = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(named.roots.get_ca_certs(binary_form=True)[0]))
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection((named.hosting.node.address, 443), timeout=60)
    with plain, context.wrap_socket(plain, server_hostname=FIRST) as secure:
        assert secure.selected_alpn_protocol() == "h2"


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_another_domain_redirects_and_touches_no_content(named: Named) -> None:
    before = named.content()
    # On a busy node nginx's former workers take requests for a while; here they learn late that they are to end.
    workers = "pgrep -P $(cat /run/nginx.pid) -f 'worker process'"
    former = set(named.hosting.node.ssh(workers).stdout.split())
    named.hosting.node.ssh(f"kill -STOP {' '.join(former)}")
    resumed = f"kill -CONT {' '.join(former)}"
    named.hosting.node.ssh(["systemd-run", "-q", "--collect", "--on-active=9", "sh", "-c", resumed])
    named.declare(FIRST, SECOND, tls=named.tls).raise_if_failed()
    listening = named.hosting.node.ssh(f"{workers} -a | grep -v 'shutting down' | cut -d' ' -f1").stdout.split()
    assert not former & set(listening), "nobody is sent on as it was before"
    for scheme in ("http", "https"):
        moved = named.get(f"{scheme}://{SECOND}/x?y=z")
        assert (moved.status_code, moved.headers["location"]) == (301, f"https://{FIRST}/x?y=z")
    assert named.content() == before
    named.declare(FIRST, tls=named.tls).raise_if_failed()
    assert named.content() == before
    assert named.lineages() == [f"{FIRST}/"]
    with pytest.raises(httpx.TransportError):
        named.get(f"https://{SECOND}/")


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_dns_elsewhere_asks_for_nothing(named: Named) -> None:
    named.acme.point("six.example.com", named.hosting.node.address, "2001:db8::1")
    orders, names = named.acme.orders(), (FAR, "nowhere.example.com", "six.example.com")
    named.declare(FIRST, *names, tls=named.tls).raise_if_failed()
    assert named.acme.orders() == orders, "an attempt that must fail is never made"
    notes = named.attempts()
    assert {name: note["code"] for name, note in notes.items()} == dict.fromkeys(names, "DNS_ELSEWHERE")
    assert "leads to 192.0.2.7. Point it to" in notes[FAR]["message"]
    assert "has no address in DNS" in notes["nowhere.example.com"]["message"]
    assert "2001:db8::1" in notes["six.example.com"]["message"], "a forgotten AAAA record is what would be asked"
    moved = named.get(f"http://{FAR}/x")
    assert (moved.status_code, moved.headers["location"]) == (302, f"https://{FIRST}/x")
    assert named.get(f"https://{FIRST}/").status_code == 200


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_name_servers_that_are_silent_have_a_code_of_their_own(named: Named) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        tls = {**named.tls, "resolvers": [f"127.0.0.1:{silent.getsockname()[1]}"]}
        named.declare(FIRST, SECOND, tls=tls).raise_if_failed()
    assert [note["code"] for note in named.attempts().values()] == ["DNS_UNAVAILABLE"]
    assert named.get(f"https://{FIRST}/").status_code == 200


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_one_broken_domain_beside_nine_good_ones(named: Named) -> None:
    names = [FIRST, *(f"n{number}.example.com" for number in range(4)), BLOCKED]
    names += [f"n{number}.example.com" for number in range(4, 8)]
    for name in names:
        named.acme.point(name, named.hosting.node.address)
    named.declare(*names, tls=named.tls).raise_if_failed()
    notes = named.attempts()
    assert [(name, note["code"]) for name, note in notes.items()] == [(BLOCKED, "CERTIFICATE_FAILED")], notes
    assert "policy" in notes[BLOCKED]["message"].lower(), notes
    named.hosting.node.ssh(["systemctl", "reload", "nginx"])
    named.hosting.node.ssh(["nginx", "-t", "-q"])
    for name in names:
        if name not in (FIRST, BLOCKED):
            assert named.get(f"https://{name}/").headers["location"] == f"https://{FIRST}/"
    assert named.get(f"http://{BLOCKED}/").headers["location"] == f"https://{FIRST}/"
    again = named.declare(*names, tls=named.tls, options=("-e", '{"trueup_certify": []}')).raise_if_failed()
    assert again.changed == 0, "what nobody asks for now is left alone"
    assert named.attempts() == notes


CERTBOT = """#!/bin/sh
echo >> /run/certbot-runs
[ "$(wc -l < /run/certbot-runs)" -gt {refused} ] && exec /usr/bin/certbot "$@"
echo 'An unexpected error occurred:' >&2
echo '  Type:   badNonce' >&2
echo '  Detail: JWS has an invalid anti-replay nonce: x' >&2
exit 1
"""
"""Stands before the real one, which a server that refuses one nonce after the other ends like this."""


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
@pytest.mark.parametrize(("refused", "runs", "codes"), [(2, 3, []), (9, 3, ["CERTIFICATE_FAILED"])])
def test_refused_nonces_are_asked_for_again(named: Named, refused: int, runs: int, codes: list[str]) -> None:
    node, name = named.hosting.node, f"nonce{refused}.example.com"
    named.acme.point(name, node.address)
    node.ssh("cat > /usr/sbin/certbot && chmod +x /usr/sbin/certbot", input=CERTBOT.format(refused=refused))
    try:
        named.declare(FIRST, name, tls=named.tls).raise_if_failed()
        assert node.ssh("wc -l < /run/certbot-runs").stdout.strip() == str(runs)
    finally:
        node.ssh("rm -f /usr/sbin/certbot /run/certbot-runs")
    assert [note["code"] for note in named.attempts().values()] == codes
    assert named.get(f"http://{name}/").headers["location"] == f"https://{FIRST}/"
    assert named.get(f"https://{FIRST}/").status_code == 200


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_renewal_changes_what_is_served(named: Named) -> None:
    named.declare(FIRST, tls=named.tls).raise_if_failed()
    node, before = named.hosting.node, named.serial(FIRST)
    timer = node.ssh(["systemctl", "show", "-p", "ActiveState,UnitFileState", "trueup-renew.timer"]).stdout
    assert timer.split() == ["ActiveState=active", "UnitFileState=enabled"]
    node.ssh(["systemctl", "start", "trueup-renew.service"])
    assert named.serial(FIRST) == before, "it is not time yet"
    conf = f"/var/lib/trueup/letsencrypt/renewal/{FIRST}.conf"
    node.ssh(f"sed -i '1i renew_before_expiry = 99 days' {conf}")
    node.ssh(["systemctl", "start", "trueup-renew.service"], timeout=120)
    assert wait_until(lambda: named.serial(FIRST) != before, 120), "nginx shows the old one"
    assert named.get(f"https://{FIRST}/").status_code == 200
    assert named.declare(FIRST, tls=named.tls).raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_killed_while_it_asks_it_is_run_again(named: Named) -> None:
    node = named.hosting.node
    runs: list[Run] = []
    work = threading.Thread(target=lambda: runs.append(named.declare(FIRST, SECOND, tls=named.tls)))
    work.start()
    try:
        assert wait_until(lambda: node.ssh(["pgrep", "-f", "certbot certonly"], check=False).returncode == 0, 60)
        node.ssh(
            "for unit in $(systemctl list-units --plain --no-legend 'trueup-manual-*.scope' | cut -d' ' -f1); "
            "do systemctl kill --signal=KILL $unit; done"
        )
    finally:
        work.join()
    assert runs[0].status != 0
    assert named.get(f"https://{FIRST}/").status_code == 200
    named.declare(FIRST, SECOND, tls=named.tls).raise_if_failed()
    assert named.get(f"https://{SECOND}/").status_code == 301
    assert named.lineages() == [f"{FIRST}/", f"{SECOND}/"]


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_the_order_of_the_document_decides_the_address(named: Named) -> None:
    named.declare(SECOND, FIRST, tls=named.tls).raise_if_failed()
    assert named.get(f"https://{SECOND}/").status_code == 200
    assert named.get(f"https://{FIRST}/").headers["location"] == f"https://{SECOND}/"
    assert f"https://{FIRST}" not in named.content()


@pytest.mark.long
@pytest.mark.usefixtures("at_first")
def test_without_the_primary_domain_it_is_the_preview_url_again(named: Named) -> None:
    named.declare().raise_if_failed()
    page = named.get(f"{named.preview}/")
    assert page.status_code == 200
    assert SECOND not in page.text
    assert "strict-transport-security" not in page.headers
    assert SECOND not in named.content()
    assert named.lineages() == []
    assert named.declare().raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.usefixtures("unnamed")
def test_a_domain_without_tls_is_served_over_http(named: Named) -> None:
    orders = named.acme.orders()
    domains = [{"id": named.hosting.id(KEY), "hostname": "intranet.example.com", "tls": False}]
    hostnames = named.hostnames("intranet.example.com")
    named.hosting.apply(KEY, domains=domains, hostnames=hostnames).raise_if_failed()
    assert named.get("http://intranet.example.com/").status_code == 200
    assert named.acme.orders() == orders
    named.declare().raise_if_failed()


@pytest.mark.long
@pytest.mark.usefixtures("unnamed")
def test_an_address_that_breaks_the_site_is_taken_back(named: Named) -> None:
    node, before = named.hosting.node, named.content()
    plugin = named.hosting.path(KEY, "current", "wp-content", "mu-plugins", "picky.php")
    code = f"<?php if ( '{FIRST}' === ( $_SERVER['HTTP_HOST'] ?? '' ) ) {{ http_response_code( 500 ); exit; }}"
    node.ssh(["tee", plugin], input=code)
    run = named.declare(FIRST, tls=named.tls)
    assert run.status != 0
    assert f"https://{FIRST} answers 500" in run.output
    assert named.get(f"{named.preview}/").status_code == 200
    assert named.content() == before, "content is what it was, byte for byte"
    assert node.ssh("ls /var/lib/trueup/undo-* 2>/dev/null || true").stdout == ""
    node.ssh(["rm", plugin])
    named.declare(FIRST, tls=named.tls).raise_if_failed()
    assert named.get(f"https://{FIRST}/").status_code == 200
