"""Whoever types an address sends this control plane to what was checked, and nowhere else.

Names change their mind here: each case has a network and a name server of its own. Without root there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler import addresses
from reconciler.core.errors import SourceRefused
from reconciler.sources import hosts
from tests.playbooks.node_modules import load
from tests.proof import sampled
from tests.sources.rebinding import NAME, PUBLIC

on_a_network = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own takes root")

FIRST_PUBLIC = [[PUBLIC], ["127.0.0.1"]]
GIT, SSH, HTTPS = f"git://{NAME}/site.git", f"ssh://git@{NAME}/site.git", f"https://{NAME}/site.git"
GIT_PORT, SSH_PORT, HTTPS_PORT = 9418, 22, 443


def case(**wanted: Any) -> dict[str, Any]:
    return {"serves": "none", "allowed": [], **wanted}


REBINDING = {
    "git": case(source_ref=GIT, port=GIT_PORT, serves="git", answers=FIRST_PUBLIC),
    "git at another port": case(
        source_ref=f"git://{NAME}:9500/site.git", port=9500, serves="git", answers=FIRST_PUBLIC
    ),
    "ssh": case(source_ref=SSH, port=SSH_PORT, answers=FIRST_PUBLIC),
    "ssh, in its short form": case(source_ref=f"git@{NAME}:site.git", port=SSH_PORT, answers=FIRST_PUBLIC),
    "ssh at another port": case(source_ref=f"ssh://git@{NAME}:2222/site.git", port=2222, answers=FIRST_PUBLIC),
    "https": case(source_ref=HTTPS, port=HTTPS_PORT, answers=FIRST_PUBLIC),
    "a download": case(url=f"http://{NAME}:8080/", port=8080, serves="web", answers=FIRST_PUBLIC),
    "a redirect": case(url=f"http://{NAME}:8080/first", port=8080, serves="web", answers=FIRST_PUBLIC),
}
REFUSED = {
    f"{name}, {how}": wanted | {"answers": answers}
    for name, wanted in REBINDING.items()
    for how, answers in {"inside at once": [["127.0.0.1"]], "inside, too": [[PUBLIC, "127.0.0.1"]]}.items()
    if "port" not in name and "form" not in name and name != "a redirect"
}


@on_a_network
@pytest.mark.parametrize("name", sampled(REBINDING, short=4))
def test_a_name_that_changes_its_mind_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    found = asked(tmp_path, REBINDING[name])
    assert found["loopback"] == 0, found
    assert found["public"] >= 1, found


@on_a_network
@pytest.mark.parametrize("name", sampled(REFUSED, short=2))
def test_nobody_is_connected_to_when_one_address_of_a_name_is_inside(name: str, tmp_path: Path) -> None:
    found = asked(tmp_path, REFUSED[name])
    assert (found["public"], found["loopback"]) == (0, 0), found
    assert found["said"].startswith("source_refused: "), found
    assert "internal address (loopback)" in found["said"]


@on_a_network
def test_a_redirect_is_looked_at_like_the_first_address(tmp_path: Path) -> None:
    found = asked(tmp_path, REBINDING["a redirect"])
    assert found["said"].startswith("source_refused: "), found
    assert "example.org" in (tmp_path / "request").read_text()


@on_a_network
@pytest.mark.parametrize("port", [GIT_PORT, 9500])
def test_a_server_of_many_hosts_hears_for_which_of_them_it_is_asked(port: int, tmp_path: Path) -> None:
    """A git:// server that tells hosts apart by name serves the repository of this one alone."""
    url = GIT if port == GIT_PORT else f"git://{NAME}:{port}/site.git"
    found = asked(tmp_path, case(source_ref=url, port=port, serves="git", answers=[[PUBLIC]]))
    assert (found["said"], found["result"], found["loopback"]) == (None, "index.php", 0), found


NAMED = {
    what: case(named=what, port=port, serves="web" if "TLS" not in what and "mail" not in what else "none")
    for what, port in {
        "a webhook": 80,
        "a webhook with TLS": 443,
        "a mail server": 25,
        "a mail server with TLS": 465,
        "a forge": 3000,
        "a forge with TLS": 443,
        "a storage": 9000,
        "a storage with TLS": 443,
    }.items()
}


