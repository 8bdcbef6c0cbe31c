"""Which of the pages that nginx keeps an event is about: keys and messages as data, files as nginx writes them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from reconciler.paths import collection

PROGRAM = collection() / "roles" / "node" / "files" / "page_purge.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page_purge", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


purge = _load()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (b"/", ""),
        (b"/?p=5", ""),
        (b"/index.php", ""),
        (b"/index.php/a/b/?x=/y", "/a/b"),
        (b"//A//b/", "/a/b"),
        (b"/gr%C3%BCn/", "/grün"),
        (b"/gr%c3%bcn", "/grün"),
        (b"/%ff/", "/�"),
    ],
)
def test_addresses_of_one_page_are_one_place(address: bytes, place: str) -> None:
    assert purge.place(address) == place


@pytest.mark.parametrize(
    ("said", "goes", "stays"),
    [
        (b"all\n", ["", "/a", "/a/b"], []),
        (b"page /a/", ["/a", "/a/2", "/a/feed", "/a/comment-page-1"], ["", "/b", "/ab", "/b/a"]),
        (
            b"list /",
            ["", "/page/2", "/feed", "/comments/feed", "/wp-sitemap.xml", "/sitemap-posts.xml"],
            ["/a", "/a/feed"],
        ),
        (b"page /", [""], ["/a"]),
        (
            b"list /category/a/",
            ["/category/a", "/category/a/page/3", "/category/a/feed/atom"],
            ["/category/a/b", "/category"],
        ),
        (b"page /a\nlist /b", ["/a/c", "/b"], ["/b/c"]),
        (b"Page /a\npage a\npage\nlist\nevery /\nallx\n\0\xff", [], ["", "/a"]),
        (b"\n".join(b"page /%d" % n for n in range(purge.MOST_PATHS + 1)), ["", "/elsewhere"], []),
    ],
)
def test_a_message_means_places(said: bytes, goes: list[str], stays: list[str]) -> None:
    targets = purge.Targets()
    targets.read(said, 5.0)
    assert {one: targets.moment(one) for one in goes} == dict.fromkeys(goes, 5.0)
    assert {one: targets.moment(one) for one in stays} == dict.fromkeys(stays)


def test_what_is_said_one_after_the_other_counts_by_its_last_moment() -> None:
    first, second = purge.Targets(), purge.Targets()
    first.read(b"page /a\nlist /b", 1.0)
    second.read(b"page /a", 2.0)
    first.add(second)
    assert (first.moment("/a"), first.moment("/b")) == (2.0, 1.0)
    third = purge.Targets()
    third.read(b"all", 3.0)
    first.add(third)
    assert (first.moment("/a"), first.moment("/c")) == (3.0, 3.0)
    assert not first.pages


def _keep(directory: Path, key: str, began: float | None = None) -> Path:
    """A file as nginx keeps a page: a header of its own, the key, and what PHP said."""
    name = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    path = directory / name[-1] / name[-3:-1] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    said = f"X-Trueup-Began: {began:.6f}\r\n" if began is not None else ""
    record = b"\x01\x06\x00\x01\x00\x00\x00\x00"
    path.write_bytes(os.urandom(330) + f"\nKEY: {key}\n".encode() + record + f"X-A: b\r\n{said}\r\nbody".encode())
    return path


def _sweep(directory: Path, said: bytes, moment: float, *, again: bool = False) -> None:
    targets = purge.Targets()
    targets.read(said, moment)
    for _ in purge.sweep(str(directory), targets, again=again):
        pass


def test_a_look_removes_what_is_meant_with_all_its_variants(tmp_path: Path) -> None:
    meant = [
        "httpGETa.example/p/?x ;currency=/q/",
        "httpGETa.example/p/",
        "httpsGETb.example/p/?utm=1",
        "httpHEADa.example/p",
        "httpsGETa.example/p/page/2/",
    ]
    others = ["httpGETa.example/", "httpGETa.example/pp/", "httpGETp.example/q", "httpGETa.example/q?x=/p/"]
    gone, left = [_keep(tmp_path, key) for key in meant], [_keep(tmp_path, key) for key in others]
    being_written = left[0].with_name(f"{left[0].name}.0000000042")
    being_written.write_text("nginx's")
    _sweep(tmp_path, b"page /p/", 10.0)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in left)
    _sweep(tmp_path, b"all", 10.0)
    assert not any(path.exists() for path in left)
    assert being_written.exists()


def test_a_page_that_began_after_the_event_stays_and_one_that_ended_after_it_goes(tmp_path: Path) -> None:
    early, late = _keep(tmp_path, "httpGETa.example/p/?1", 9.9), _keep(tmp_path, "httpGETa.example/p/?2", 10.1)
    unknown = _keep(tmp_path, "httpGETa.example/p/?3")
    _sweep(tmp_path, b"page /p/", 10.0, again=True)
    assert [early.exists(), late.exists(), unknown.exists()] == [False, True, True]
    _sweep(tmp_path, b"page /p/", 10.0)
    assert [late.exists(), unknown.exists()] == [True, False]


def test_a_page_of_before_the_clock_was_set_back_is_no_newer_than_an_event(tmp_path: Path) -> None:
    now = time.time()
    ahead = _keep(tmp_path, "httpGETa.example/p/?1", now + 3600)
    late = _keep(tmp_path, "httpGETa.example/p/?2", now - 1)
    _sweep(tmp_path, b"page /p/", now - 2)
    assert [ahead.exists(), late.exists()] == [False, True]
    ahead = _keep(tmp_path, "httpGETa.example/p/?1", now + 3600)
    _sweep(tmp_path, b"page /p/", now - 2, again=True)
    assert [ahead.exists(), late.exists()] == [False, True]


def test_a_page_that_php_works_on_for_long_is_looked_for_when_it_can_be_there(tmp_path: Path) -> None:
    site, began = purge.Site(), time.monotonic()
    site.wanted.read(b"all", time.time())
    site.begin(str(tmp_path), began)
    assert site.again.keys() == {int(began) + 1 + seconds for seconds in (2, 30, 120)}


def test_what_waits_for_later_looks_has_a_bound_however_long_the_paths_are(tmp_path: Path) -> None:
    """All sites share the service's memory: one that says as much as it may, all the time, must not end it."""
    site, now = purge.Site(), time.monotonic()
    for n in range(2 * purge.AGAIN_S[-1]):
        said = purge.Targets()
        said.read(b"page /%d/" % n + b"\xff" * 60_000, time.time())
        site.wanted.add(said)
        site.begin(str(tmp_path), now + n / 2)
    waiting = {id(path): path for later in site.again.values() for path in (*later.pages, *later.lists)}
    assert sum(map(sys.getsizeof, waiting.values())) < 4 << 20
    assert all(later for later in site.again.values()), "nothing of it is forgotten"


