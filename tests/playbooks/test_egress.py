"""A copy reaches nobody, whatever its code does; production reaches everybody, and so does a copy that was opened."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from reconciler.core.observed import ObservedEgress, ObservedHost
from reconciler.nodes.module_utils import load
from tests.controlplane import until
from tests.lab.listener import Listener, listener
from tests.playbooks.environments import Hosting
from tests.playbooks.nodes import Run
from tests.playbooks.test_deploy import packed
from tests.proof import sampled

COPY, PRODUCTION, OTHER = "reaching/staging", "reaching/production", "reaching/other"

pytestmark = [pytest.mark.lab, pytest.mark.in_order]

WORDPRESS = "require dirname( __DIR__, 2 ) . '/wp-load.php';"
BY_PHP = {
    "curl": "$c = curl_init( '@URL@' ); curl_setopt( $c, CURLOPT_TIMEOUT, 5 ); curl_exec( $c );",
    "streams": "@file_get_contents( '@URL@' );",
    "fsockopen": "$s = @fsockopen( '@HOST@', @PORT@, $n, $e, 5 ); if ( $s ) { fwrite( $s, '@WHO@' ); fread( $s, 9 ); }",
    "udp": "$s = @stream_socket_client( 'udp://@HOST@:@PORT@' ); if ( $s ) { @fwrite( $s, '@WHO@' ); }",
    "wp_remote_get": WORDPRESS + "wp_remote_get( '@URL@', array( 'timeout' => 5 ) );",
    "smtp": WORDPRESS
    + "require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php'; require_once ABSPATH . WPINC . '/PHPMailer/SMTP.php';"
    "$s = new PHPMailer\\PHPMailer\\SMTP(); if ( $s->connect( '@HOST@', 587, 5 ) ) { $s->hello( '@WHO@' ); }",
}
"""By way, PHP that says ``WHO`` to the listener."""
BY_PROGRAM = {
    # What a hacked site's native code has: no function that PHP lacks is in its way.
    "sendmail": "/usr/local/bin/lab-sendmail @HOST@ @WHO@",
    "smtps": "/usr/local/bin/lab-sendmail @HOST@ @WHO@ 465",
    "another port of mail": "/usr/local/bin/lab-sendmail @HOST@ @WHO@ 2525",
    "mptcp": "python3 -c 'import socket; s = socket.socket(2, 1, 262); s.settimeout(5); "
    's.connect(("@HOST@", @PORT@)); s.send(b"@WHO@")\'',
    "datagram": 'python3 -c \'import socket; socket.socket(2, 2).sendto(b"@WHO@", ("@HOST@", @PORT@))\'',
}
"""The same in the site's sandbox, by programs."""
SENDMAIL = """#!/usr/bin/python3
import socket, sys
with socket.create_connection((sys.argv[1], int((sys.argv[3:] or ["25"])[0])), 5) as mail:
    mail.recv(100)
    mail.sendall(b"EHLO " + sys.argv[2].encode() + b"\\r\\n")
"""


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    for key in (PRODUCTION, COPY):
        own_hosting.apply(key).raise_if_failed()
    own_hosting.node.ssh("tee /usr/local/bin/lab-sendmail && chmod 755 /usr/local/bin/lab-sendmail", input=SENDMAIL)
    return own_hosting


@pytest.fixture(scope="module")
def outside(hosting: Hosting) -> Iterator[Listener]:
    with listener(hosting.node.network.gateway, mail=True) as found:
        yield found


def call(hosting: Hosting, outside: Listener, key: str, way: str) -> str:
    """Have the environment's code call the listener; the word by which it is known there."""
    who = f"{key.partition('/')[2]}-{way.replace(' ', '-')}-{len(outside.calls)}"
    values = {"URL": outside.url(f"/{who}"), "HOST": outside.address, "PORT": str(outside.port), "WHO": who}
    code = {**BY_PHP, **BY_PROGRAM}[way]
    for name, value in values.items():
        code = code.replace(f"@{name}@", value)
    if way in BY_PHP:
        hosting.php(key, code + " echo 'said';")
    else:
        hosting.node.ssh(sandboxed(hosting, key, code), check=False)
    return who


