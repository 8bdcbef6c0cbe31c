"""What a pipeline prints goes to the storage part by part, whatever else its commands say."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
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


@pytest.mark.parametrize("printed", ["", "1", "1234", "12345", "12345678"])
@pytest.mark.parametrize("tail", [b"", b"a", b"abcd", b"abcdefghi"])
def test_a_tail_comes_behind_what_was_printed(parts: list[bytes], printed: str, tail: bytes) -> None:
    urls = [str(number) for number in range(9)]
    sender = transfer.Sender(Run(False, "/nowhere/pending", None), urls, 4)
    found = sender.send([["printf", printed]], lambda: tail)
    assert b"".join(parts) == printed.encode() + tail
    assert {len(part) for part in parts[:-1]} <= {4}
    assert (found["size_bytes"], len(found["etags"])) == (len(printed) + len(tail), len(parts))
    assert found["sha256"] == hashlib.sha256(printed.encode() + tail).hexdigest()


def test_whoever_knows_more_of_a_failure_says_it(parts: list[bytes]) -> None:
    def explain(said: str) -> None:
        raise Failure(f"known: {said}")

    sender = transfer.Sender(Run(False, "/nowhere/pending", None), ["one"], 4)
    with pytest.raises(Failure, match="known: it broke"):
        sender.send([["sh", "-c", "echo it broke >&2; exit 3"]], explain=explain)


def test_complaints_without_end_hold_up_nothing(parts: list[bytes]) -> None:
    """A site with ten thousand files that nobody can read has as many complaints said."""
    sent("yes cannot be read | head -c 1000000 >&2; printf data", "cat")
    assert parts == [b"data"]


def test_the_end_of_what_a_failed_command_said_is_told(parts: list[bytes]) -> None:
    with pytest.raises(Failure, match=r"(?s)could not be read \(\[3, 0\]\): .*the disk is gone") as raised:
        sent("yes no | head -c 300000 >&2; echo the disk is gone >&2; exit 3", "cat")
    assert len(str(raised.value)) < 1200


class Objects(BaseHTTPRequestHandler):
    """Paths that say with which status, how many bytes and out of how many a request is answered."""

    def do_GET(self) -> None:
        status, given, length = map(int, self.path.partition("?")[0].strip("/").split("/"))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(b"x" * given)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def objects() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Objects) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


WANTED = {"size_bytes": 10, "sha256": hashlib.sha256(b"x" * 10).hexdigest()}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("200/9/9", "BACKUP_DAMAGED"),
        ("200/11/11", "BACKUP_DAMAGED"),
        ("404/3/3", "BACKUP_DAMAGED"),
        ("403/3/3", "STORAGE_UNAVAILABLE"),
        ("503/3/3", "STORAGE_UNAVAILABLE"),
        # The connection ended early: the object may be as whole as ever.
        ("200/9/10", "STORAGE_UNAVAILABLE"),
    ],
)
def test_only_an_object_that_came_whole_can_be_a_wrong_one(objects: str, tmp_path: Path, path: str, code: str) -> None:
    transfer.download(f"{objects}/200/10/10?x", str(tmp_path / "good"), WANTED)
    assert (tmp_path / "good").read_bytes() == b"x" * 10
    with pytest.raises(Failure) as failed:
        transfer.download(f"{objects}/{path}?x", str(tmp_path / "bad"), WANTED)
    assert failed.value.facts == {"trueup_code": code}


def test_a_disk_that_is_full_is_no_storage_that_is_away(objects: str) -> None:
    with pytest.raises(Failure, match="No space left on device") as failed:
        transfer.download(f"{objects}/200/10/10?x", "/dev/full", WANTED)
    assert failed.value.facts == {}
    layout = load("environment.layout").Layout("0a1b2c3d-4e5f-4000-8000-000000000000").served
    drill = load("release.drill").Drill(
        None, layout, {}, {"objects": {"full": WANTED}}, {"full": f"{objects}/200/10/10?x"}
    )
    drill.archives = "/dev"
    with pytest.raises(Failure, match="nothing is known of the backup") as failed:
        drill._download()
    assert failed.value.facts == {"trueup_code": "DRILL_NO_ROOM"}