@on_a_network
@pytest.mark.parametrize("what", sampled(NAMED, short=3))
def test_a_host_that_an_operator_named_leads_nowhere_else_either(what: str, tmp_path: Path) -> None:
    found = asked(tmp_path, NAMED[what] | {"answers": FIRST_PUBLIC})
    assert found["loopback"] == 0, found
    assert found["public"] >= 1, found
    if NAMED[what]["serves"] == "web":
        assert f"Host: {NAME}" in (tmp_path / "request").read_text().replace("host:", "Host:"), (
            "and it is asked for by name"
        )


@on_a_network
@pytest.mark.parametrize(
    "inside",
    sampled(["169.254.169.254", "127.0.0.1", "100.100.100.200"]),
)
@pytest.mark.parametrize("what", sampled([one for one in NAMED if "TLS" not in one]))
def test_neither_does_its_name_lead_to_what_is_this_hosts_alone(what: str, inside: str, tmp_path: Path) -> None:
    found = asked(tmp_path, NAMED[what] | {"answers": [[inside]]})
    assert (found["public"], found["loopback"]) == (0, 0), found
    found = asked(tmp_path, NAMED[what] | {"answers": [[PUBLIC, inside]]})
    assert (found["public"], found["loopback"]) == (0, 0), found


def test_this_host_may_be_named_by_its_address_or_its_own_name() -> None:
    for name in ("127.0.0.1", "localhost", "[::1]", "10.0.0.1"):
        assert addresses.named_addresses(name, 80)


PUBLIC_ONES = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822")
INTERNAL = {
    "loopback": ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    "link-local": ("169.254.169.254", "fe80::1", "::ffff:169.254.169.254"),
    "private": ("10.1.2.3", "172.16.0.1", "192.168.0.1", "fd00::1", "::ffff:10.0.0.1", "192.0.2.1"),
    "cloud metadata": ("168.63.129.16", "100.100.100.200", "192.0.0.192", "::ffff:168.63.129.16"),
    "multicast": ("224.0.0.1", "ff02::1"),
    "unspecified": ("0.0.0.0", "::", "0.1.2.3"),
    "reserved": ("100.64.0.1", "4000::1"),
}


@pytest.mark.parametrize("address", PUBLIC_ONES)
def test_public_addresses_may_be_gone_to(address: str) -> None:
    assert hosts.addresses_of(address, 443, ()) == [address]


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, ones in INTERNAL.items() for one in ones])
def test_internal_addresses_need_an_operators_word(kind: str, address: str) -> None:
    assert addresses.kind_of(address) == kind
    with pytest.raises(SourceRefused, match="internal"):
        hosts.addresses_of(address, 443, ("93.184.216.34",))
    assert hosts.addresses_of(address, 443, (address,)) == [address]


@pytest.mark.parametrize("address", [*PUBLIC_ONES, *(one for ones in INTERNAL.values() for one in ones)])
def test_a_node_judges_addresses_likewise(address: str) -> None:
    import ipaddress

    assert load("site_import.url").kind_of(ipaddress.ip_address(address)) == addresses.kind_of(address)


@pytest.mark.parametrize("host", ["0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]"])
def test_a_number_in_disguise_is_what_it_is(host: str) -> None:
    with pytest.raises(SourceRefused, match="internal"):
        hosts.addresses_of(host, 443, ())


@on_a_network
@pytest.mark.parametrize(
    ("inside", "is_open"),
    [("10.1.2.3", True), ("127.0.0.1", False), ("169.254.169.254", False), ("100.100.100.200", False)],
)
def test_a_name_that_is_allowed_may_be_private_and_no_more(inside: str, is_open: bool, tmp_path: Path) -> None:
    wanted = case(url=f"http://{NAME}:8080/", port=8080, answers=[[inside]], allowed=[NAME])
    said = asked(tmp_path, wanted)["said"]
    assert said.startswith("source_unavailable: " if is_open else "source_refused: "), said


def asked(work: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sources.rebinding", str(work)],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