def sandboxed(hosting: Hosting, key: str, script: str, seconds: int = 30) -> list[str]:
    layout = load("environment/layout").Layout(hosting.id(key))
    argv: list[str] = load("environment/sandbox").command(layout, ["sh", "-c", script], seconds=seconds)
    return argv


def egress(hosting: Hosting, key: str = COPY) -> ObservedEgress:
    found = hosting.look(key).egress
    assert found is not None
    return found


def uid(hosting: Hosting, key: str) -> int:
    return int(hosting.node.ssh(["id", "-u", f"wp-{hosting.short(key)}"]).stdout)


def table(hosting: Hosting) -> str:
    return hosting.node.ssh(["nft", "list", "table", "inet", "trueup_egress"], check=False).stdout


def reaches(hosting: Hosting, outside: Listener, key: str, way: str = "fsockopen") -> bool:
    """Whether a call arrives, as it has when production's, which is made after it, has."""
    who = call(hosting, outside, key, way)
    after = call(hosting, outside, PRODUCTION, way)
    until(lambda: outside.has(after), f"{way} of production to arrive")
    return outside.has(who)


MAIL = ("smtp", "sendmail", "smtps", "another port of mail")
MAIL_SERVER = """import socket
with socket.create_server(("127.0.0.1", 25)) as server, open("/run/lab-mail", "wb", buffering=0) as heard:
    while True:
        mail, _ = server.accept()
        with mail:
            mail.sendall(b"220 node ESMTP\\r\\n")
            heard.write(mail.recv(100))
"""


@pytest.mark.parametrize("way", [*BY_PHP, *BY_PROGRAM])
def test_a_copy_reaches_nobody_and_production_does(hosting: Hosting, outside: Listener, way: str) -> None:
    before = len(outside.calls)
    assert not reaches(hosting, outside, COPY, way)
    assert len(outside.calls) == before + 1, "production's call alone"


def test_what_was_refused_is_counted(hosting: Hosting, outside: Listener) -> None:
    before = egress(hosting)
    call(hosting, outside, COPY, "fsockopen")
    after = egress(hosting)
    assert (before.closed, after.closed) == (True, True)
    assert (after.refused or 0) > (before.refused or 0)
    assert egress(hosting, PRODUCTION) == ObservedEgress(closed=False, refuses_mail=False)


ASK = """
$context = stream_context_create( array( 'http' => array( 'header' => 'Host: {host}', 'ignore_errors' => true ) ) );
$said = @file_get_contents( 'http://{where}/', false, $context );
echo $said === false ? 'refused' : $said;
"""


def test_a_copy_asks_its_own_site_and_no_neighbour(hosting: Hosting) -> None:
    own, neighbour = (hosting.environments[key]["hostnames"][0] for key in (COPY, PRODUCTION))

    def asked(where: str, host: str, key: str = COPY) -> str:
        return hosting.php(key, ASK.format(where=where, host=host))

    address = hosting.node.ssh(["getent", "ahostsv4", own]).stdout.split()[0]
    assert address.startswith("127.")
    assert f"Title of {COPY}" in asked(own, own)
    assert asked("127.0.0.1", neighbour) == "refused"
    assert asked(neighbour, neighbour) == "refused"
    assert asked(hosting.node.address, neighbour) == "refused"
    assert f"Title of {COPY}" in asked(address, neighbour), "nginx has no other site there"
    assert f"Title of {PRODUCTION}" in asked("127.0.0.1", neighbour, PRODUCTION)
    assert f"Title of {COPY}" in asked(own, own, PRODUCTION)


