"""Where a listed host is reached: at addresses that were checked, for a time, never at a node's own or a cloud's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.node_modules import load

listed_hosts: Any = load("listed_hosts")
NAME, NOW = "api.example.com", 1_800_000_000
ID, OTHER = "5b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f", "6b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f"
SILENT: dict[str, Any] = {}


def fit(*addresses: str) -> dict[str, str | None]:
    return dict.fromkeys(addresses)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("10.0.0.9", "private"),
        ("127.0.0.1", "loopback"),
        ("127.64.3.230", "loopback"),
        ("::1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("100.100.100.200", "cloud metadata"),
        ("0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("192.88.99.1", None),
    ],
)
def test_nobody_is_let_through_to_what_is_not_public(address: str, kind: str | None) -> None:
    assert listed_hosts.refusal(NAME, address, frozenset()) == kind


def test_what_an_operator_allows_may_be_internal_but_no_name_is_this_node_or_a_cloud_s() -> None:
    refusal, named = listed_hosts.refusal, frozenset({NAME})
    assert refusal(NAME, "10.0.0.9", named) is None
    assert refusal("other.example.com", "10.0.0.9", named) == "private"
    assert refusal("other.example.com", "10.0.0.9", frozenset({"10.0.0.9"})) is None
    for address, kind in (("127.0.0.1", "loopback"), ("169.254.169.254", "link-local")):
        assert refusal(NAME, address, named) == kind
    assert refusal(NAME, "127.0.0.1", frozenset({"127.0.0.1"})) == "the node's own"


def test_an_address_of_this_node_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed_hosts.is_own_address("127.0.0.1")
    assert not listed_hosts.is_own_address("192.0.2.1")
    known = tmp_path / "node.json"
    known.write_text(json.dumps({"variables": {"address": "192.0.2.1"}}))
    monkeypatch.setattr(listed_hosts, "NODE", str(known))
    assert listed_hosts.is_own_address("192.0.2.1"), "by which others know it, whatever its own network calls it"


def test_an_address_that_goes_is_let_through_a_while_and_named_no_longer() -> None:
    first = listed_hosts.merged(SILENT, fit("8.8.8.8"), NOW)
    then = listed_hosts.merged(first, fit("9.9.9.9"), NOW + 120)
    assert (then["current"], set(then["addresses"])) == (["9.9.9.9"], {"8.8.8.8", "9.9.9.9"})
    later = listed_hosts.merged(then, fit("9.9.9.9"), NOW + 2 * listed_hosts.LEAVING_S)
    assert (later["current"], set(later["addresses"])) == (["9.9.9.9"], {"9.9.9.9"})


def test_what_is_the_same_is_not_written_anew_each_time() -> None:
    first = listed_hosts.merged(SILENT, fit("8.8.8.8"), NOW)
    assert listed_hosts.merged(first, fit("8.8.8.8"), NOW + 120) == first
    assert listed_hosts.merged(first, fit("8.8.8.8"), NOW + 600)["addresses"] == {"8.8.8.8": NOW + 600}


def test_a_name_that_does_not_resolve_keeps_its_addresses_for_a_time() -> None:
    first = listed_hosts.merged(SILENT, fit("8.8.8.8"), NOW)
    broken = listed_hosts.merged(first, "It does not resolve.", NOW + listed_hosts.KEPT_S - 1)
    assert (broken["current"], broken["error"]) == (["8.8.8.8"], "It does not resolve.")
    assert broken["addresses"] == {"8.8.8.8": NOW}
    ended = listed_hosts.merged(broken, "It does not resolve.", NOW + listed_hosts.KEPT_S)
    assert (ended["current"], ended["addresses"]) == ([], {})
    assert listed_hosts.merged(ended, fit("8.8.8.8"), NOW)["error"] is None


def test_a_clock_that_was_set_back_keeps_nothing_for_ever() -> None:
    ahead = listed_hosts.merged(SILENT, fit("8.8.8.8"), NOW + 10 * listed_hosts.KEPT_S)
    broken = listed_hosts.merged(ahead, "It does not resolve.", NOW)
    assert broken["addresses"] == {"8.8.8.8": NOW}
    assert listed_hosts.merged(broken, "It does not resolve.", NOW + listed_hosts.KEPT_S)["addresses"] == {}


def test_of_many_addresses_a_few_are_taken_and_those_that_were_taken_stay() -> None:
    many = [f"8.8.{number // 250}.{number % 250 + 1}" for number in range(400)]
    first = listed_hosts.merged(SILENT, fit(*many), NOW)
    assert first["current"] == many[: listed_hosts.MOST_ADDRESSES]
    assert listed_hosts.merged(first, fit(*reversed(many)), NOW + 1)["current"] == first["current"]
    found = first
    for turn in range(60):
        found = listed_hosts.merged(found, fit(*many[turn * 6 : turn * 6 + 6]), NOW + turn)
    assert len(found["addresses"]) == listed_hosts.MOST_LET_THROUGH
    assert set(found["current"]) <= found["addresses"].keys()


def test_what_is_unfit_is_told_and_the_rest_is_let_through() -> None:
    found = listed_hosts.merged(SILENT, {"10.0.0.9": "private", "8.8.8.8": None}, NOW)
    assert (found["current"], list(found["addresses"])) == (["8.8.8.8"], ["8.8.8.8"])
    assert "10.0.0.9 (private)" in found["error"]
    assert listed_hosts.without(found, lambda text: text == "8.8.8.8")["addresses"] == {}


NODE_HOSTS = f"""127.0.0.1 localhost
# What an operator keeps.
192.0.2.4 db.internal api.example.com
192.0.2.5 Mail.internal
127.64.3.230 own.example # trueup {ID}
127.0.0.1 neighbour.example # trueup {OTHER}
"""


def test_a_copy_s_hosts_file_has_its_own_names_and_its_list_and_no_neighbour() -> None:
    text = listed_hosts.hosts_text(NODE_HOSTS, ID, {NAME: ["8.8.8.8", "2606:4700::1111"]})
    assert text.splitlines()[1:] == [
        "127.0.0.1 localhost",
        "# What an operator keeps.",
        "192.0.2.5 Mail.internal",
        f"127.64.3.230 own.example # trueup {ID}",
        f"8.8.8.8 {NAME}",
        f"2606:4700::1111 {NAME}",
    ]


@pytest.mark.parametrize("said", ["", "[]", "{", '{"hosts": [1, "no", "*.example.com", "a.b\\n1.2.3.4 c.example"]}'])
def test_a_list_that_is_none_lists_nobody(said: str, tmp_path: Path) -> None:
    (tmp_path / f"{ID}.json").write_text(said)
    assert listed_hosts.Listed(ID, lists=str(tmp_path)).said() == ([], frozenset())
    with pytest.raises(ValueError, match="no environment"):
        listed_hosts.Listed("../../etc/passwd")


NO_STATE = (None, 3, {}, {"addresses": {"no": 1}, "current": [], "error": None}, {"addresses": []})


@pytest.mark.parametrize("known", NO_STATE)
def test_what_is_nothing_of_the_kind_is_not_known(known: Any) -> None:
    assert listed_hosts.sane(known) is None
    found = listed_hosts.merged(SILENT, fit("8.8.8.8"), NOW)
    assert listed_hosts.sane(json.loads(json.dumps(found))) == found


def test_a_name_that_was_not_looked_up_yet_is_not_known(tmp_path: Path) -> None:
    """There is no such user here, so that no firewall is asked."""
    one = listed_hosts.Listed(ID, lists=str(tmp_path), state=str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    (tmp_path / f"{ID}.json").write_text(json.dumps({"hosts": [NAME, "other.example.com"], "internal": []}))
    one.settle()
    assert not Path(one.state).exists()
    one.settle({NAME: ["8.8.8.8"], "unlisted.example.com": ["8.8.4.4"]}, now=NOW)
    assert json.loads(Path(one.state).read_text()) == {NAME: listed_hosts.merged(SILENT, fit("8.8.8.8"), NOW)}
    lines = Path(one.hosts).read_text().splitlines()
    assert f"8.8.8.8 {NAME}" in lines
    assert "8.8.4.4" not in "".join(lines)


def test_what_is_told_of_a_name_is_in_force_by_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it may connect."""
    one = listed_hosts.Listed(ID, lists=str(tmp_path), state=str(tmp_path))
    (tmp_path / f"{ID}.json").write_text(json.dumps({"hosts": [NAME], "internal": []}))
    one.state, there = str(tmp_path / "told"), list[tuple[Sequence[str], bool]]()

    def let_through(addresses: Sequence[str]) -> None:
        there.append((addresses, Path(one.state).exists()))

    def overwrite(path: str, text: str) -> None:
        there.append(([NAME] if f"8.8.8.8 {NAME}" in text else [], Path(one.state).exists()))

    monkeypatch.setattr(one, "_let_through", let_through)
    monkeypatch.setattr(listed_hosts, "_overwrite", overwrite)
    one.settle({NAME: ["8.8.8.8"]}, now=NOW)
    assert there == [(["8.8.8.8"], False), ([NAME], False)]
    assert "8.8.8.8" in Path(one.state).read_text()


