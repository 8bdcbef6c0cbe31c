"""What a pipeline prints goes to the storage part by part, whatever else its commands say."""

from typing import Any

import pytest

from tests.playbooks.node_modules import load

transfer = load("content.transfer")
Failure, Run = (getattr(load("environment.run"), name) for name in ("Failure", "Run"))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the storage was given."""
    found: list[bytes] = []

    def put(url: str, data: memoryview) -> str:
        found.append(bytes(data))
        return f"{url} {len(data)}"

    monkeypatch.setattr(transfer, "put", put)
    return found


def sent(*commands: str) -> dict[str, Any]:
    sender = transfer.Sender(Run(False, "/nowhere/pending", None), ["one", "two", "three"], 4)
    found: dict[str, Any] = sender.send([["sh", "-c", command] for command in commands])
    return found


def test_parts_are_what_was_printed(parts: list[bytes]) -> None:
    found = sent("printf 1234567890", "cat")
    assert parts == [b"1234", b"5678", b"90"]
    assert (found["etags"], found["size_bytes"]) == (["one 4", "two 4", "three 2"], 10)


def test_complaints_without_end_hold_up_nothing(parts: list[bytes]) -> None:
    """A site with ten thousand files that nobody can read has as many complaints said."""
    sent("yes cannot be read | head -c 1000000 >&2; printf data", "cat")
    assert parts == [b"data"]


def test_the_end_of_what_a_failed_command_said_is_told(parts: list[bytes]) -> None:
    with pytest.raises(Failure, match=r"(?s)could not be read \(\[3, 0\]\): .*the disk is gone") as raised:
        sent("yes no | head -c 300000 >&2; echo the disk is gone >&2; exit 3", "cat")
    assert len(str(raised.value)) < 1200