COMPOSER = """#!/usr/bin/python3
# As Composer does: it obeys its home, runs plugins and scripts unless it is told not to, and installs from its cache.
import os, socket, sys, time
from pathlib import Path

def call(word):
    try:
        with socket.create_connection(("HOST", PORT), 5) as there:
            there.sendall(b"composer-" + word.encode())
            there.recv(99)
    except OSError:
        if word == "download":
            raise

project = Path(sys.argv[sys.argv.index("--working-dir") + 1])
cache = Path(os.environ.get("COMPOSER_CACHE_DIR") or Path(os.environ["COMPOSER_HOME"], "cache"))
for home in ("HOME", "COMPOSER_HOME"):
    if Path(os.environ[home], "planted").exists():
        call("planted")
if "--no-plugins" not in sys.argv:
    call("plugin")
if "--no-scripts" not in sys.argv:
    call("script")
if not os.environ.get("COMPOSER_DISABLE_NETWORK"):
    call("download")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "package").write_text("<?php // fetched")
if "--download-only" in sys.argv:
    tried = Path("TRIED")
    for _ in range(2 if tried.exists() else 0):  # one whole try of the site's
        before = tried.stat().st_mtime_ns
        while tried.stat().st_mtime_ns == before:
            time.sleep(0.01)
    sys.exit((project / "site").exists() and "the site wrote into what is fetched for")
(project / "wp-content" / "mu-plugins" / "package.php").write_text((cache / "package").read_text())
"""
MEDDLER = """
while [ ! -e {site}/tmp/enough ]; do
    echo > {site}/unpacking/tree/site; touch {site}/tmp/tried; sleep 0.02
done
"""
"""What a hacked site tries while packages are fetched for it."""


@pytest.fixture
def meddled(hosting: Hosting) -> Iterator[str]:
    """The site's directory, while it tries to get at what is fetched."""
    site = f"/var/www/sites/{hosting.id(COPY)}"
    plant = f"mkdir -p {site}/tmp/composer && touch {site}/tmp/planted {site}/tmp/composer/planted {site}/tmp/tried"
    hosting.node.ssh(sandboxed(hosting, COPY, plant))
    meddler = shlex.join(sandboxed(hosting, COPY, MEDDLER.format(site=site), seconds=600))
    hosting.node.ssh(f"{meddler} > /dev/null 2>&1 &")
    yield site
    hosting.node.ssh(sandboxed(hosting, COPY, f"touch {site}/tmp/enough; rm -r {site}/tmp/planted {site}/tmp/composer"))


@contextmanager
def composed(hosting: Hosting, outside: Listener, key: str, site: str, directory: Path) -> Iterator[Run]:
    """A release of code with a composer.json is deployed; what calls is in ``outside``."""
    code = COMPOSER.replace("HOST", outside.address).replace("PORT", str(outside.port))
    code = code.replace("TRIED", f"{site}/tmp/tried")
    hosting.node.ssh("tee /usr/local/bin/composer && chmod 755 /usr/local/bin/composer", input=code)
    outside.calls.clear()
    try:
        release = {"id": str(uuid4()), "source_type": "upload", "source_ref": "upload:x", "revision": None}
        hosting.declare(key, release=release)
        archive = packed(directory / "source.tar.gz", {"composer.json": "{}", "wp-content/mu-plugins/a.php": "<?php"})
        given = json.dumps({"trueup_release_archive": {"path": str(archive)}})
        yield hosting.run("deploy", key, "-e", given)
    finally:
        hosting.node.ssh(["rm", "/usr/local/bin/composer"])


def test_composer_fetches_for_a_copy_before_anything_of_the_site_s_runs(
    hosting: Hosting, outside: Listener, meddled: str, tmp_path: Path
) -> None:
    with composed(hosting, outside, COPY, meddled, tmp_path) as deploy:
        deploy.raise_if_failed()
        assert not reaches(hosting, outside, COPY)
        assert [one for one in outside.calls if one.startswith(b"composer")] == [b"composer-download"]
        package = f"{meddled}/current/wp-content/mu-plugins/package.php"
        assert hosting.node.ssh(["cat", package]).stdout == "<?php // fetched"
        assert hosting.node.ssh(["test", "-e", f"{meddled}/unpacking"], check=False).returncode == 1


@pytest.mark.long
def test_a_new_copy_is_closed_before_its_packages_run(hosting: Hosting, outside: Listener, tmp_path: Path) -> None:
    fresh = "reaching/fresh"
    hosting.declare(fresh)
    try:
        site = f"/var/www/sites/{hosting.id(fresh)}"
        with composed(hosting, outside, fresh, site, tmp_path):
            # The source has no theme, so that no page comes of it; its packages were installed before.
            hosting.node.ssh(f"grep -q fetched {site}/releases/*/wp-content/mu-plugins/package.php")
            after = call(hosting, outside, PRODUCTION, "fsockopen")
            until(lambda: outside.has(after), "production's call to arrive")
            assert [one for one in outside.calls if one.startswith(b"composer")] == [b"composer-download"]
    finally:
        hosting.run("remove", fresh, "-e", f"confirm={hosting.id(fresh)}")
        hosting.environments.pop(fresh, None)


