"""What the probe says of what goes out: by rules that are not whole nobody is closed; what a site counts is numbers."""

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.observed import ObservedEgress
from reconciler.nodes import probe
from tests.playbooks.node_modules import load

UID = 998


def lets_through(protocol: str, name: str) -> list[dict[str, Any]]:
    pair = {"concat": [{"meta": {"key": "skuid"}}, {"payload": {"protocol": protocol, "field": "daddr"}}]}
    ports = {"left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [80, 443]}}
    return [
        {"match": {"op": "==", "left": pair, "right": f"@{name}"}},
        {"match": {"op": "==", **ports}},
        {"accept": None},
    ]


LISTING: dict[str, Any] = {
    "nftables": [
        {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "trueup_egress", "handle": 3}},
        {"set": {"name": "closed", "type": "uid", "elem": [{"elem": {"val": UID, "counter": {"packets": 7}}}]}},
        {"set": {"name": "copies", "type": "uid", "elem": [{"elem": {"val": UID, "counter": {"packets": 4}}}]}},
        {"set": {"name": "fetching", "type": "gid"}},
        {"set": {"name": "own", "type": ["uid", "ipv4_addr"], "elem": [{"concat": [UID, "127.64.3.230"]}]}},
        {"set": {"name": "listed", "type": ["uid", "ipv4_addr"], "elem": [{"concat": [UID, "203.0.113.7"]}]}},
        {"set": {"name": "listed6", "type": ["uid", "ipv6_addr"]}},
        {"chain": {"name": "output", "type": "filter", "hook": "output", "prio": 0, "policy": "accept"}},
        {"chain": {"name": "shut"}},
        {"rule": {"chain": "output", "expr": [{"accept": None}]}},
        {"rule": {"chain": "output", "expr": lets_through("ip", "listed")}},
        {"rule": {"chain": "output", "expr": lets_through("ip6", "listed6")}},
        {"rule": {"chain": "output", "expr": probe.SHUT_OUT}},
        {"rule": {"chain": "output", "expr": probe.NO_MAIL}},
        {"rule": {"chain": "shut", "expr": [{"match": {}}, {"reject": {"type": "tcp reset"}}]}},
        {"rule": {"chain": "shut", "expr": [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}},
    ]
}
"""As nft 1.0.6 tells it, without what nobody reads."""


class User:
    pw_uid, pw_name = UID, "wp-0123456789ab"


NOBODY: dict[str, dict[Any, int]] = {"closed": {}, "copies": {}}
EVERYBODY: dict[str, dict[Any, int]] = {"closed": {UID: 7}, "copies": {UID: 4}}


def seen(listing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, dict[Any, int]] | None, str]:
    """Whose packets are refused as the probe sees it, and whom the user reaches for the module that closes."""
    tool = tmp_path / "nft"
    tool.write_text(
        "#!/bin/sh\ncat <<'END'\n" + (listing if isinstance(listing, str) else json.dumps(listing)) + "\nEND\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return probe._refused_users(), load("environment.egress").Rules.found().reach(User)


def test_who_is_in_the_set_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(LISTING, tmp_path, monkeypatch) == (EVERYBODY, "closed")
    named = deepcopy(LISTING)
    named["nftables"][2]["set"]["elem"][0]["elem"]["val"] = User.pw_name
    assert seen(named, tmp_path, monkeypatch) == (EVERYBODY | {"closed": {User.pw_name: 7}}, "closed")


def without(listing: dict[str, Any], word: str) -> dict[str, Any]:
    """The listing without the sets of this name and the rules that name it."""
    lacking = [one for one in listing["nftables"] if f'{word}"' not in json.dumps(one)]
    return {"nftables": lacking}


def test_of_who_is_not_closed_the_mail_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = deepcopy(LISTING)
    del opened["nftables"][2]["set"]["elem"]
    assert seen(opened, tmp_path, monkeypatch) == (NOBODY | {"copies": {UID: 4}}, "open but for mail")
    # As an earlier version had it.
    assert seen(without(LISTING, "copies"), tmp_path, monkeypatch) == (NOBODY | {"closed": {UID: 7}}, "closed")
    for lacking in ("copies", "listed", "listed6"):
        assert not load("environment.egress").Rules(without(LISTING, lacking)).is_whole
    assert load("environment.egress").Rules(LISTING).is_whole


LACKING = {
    "closed": (NOBODY | {"copies": {UID: 4}}, "open but for mail"),
    "copies": (NOBODY | {"closed": {UID: 7}}, "closed"),
}
"""What is seen without one of the sets, or the rule that names it."""


@pytest.mark.parametrize("number", range(2, len(LISTING["nftables"])))
def test_rules_that_lack_a_part_close_nobody(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = deepcopy(LISTING)
    part = lacking["nftables"].pop(number)
    name = part.get("set", {}).get("name")
    # Whatever lets somebody through refuses nobody.
    harmless = (
        name in {"fetching", "own", "listed", "listed6"} or "accept" in part.get("rule", {}).get("expr", [{}])[-1]
    )
    # A chain that a rule is in cannot be lacking; the one that a packet comes to has to be there.
    harmless = harmless or part.get("chain", {}).get("name") == "shut"
    if part.get("rule", {}).get("expr") in (probe.SHUT_OUT, probe.NO_MAIL):
        name = "closed" if part["rule"]["expr"] == probe.SHUT_OUT else "copies"
    expected = LACKING.get(name, (NOBODY, "open"))
    assert seen(lacking, tmp_path, monkeypatch) == ((EVERYBODY, "closed") if harmless else expected)


@pytest.mark.parametrize("said", ["", "[]", "null", "{}", '{"nftables": [1]}', "Error: No such file or directory"])
def test_what_is_no_listing_closes_nobody(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(said, tmp_path, monkeypatch) == (NOBODY, "open")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site" / "logs").mkdir(parents=True)
    return tmp_path / "site"


def test_what_was_stopped_is_what_the_site_has_counted(site: Path) -> None:
    assert probe._stopped(str(site)) == {}
    (site / "logs" / "stopped.json").write_text('{"mails": 3, "events": 0, "more": 1}')
    assert probe._stopped(str(site)) == {"mails": 3, "events": 0}


NO_COUNT = ("", "[]", "3", "[" * 4000, '{"mails": 3}' + " " * 5000, "\0")
NO_NUMBER = ("-1", "true", "1.5", '"3"', "1e400", "9" * 20, "null", "{}")


@pytest.mark.parametrize("text", [*NO_COUNT, *(f'{{"mails": {one}}}' for one in NO_NUMBER)])
def test_a_count_that_is_none_is_not_told(site: Path, text: str) -> None:
    (site / "logs" / "stopped.json").write_text(text)
    assert probe._stopped(str(site)) == {}


def test_no_link_is_followed_and_nothing_is_waited_for(site: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"mails": 3}')
    (site / "logs" / "stopped.json").symlink_to(tmp_path / "other.json")
    assert probe._stopped(str(site)) == {}
    (site / "logs" / "stopped.json").unlink()
    os.mkfifo(site / "logs" / "stopped.json")
    assert probe._stopped(str(site)) == {}
    (site / "logs" / "stopped.json").unlink()
    (site / "logs").rmdir()
    (site / "logs").symlink_to(tmp_path)
    (tmp_path / "stopped.json").write_text('{"mails": 3}')
    assert probe._stopped(str(site)) == {}


def told(lists: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the probe says of an environment's hosts, by what root has written of them."""
    for name, text in (("EGRESS_LISTS", lists), ("EGRESS_STATE", state)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "one.json").write_text(text)
        monkeypatch.setattr(probe, name, str(tmp_path / name))
    return probe._listed_hosts("one")


def test_listed_hosts_are_told_with_where_they_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = json.dumps({"hosts": ["a.example.com", "b.example.com", "c.example.com"], "internal": []})
    found = {"current": ["203.0.113.7"], "addresses": {"203.0.113.7": 1, "203.0.113.8": 1}, "error": None}
    gone = {"current": [], "addresses": {}, "error": "It does not resolve."}
    state = json.dumps({"a.example.com": found, "b.example.com": gone, "unlisted.example.com": found})
    said = told(lists, state, tmp_path, monkeypatch)
    assert said == {
        "a.example.com": {"addresses": ["203.0.113.7"], "error": None},
        "b.example.com": {"addresses": [], "error": "It does not resolve."},
        "c.example.com": {"addresses": [], "error": "It was not looked up yet."},
    }
    assert ObservedEgress.model_validate({"closed": True, "hosts": said}).hosts["a.example.com"].error is None
    for broken in ("", "[]", "{", "null", '{"hosts": 3}', '{"hosts": [[]]}'):
        assert told(broken, state, tmp_path, monkeypatch) == {}
    for broken in ("[]", "{", '{"a.example.com": 3}'):
        assert told(lists, broken, tmp_path, monkeypatch) == {}
