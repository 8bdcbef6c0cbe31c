"""A network of its own, run as a program: a name server that changes its mind, and who is connected to what.

``python -m tests.sources.rebinding WORK`` reads as JSON from standard input what to do: ``source_ref`` (a repository)
or ``url`` (a download). It enters a network namespace where ``PUBLIC`` and 127.0.0.1 are its own, asks, and prints
``said`` (the refusal, or null), ``result``, ``public`` and ``loopback`` (connections), ``asked`` (look-ups of a name).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset

from reconciler.core.errors import SourceRefused, SourceUnavailable, StorageError
from reconciler.core.manifests import Storage as Declared
from reconciler.core.receivers import Smtp
from reconciler.forges.client import Client
from reconciler.forges.model import ForgeError
from reconciler.loop.sending import post, send_mail
from reconciler.sources.downloads import download
from reconciler.sources.git import Git, GitSource
from reconciler.storage.bucket import Storage
from reconciler.storage.secret_store import Secrets

PUBLIC = "93.184.216.34"
"""An address of somebody's; here it is this network's own."""
NAME = "code.example.org"
CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE, MS_BIND = 0x20000, 0x40000000, 0x4000, 0x40000, 0x1000


class Listener:
    """Takes connections at an address and port; each is counted and handed to ``serve``."""

    def __init__(self, address: str, port: int, serve: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._serve = serve
        self._socket = socket.create_server((address, port))
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            taken, _ = self._socket.accept()
            self.connections += 1
            threading.Thread(target=self._served, args=(taken,), daemon=True).start()

    def _served(self, taken: socket.socket) -> None:
        with taken:
            self._serve(taken)


def enter_network(work: Path) -> None:
    """Loopback and ``PUBLIC`` alone, with the name server of this network."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS | CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    for argv in (["link", "set", "lo", "up"], ["address", "add", f"{PUBLIC}/32", "dev", "lo"]):
        subprocess.run(["ip", *argv], check=True)
    files = {"/etc/resolv.conf": "nameserver 127.0.0.1\n", "/etc/nsswitch.conf": "hosts: files dns\n"}
    for number, (path, text) in enumerate(files.items()):
        mine = work / f"etc{number}"
        mine.write_text(text)
        assert libc.mount(str(mine).encode(), path.encode(), None, MS_BIND, None) == 0, os.strerror(ctypes.get_errno())


def name_server(answers: list[list[str]], asked: Counter[str]) -> None:
    """For each look-up of a name the next of ``answers``; the last of them for all that follow."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def serve() -> None:
        while True:
            data, client = server.recvfrom(4096)
            query = dns.message.from_wire(data)
            question = query.question[0]
            reply = dns.message.make_response(query)
            if question.rdtype == dns.rdatatype.A:
                found = answers[min(asked[str(question.name)], len(answers) - 1)]
                asked[str(question.name)] += 1
                reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", "A", *found))
            server.sendto(reply.to_wire(), client)

    threading.Thread(target=serve, daemon=True).start()


def git_daemon(work: Path, port: int) -> Callable[[socket.socket], None]:
    """What a connection to `git daemon` at another port of ``PUBLIC`` is led to; it serves ``NAME`` alone."""
    repository = work / NAME / "site.git"
    source = work / "source"
    run = ["git", "-c", "user.name=G", "-c", "user.email=g@example.com", "-C", str(source)]
    subprocess.run(["git", "init", "-q", "-b", "main", str(source)], check=True)
    (source / "index.php").write_text("<?php\n")
    subprocess.run([*run, "add", "-A"], check=True)
    subprocess.run([*run, "commit", "-q", "-m", "First"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(source), str(repository)], check=True)
    argv = ["git", "daemon", "--reuseaddr", "--export-all", f"--listen={PUBLIC}", f"--port={port}"]
    subprocess.Popen([*argv, f"--interpolated-path={work}/%H/%D", str(work)], stdin=subprocess.DEVNULL)
    return lambda taken: relay(taken, port)


def relay(taken: socket.socket, port: int) -> None:
    for _ in range(1000):
        try:
            other = socket.create_connection((PUBLIC, port))
            break
        except OSError:
            time.sleep(0.05)
    back = threading.Thread(target=pour, args=(other, taken), daemon=True)
    back.start()
    pour(taken, other)
    back.join()


def pour(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def web_server(work: Path) -> Callable[[socket.socket], None]:
    def serve(taken: socket.socket) -> None:
        request = taken.recv(1 << 16).decode()
        where = f"http://{NAME}:8080/second"
        answer = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
        if " /first " not in request:
            answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        (work / "request").write_text(request)
        taken.sendall(answer.encode())

    return serve


def silence(taken: socket.socket) -> None:
    """Say nothing, and hear at most a greeting."""
    taken.settimeout(2)
    try:
        taken.recv(100)
    except OSError:
        return


def main(work: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    enter_network(work)
    asked: Counter[str] = Counter()
    name_server(wanted["answers"], asked)
    port = wanted["port"]
    serve = {"git": lambda: git_daemon(work, 9999), "web": lambda: web_server(work), "none": lambda: silence}
    public = Listener(PUBLIC, port, serve[wanted["serves"]]())
    loopback = Listener("127.0.0.1", port, silence)
    said, result = None, None
    try:
        result = ask(work, wanted)
    except (SourceRefused, SourceUnavailable) as error:
        said = f"{error.code}: {error.message}"
    return {
        "said": said,
        "result": result,
        "public": public.connections,
        "loopback": loopback.connections,
        "asked": sum(asked.values()),
    }


def ask_named(what: str, port: int) -> str:
    """Of a host that an operator named: a web or a mail server that is sent something, a forge, a storage."""
    if what in {"a webhook", "a webhook with TLS"}:
        scheme = "https" if "TLS" in what else "http"
        return str(post(f"{scheme}://{NAME}:{port}/hook", b"{}", {}))
    if what.startswith("a mail server"):
        smtp = Smtp(host=NAME, port=port, sender="a@example.com", security="tls" if "TLS" in what else "none")
        return str(send_mail(EmailMessage(), "b@example.com", smtp, None))
    if what.startswith("a forge"):
        try:
            return str(
                Client(f"{'https' if 'TLS' in what else 'http'}://{NAME}:{port}", ("X-Token", "t")).ask("GET", "/x")
            )
        except ForgeError as error:
            return str(error)
    with TemporaryDirectory() as keys:
        secrets = Secrets(Path(keys))
        secrets.put("backups", {"access_key": "k" * 10, "secret_key": "s" * 10})
        endpoint = f"{'https' if 'TLS' in what else 'http'}://{NAME}:{port}"
        storage = Storage(Declared(endpoint=endpoint, bucket="backups"), secrets)
        try:
            return storage.get("x").decode()
        except StorageError as error:
            return error.message


def ask(work: Path, wanted: dict[str, Any]) -> str:
    if what := wanted.get("named"):
        return ask_named(what, wanted["port"])
    if url := wanted.get("url"):
        download(url, work / "answer", allowed=wanted["allowed"], most_bytes=100, timeout_s=120)
        return (work / "answer").read_text()
    (work / "ssh").mkdir()
    git, source = Git(work, wanted["allowed"]), GitSource.parse(wanted["source_ref"])
    commit = git.resolve(source)
    with tarfile.open(git.archive(source, commit, work / "cache")) as archive:
        return " ".join(archive.getnames())


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        found = main(place, json.load(sys.stdin))
    finally:
        shutil.rmtree(place / "cache", ignore_errors=True)
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os.killpg(0, 9)