NAMES = {"/run/systemd/resolve": "io.systemd.Resolve", "/run/nscd": "socket"}
"""Where programs of the node's look up names for whoever asks; the lab's nodes have none of their own."""
RESOLVER = """import os, socket, threading

def answer(server):
    while True:
        server.accept()[0].close()  # whoever has a user's name looked up does not wait for it

for place, name in {names}.items():
    os.makedirs(place, exist_ok=True)
    if os.path.exists(place + "/" + name):
        os.unlink(place + "/" + name)
    server = socket.socket(socket.AF_UNIX)
    server.bind(place + "/" + name)
    os.chmod(place + "/" + name, 0o666)
    server.listen()
    threading.Thread(target=answer, args=(server,)).start()
"""
ASK_FOR_NAMES = "echo @stream_socket_client( 'unix://{}', $n, $e, 5 ) ? 'asked' : 'refused', ' ';"


def test_nobody_looks_up_names_for_a_copy(hosting: Hosting) -> None:
    sockets = [f"{place}/{name}" for place, name in NAMES.items()]
    code = "".join(map(ASK_FOR_NAMES.format, sockets))
    program = ["systemd-run", "--unit=lab-names", "--collect", "python3", "-c", RESOLVER.format(names=NAMES)]
    try:
        for is_first in (True, False):
            hosting.node.ssh(program)
            listening = " && ".join(f"ss -Hlx src {one} | grep -q ." for one in sockets)
            hosting.node.ssh(f"until {listening}; do sleep 0.05; done")
            if is_first:  # later on the sockets are others, and its sandbox is as it was
                hosting.node.ssh(["systemctl", "restart", f"trueup-php@{hosting.id(COPY)}.service"])
            assert hosting.php(PRODUCTION, code).split() == ["asked"] * len(NAMES)
            assert hosting.php(COPY, code).split() == ["refused"] * len(NAMES)
            hosting.node.ssh(["systemctl", "stop", "lab-names.service"])
    finally:
        hosting.node.ssh(["systemctl", "stop", "lab-names.service"], check=False)
        hosting.node.ssh(["rm", "-r", *NAMES])


def test_a_second_run_changes_nothing(hosting: Hosting) -> None:
    for key in (COPY, PRODUCTION):
        before = table(hosting)
        assert hosting.apply(key).raise_if_failed().changed == 0
        assert hosting.run("environment", key, "--check").raise_if_failed().changed == 0
        assert table(hosting).split("counter")[0] == before.split("counter")[0]


def test_it_stays_closed_when_the_firewall_is_loaded_anew(hosting: Hosting, outside: Listener) -> None:
    for verb in ("reload", "restart"):
        hosting.node.ssh(["systemctl", verb, "nftables.service"])
        assert not reaches(hosting, outside, COPY)
        assert f"Title of {COPY}" in hosting.php(
            COPY, ASK.format(**dict.fromkeys(("where", "host"), own_name(hosting)))
        )


@pytest.fixture
def mistaken(hosting: Hosting) -> Iterator[None]:
    """The operator's own rules have a mistake, by which nftables refuses all that is read with them."""
    path = "/etc/trueup/firewall.d/mistaken.nft"
    hosting.node.ssh(["tee", path], input="let everybody in\n")
    yield
    unit = "nftables.service"  # which starts only so often, unless it is told to forget that it failed
    hosting.node.ssh(f"rm -f {path} && systemctl reset-failed {unit} && systemctl restart {unit}")


@pytest.mark.long
@pytest.mark.usefixtures("mistaken")
def test_it_stays_closed_when_rules_of_the_operator_s_are_mistaken(hosting: Hosting, outside: Listener) -> None:
    for verb in ("reload", "restart", "start"):
        assert hosting.node.ssh(["systemctl", verb, "nftables.service"], check=False).returncode != 0
        assert not reaches(hosting, outside, COPY), verb
    assert egress(hosting).closed