def test_what_waits_for_later_looks_has_a_bound_however_many_paths_there_are(tmp_path: Path) -> None:
    """Short paths take more memory than their characters: thirty sites that name all they may ended it for all."""
    site, now = purge.Site(), time.monotonic()
    for n in range(2 * purge.AGAIN_S[-1]):
        said = purge.Targets()
        said.read(b"".join(b"page /%d\n" % (n * 240 + one) for one in range(240)), time.time())
        site.wanted.add(said)
        site.begin(str(tmp_path), now + n / 2)
    kept = [part for later in site.again.values() for part in (later.pages, later.lists)]
    paths = {id(path): path for part in kept for path in part}
    assert sum(map(sys.getsizeof, kept)) + sum(map(sys.getsizeof, paths.values())) < 1 << 20
    assert all(later for later in site.again.values()), "nothing of it is forgotten"


def test_many_sites_that_shout_leave_another_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets a slice in its turn, however much there is to be done for the others, and however often they ask."""
    shouting, quiet = range(20), 99
    for uid in (*shouting, quiet):
        (tmp_path / str(uid)).mkdir()
        for n in range(200 if uid in shouting else 1):
            (tmp_path / str(uid) / f"{n:032x}").touch()
    monkeypatch.setattr(purge, "directory_of", lambda uid: str(tmp_path / str(uid)))
    monkeypatch.setattr(purge, "SLICE_S", 0.0)
    monkeypatch.setattr(purge, "PAUSE_S", 0.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        service = purge.Service(listener)
        turns = 0
        while (tmp_path / str(quiet) / f"{0:032x}").exists():
            for uid in (*shouting, *([quiet] if turns > 40 else [])):
                service.sites.setdefault(uid, purge.Site()).wanted.add_all(time.time())
            service._begin(time.monotonic())
            service._advance()
            turns += 1
            assert turns < 40 + 3 * len(shouting)


def test_paths_that_are_too_much_together_are_all_pages() -> None:
    long = b"".join(b"page /%d/%s\n" % (n, b"x" * 4000) for n in range(17))
    targets, other = purge.Targets(), purge.Targets()
    targets.read(long, 1.0)
    assert (targets.all, targets.pages) == (1.0, {})
    targets = purge.Targets()
    targets.read(long[: len(long) // 2], 1.0)
    other.read(b"list /a\n" + b"page /y/" + b"y" * 40_000, 2.0)
    assert (targets.all, other.all) == (None, None)
    targets.add(other)
    assert (targets.all, targets.pages, targets.lists) == (2.0, {}, {})


def test_a_key_without_an_end_is_not_trusted(tmp_path: Path) -> None:
    path = _keep(tmp_path, f"httpGETa.example/{'x' * 20_000}")
    _sweep(tmp_path, b"page /p/", 10.0)
    assert path.exists()
    _sweep(tmp_path, b"all", 10.0)
    assert not path.exists()


def test_whoever_is_no_environments_user_has_no_directory() -> None:
    assert purge.directory_of(0) is None
    assert purge.directory_of(4_000_000) is None


def _is_ended(stream: socket.socket, service: threading.Thread) -> bool:
    """Whether the service ends a connection that it takes; on a busy machine its own time may be over before."""
    stream.settimeout(0.1)
    while service.is_alive():
        with contextlib.suppress(TimeoutError):
            return stream.recv(1) == b""
    return True


def test_connections_of_strangers_are_ended_and_do_not_keep_it_alive(tmp_path: Path) -> None:
    """The service itself, on a socket of its own: this user is no site's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(64)
        listener.setblocking(False)
        service = purge.Service(listener)
        service.heard_at -= purge.IDLE_S - 2
        thread = threading.Thread(target=service.serve)
        thread.start()
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(str(tmp_path / "s"))
                assert _is_ended(stream, thread)
        thread.join()
        assert (service.sites, service.connections) == ({}, {})