def test_a_hosts_file_is_written_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    listed_hosts._overwrite(str(path), "127.0.0.1 localhost\n8.8.8.8 api.example.com\n")
    number = path.stat().st_ino
    listed_hosts._overwrite(str(path), "127.0.0.1 localhost\n")
    assert path.read_text() == "127.0.0.1 localhost\n"
    assert path.stat().st_ino == number, "what has it mounted sees it"


def test_who_answers_late_has_no_answer_and_delays_nobody() -> None:
    def ask(name: str) -> Sequence[str] | str:
        if name == "late.example.com":
            time.sleep(3600)
        return "It does not resolve." if name == "gone.example.com" else ["8.8.8.8", "8.8.4.4"]

    names = [NAME, "late.example.com", "gone.example.com"]
    # One is waited for to the end: that there is time for the others is the machine's to say.
    looks = (listed_hosts.look_up(names, seconds, ask) for seconds in (1.0, 5.0, 60.0))
    found = next((one for one in looks if "in time" not in f"{one[NAME]}{one['gone.example.com']}"), None)
    assert found == {
        NAME: ["8.8.8.8", "8.8.4.4"],
        "late.example.com": "DNS gave no answer in time.",
        "gone.example.com": "It does not resolve.",
    }


def test_more_names_that_are_late_than_are_asked_at_once_end_all_the_same() -> None:
    names = [f"late-{number}.example.com" for number in range(3 * listed_hosts.AT_ONCE)]
    assert set(listed_hosts.look_up(names, 1.0, lambda _: time.sleep(3600)).values()) == {"DNS gave no answer in time."}


def test_names_are_looked_up_without_rights() -> None:
    found = listed_hosts.look_up([NAME], 60.0, lambda _: f"{os.geteuid()} {os.environ['LOCALDOMAIN']!r}")
    assert found == {NAME: f"{listed_hosts.NOBODY if os.geteuid() == 0 else os.geteuid()} ''"}


def test_an_answer_that_is_no_address_is_none() -> None:
    assert listed_hosts.look_up([NAME], 60.0, lambda _: ["8.8.8.8; flush ruleset"]) == {
        NAME: "DNS gave no answer in time."
    }
    assert listed_hosts.look_up(["localhost"], 60.0)["localhost"][-1:] == ["127.0.0.1"]