@pytest.mark.long
def test_it_stays_closed_when_the_firewall_is_stopped(hosting: Hosting, outside: Listener) -> None:
    try:
        hosting.node.ssh(["systemctl", "stop", "nftables.service"])
        assert hosting.node.ssh(["nft", "list", "tables"]).stdout.split() == ["table", "inet", "trueup_egress"]
        assert not reaches(hosting, outside, COPY)
    finally:
        hosting.node.ssh(["systemctl", "start", "nftables.service"])
    assert "table inet trueup\n" in hosting.node.ssh(["nft", "list", "tables"]).stdout


@pytest.mark.long
@pytest.mark.usefixtures("mistaken")
def test_it_is_closed_when_the_node_starts(hosting: Hosting, outside: Listener) -> None:
    hosting.node.reboot()
    until(lambda: hosting.fetch(COPY).status_code == 200, "the copy to serve")
    assert hosting.node.ssh(["systemctl", "is-failed", "nftables.service"]).stdout.strip() == "failed"
    assert not reaches(hosting, outside, COPY)
    assert egress(hosting).closed


def own_name(hosting: Hosting) -> str:
    return str(hosting.environments[COPY]["hostnames"][0])


OPENED = {
    "provisioned by an earlier version": "nft delete table inet trueup_egress; rm -r /etc/trueup/egress.d",
    "its user is taken out": "nft delete element inet trueup_egress closed '{{ {uid} }}'",
    "the rule is taken out": "nft flush chain inet trueup_egress output",
    "refusing is taken out": "nft flush chain inet trueup_egress shut",
    "its file is taken away, and the rules are loaded": "rm /etc/trueup/egress.d/{id}.nft; systemctl reload nftables",
}


@pytest.mark.parametrize("how", sampled(OPENED))
def test_what_opens_it_is_seen_and_put_right(hosting: Hosting, outside: Listener, how: str) -> None:
    try:
        hosting.node.ssh(OPENED[how].format(uid=uid(hosting, COPY), id=hosting.id(COPY)))
        assert reaches(hosting, outside, COPY)
        assert not egress(hosting).closed
        check = hosting.run("environment", COPY, "--check", "--diff").raise_if_failed()
        assert f"egress of wp-{hosting.short(COPY)}" in check.output
    finally:
        hosting.apply(COPY).raise_if_failed()
    assert not reaches(hosting, outside, COPY)
    assert egress(hosting).closed
    assert hosting.apply(COPY).raise_if_failed().changed == 0
    hosting.node.ssh(["systemctl", "restart", "nftables.service"])
    assert not reaches(hosting, outside, COPY)


def test_a_copy_is_opened_and_closed_by_its_document(hosting: Hosting, outside: Listener) -> None:
    hosting.apply(COPY, egress="open").raise_if_failed()
    assert reaches(hosting, outside, COPY)
    assert hosting.apply(COPY).raise_if_failed().changed == 0
    assert f"127.0.0.1 {own_name(hosting)}" in hosting.node.ssh(["cat", "/etc/hosts"]).stdout
    hosting.apply(COPY, egress=None).raise_if_failed()
    assert not reaches(hosting, outside, COPY)


LISTED, UNLISTED = "listed.lab-host.example", "unlisted.lab-host.example"
GET = WORDPRESS + "wp_remote_get( 'http://{host}/{who}', array( 'timeout' => 5 ) ); echo 'said';"


@pytest.fixture(scope="module")
def named(hosting: Hosting, outside: Listener) -> Iterator[None]:
    """The node knows both names, by lines of the operator's; nobody asks a server."""
    lead(hosting, outside.address)
    yield
    hosting.apply(COPY, egress=None).raise_if_failed()
    hosting.node.ssh(["sed", "-i", "/lab-host/d", "/etc/hosts"])


def lead(hosting: Hosting, address: str) -> None:
    """Have the node's own hosts file lead the names elsewhere, by a rename as editors do it."""
    beside = "sed /lab-host/d /etc/hosts > /etc/hosts.lab && cat >> /etc/hosts.lab && mv /etc/hosts.lab /etc/hosts"
    hosting.node.ssh(beside, input=f"{address} {LISTED} {UNLISTED}\n")


def hosts_of(hosting: Hosting) -> dict[str, ObservedHost]:
    return egress(hosting).hosts


def lists(hosting: Hosting, *names: str, internal: tuple[str, ...] = (LISTED,)) -> dict[str, ObservedHost]:
    """Declare the list, and wait until its names were looked up."""
    hosting.apply(COPY, egress=list(names), internal_hosts=list(internal)).raise_if_failed()
    until(
        lambda: (
            set(hosts_of(hosting)) == set(names)
            and all(one.error != "It was not looked up yet." for one in hosts_of(hosting).values())
        ),
        "the names to be looked up",
        told=lambda: str(hosts_of(hosting)),
    )
    return hosts_of(hosting)


def got(hosting: Hosting, outside: Listener, host: str, key: str = COPY) -> bool:
    """Whether WordPress's own request arrives, as production's has that is made after it."""
    who = [f"{one.partition('/')[2]}-get-{len(outside.calls)}" for one in (key, PRODUCTION)]
    hosting.php(key, GET.format(host=host, who=who[0]))
    hosting.php(PRODUCTION, GET.format(host=LISTED, who=f"after-{who[1]}"))
    until(lambda: outside.has(f"/after-{who[1]} "), "production's request to arrive")
    return outside.has(f"/{who[0]} ")


@pytest.mark.usefixtures("named")
def test_a_listed_host_is_reached_and_no_other(hosting: Hosting, outside: Listener) -> None:
    found = lists(hosting, LISTED)
    assert found[LISTED].addresses == (outside.address,)
    assert found[LISTED].error is None
    assert egress(hosting).closed
    assert got(hosting, outside, LISTED)
    assert not got(hosting, outside, UNLISTED), "it is not even looked up"
    for way in ("curl", "fsockopen", "udp", *MAIL):
        assert not reaches(hosting, outside, COPY, way), f"{way}: the ports of HTTP alone"
    neighbour = hosting.environments[PRODUCTION]["hostnames"][0]
    assert hosting.php(COPY, ASK.format(where=hosting.node.address, host=neighbour)) == "refused"
    assert f"Title of {COPY}" in hosting.php(COPY, ASK.format(**dict.fromkeys(("where", "host"), own_name(hosting))))


@pytest.mark.long
@pytest.mark.usefixtures("named")
def test_a_list_is_applied_once_and_stays(hosting: Hosting, outside: Listener) -> None:
    lists(hosting, LISTED)
    assert hosting.apply(COPY).raise_if_failed().changed == 0
    assert hosting.run("environment", COPY, "--check").raise_if_failed().changed == 0
    for verb in ("reload", "restart"):
        hosting.node.ssh(["systemctl", verb, "nftables.service"])
        assert got(hosting, outside, LISTED)
    assert not reaches(hosting, outside, COPY)


@pytest.mark.long
@pytest.mark.usefixtures("named")
def test_where_a_listed_host_leads_now_is_where_it_is_reached(hosting: Hosting, outside: Listener) -> None:
    lists(hosting, LISTED)
    try:
        lead(hosting, "198.18.0.9")
        until(lambda: hosts_of(hosting)[LISTED].addresses == ("198.18.0.9",), "the other address")
        own = hosting.php(COPY, "echo file_get_contents( '/etc/hosts' );")
        assert f"198.18.0.9 {LISTED}" in own
        assert outside.address not in own
        assert hosting.environments[PRODUCTION]["hostnames"][0] not in own, "neighbours are not told"
        lead(hosting, "127.0.0.1")
        until(lambda: hosts_of(hosting)[LISTED].addresses == (), "the address to be refused")
        assert "127.0.0.1 (loopback)" in (hosts_of(hosting)[LISTED].error or "")
    finally:
        lead(hosting, outside.address)
    until(lambda: hosts_of(hosting)[LISTED].addresses == (outside.address,), "the first address")
    until(lambda: got(hosting, outside, LISTED), "the host to be reached again")


@pytest.mark.long
@pytest.mark.usefixtures("named")
def test_what_is_internal_or_not_there_is_told_and_not_reached(hosting: Hosting, outside: Listener) -> None:
    nowhere = "nowhere.lab-host.example"
    found = lists(hosting, LISTED, nowhere, internal=())
    assert {name: one.addresses for name, one in found.items()} == {LISTED: (), nowhere: ()}
    assert f"{outside.address} (private)" in (found[LISTED].error or "")
    assert "does not resolve" in (found[nowhere].error or "")
    assert not got(hosting, outside, LISTED)


@pytest.mark.long
@pytest.mark.usefixtures("named")
def test_a_listed_host_is_reached_when_the_node_starts(hosting: Hosting, outside: Listener) -> None:
    lists(hosting, LISTED)
    try:
        hosting.node.reboot()  # the lab writes a new /etc/hosts at every start, so that the name leads nowhere now
        until(lambda: hosting.fetch(COPY).status_code == 200, "the copy to serve")
        hosting.php(COPY, GET.format(host=LISTED, who="started"))
        until(lambda: outside.has("/started "), "the copy's request")
        assert not reaches(hosting, outside, COPY)
        until(lambda: "does not resolve" in (hosts_of(hosting)[LISTED].error or ""), "the name to be looked up")
        assert hosts_of(hosting)[LISTED].addresses == (outside.address,), "what was known last"
    finally:
        lead(hosting, outside.address)
        for key in (PRODUCTION, COPY):
            hosting.apply(key).raise_if_failed()


HOLD = """#!/usr/bin/python3
import socket, sys, time
with socket.create_connection((sys.argv[1], 443), 5) as there:
    while True:
        there.sendall(b"x")
        time.sleep(0.05)
"""


@contextmanager
def held(hosting: Hosting, address: str) -> Iterator[Callable[[], bool]]:
    """A connection of the copy's that goes on; whether it does."""
    program, said = "/usr/local/bin/lab-hold", "/run/lab-held"
    hosting.node.ssh(f"tee {program} && chmod 755 {program}", input=HOLD)
    with socket.create_server((address, 443)) as server:
        server.settimeout(20)
        run = shlex.join(sandboxed(hosting, COPY, f"{program} {address}", seconds=120))
        hosting.node.ssh(f"rm -f {said}; {{ {run}; echo ended; }} > {said} 2>&1 < /dev/null &")
        connection, _ = server.accept()
        with connection:
            connection.setblocking(False)

            def goes_on() -> bool:
                with suppress(BlockingIOError):
                    while connection.recv(4096):
                        pass
                return "ended" not in hosting.node.ssh(["cat", said]).stdout

            yield goes_on


@pytest.mark.long
@pytest.mark.usefixtures("named")
def test_what_is_listed_no_longer_is_closed_at_once(hosting: Hosting, outside: Listener) -> None:
    lists(hosting, LISTED)
    try:
        with held(hosting, outside.address) as goes_on:
            assert got(hosting, outside, LISTED)
            assert goes_on()
            hosting.apply(COPY, egress=[]).raise_if_failed()
            until(lambda: not goes_on(), "the connection that was there to end")
        assert hosts_of(hosting) == {}
        assert not got(hosting, outside, outside.address)
        assert not got(hosting, outside, LISTED)
        lists(hosting, LISTED)
        hosting.apply(COPY, egress="open").raise_if_failed()
        assert outside.address not in table(hosting)
        assert hosting.id(COPY) not in hosting.node.ssh(["ls", "/var/lib/trueup/egress"]).stdout
    finally:
        hosting.apply(COPY, egress=None).raise_if_failed()
    assert set(hosts_of(hosting)) == {"api.wordpress.org"}
    assert not reaches(hosting, outside, COPY)


@pytest.fixture
def opened(hosting: Hosting) -> Iterator[None]:
    hosting.apply(COPY, egress="open").raise_if_failed()
    yield
    hosting.apply(COPY, egress=None).raise_if_failed()


@pytest.mark.long
@pytest.mark.usefixtures("opened")
def test_a_copy_that_was_opened_writes_to_nobody(hosting: Hosting, outside: Listener) -> None:
    before = egress(hosting)
    assert reaches(hosting, outside, COPY, "curl")
    assert (before.closed, before.refuses_mail) == (False, True)
    assert egress(hosting).refused == before.refused, "what went out does not count as refused"
    for way in MAIL:
        assert not reaches(hosting, outside, COPY, way), way
    assert (egress(hosting).refused or 0) >= (before.refused or 0) + len(MAIL)
    hosting.node.ssh(["systemctl", "restart", "nftables.service"])
    assert not reaches(hosting, outside, COPY, "sendmail")
    assert hosting.apply(COPY).raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.usefixtures("opened")
def test_a_copy_that_was_opened_reaches_no_mail_server_of_its_node(hosting: Hosting) -> None:
    hosting.node.ssh(["systemd-run", "--unit=lab-mail", "--collect", "python3", "-c", MAIL_SERVER])
    try:
        hosting.node.ssh("until ss -Hltn sport = :25 | grep -q .; do sleep 0.05; done", timeout=20)
        for key in (COPY, PRODUCTION):
            who = key.partition("/")[2]
            hosting.node.ssh(sandboxed(hosting, key, f"/usr/local/bin/lab-sendmail 127.0.0.1 {who}"), check=False)
        until(lambda: "production" in heard(hosting), "production's mail to arrive")
        assert "staging" not in heard(hosting)
    finally:
        hosting.node.ssh(["systemctl", "stop", "lab-mail.service"])


def heard(hosting: Hosting) -> str:
    return hosting.node.ssh(["cat", "/run/lab-mail"]).stdout


MAIL_OPENED = {
    "its user is taken out": "nft delete element inet trueup_egress copies '{{ {uid} }}'",
    "the rule is taken out": "nft flush chain inet trueup_egress output",
    "provisioned by an earlier version": "nft delete table inet trueup_egress; rm -r /etc/trueup/egress.d",
}


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("how", sampled(MAIL_OPENED, short=0))
def test_what_lets_mail_out_is_seen_and_put_right(hosting: Hosting, outside: Listener, how: str) -> None:
    hosting.node.ssh(MAIL_OPENED[how].format(uid=uid(hosting, COPY)))
    assert reaches(hosting, outside, COPY, "sendmail")
    assert not egress(hosting).refuses_mail
    check = hosting.run("environment", COPY, "--check", "--diff").raise_if_failed()
    assert f"egress of wp-{hosting.short(COPY)}" in check.output
    hosting.apply(COPY).raise_if_failed()
    assert not reaches(hosting, outside, COPY, "sendmail")
    assert egress(hosting).refuses_mail
    assert reaches(hosting, outside, COPY, "curl")


@pytest.mark.long
def test_a_number_that_was_a_copy_s_is_not_held_against_production(hosting: Hosting, outside: Listener) -> None:
    """The system gives the number of a user who is gone to the next one."""
    copy = f"{OTHER}-copy"
    hosting.apply(copy).raise_if_failed()
    number = uid(hosting, copy)
    hosting.run("remove", copy, "-e", f"confirm={hosting.id(copy)}").raise_if_failed()
    assert f"{number}" not in elements(hosting)
    # As a copy that was taken off the node by hand leaves it.
    stale = f"add element inet trueup_egress closed {{ {number} }}\n"
    hosting.node.ssh(["tee", "/etc/trueup/egress.d/00000000-0000-4000-8000-000000000000.nft"], input=stale)
    hosting.node.ssh(["nft", "--file", "-"], input=stale)
    try:
        hosting.apply(OTHER, type="production").raise_if_failed()
        assert uid(hosting, OTHER) == number
        assert reaches(hosting, outside, OTHER)
        hosting.node.ssh(["systemctl", "restart", "nftables.service"])
        assert reaches(hosting, outside, OTHER)
    finally:
        hosting.run("remove", OTHER, "-e", f"confirm={hosting.id(OTHER)}")
        for key in (copy, OTHER):
            hosting.environments.pop(key, None)


def elements(hosting: Hosting) -> set[str]:
    """The numbers of those that are closed."""
    said = hosting.node.ssh(["nft", "--json", "list", "set", "inet", "trueup_egress", "closed"]).stdout
    found: list[dict[str, Any]] = [one["set"] for one in json.loads(said)["nftables"] if "set" in one]
    return {str(one["elem"]["val"]) for one in found[0].get("elem", ())}
