"""Addresses that are followed, and a forge that is reached by ssh."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from reconciler.core.errors import Invalid, UpstreamUnreachable
from reconciler.store.remote import Link, Remote
from reconciler.store.standing import State
from tests.controlplane import Clone, closed_port

from .conftest import ENVIRONMENT, Make, followed_at


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/acme/store.git",
        "https://bot@git.example.com:8443/acme/store.git",
        "ssh://git@git.example.com:2222/acme/store.git",
        "git@git.example.com:acme/store.git",
        "file:///srv/store.git",
    ],
)
def test_addresses_that_are_followed(url: str) -> None:
    assert Remote.parse(url, "main").url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-u",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c id",
        "http://git.example.com/store.git",
        "/srv/store.git",
        "ssh://-oProxyCommand=id/x",
        "ext::sh",
        "git.example.com:-x",
        "ssh://-oProxyCommand@git.example.com/x",
        "https://git.example.com/a b",
        "https://git.example.com/store.git?private_token=s3cret",
        "https://git.example.com:https/store.git",
    ],
)
def test_addresses_that_are_not(url: str) -> None:
    with pytest.raises(Invalid, match="TRUEUP_UPSTREAM") as refused:
        Remote.parse(url, "main")
    assert "s3cret" not in str(refused.value)


def test_a_token_in_place_of_a_user_is_not_told_on() -> None:
    assert str(Remote.parse("https://t0ken@git.example.com/store.git", "main")) == (
        "https://git.example.com/store.git (main)"
    )


@pytest.mark.parametrize("branch", ["", "-f", "a..b", "a b", "a/", "x.lock", "refs/heads/*", "a:b", "+main"])
def test_branches_that_are_none(branch: str) -> None:
    with pytest.raises(Invalid, match="TRUEUP_UPSTREAM_BRANCH"):
        Remote.parse("file:///srv/store.git", branch)


@pytest.mark.parametrize(
    "url",
    [
        "https://bot:s3cret@git.example.com/store.git",
        "https://bot:s3cret@more@git.example.com/store.git",
        "https://:s3cret@git.example.com/store.git",
        "https://bot:s3cret/more@git.example.com/store.git",
        "bot:s3cret@git.example.com:store.git",
    ],
)
def test_a_password_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Invalid, match="TRUEUP_UPSTREAM") as refused:
        Remote.parse(url, "main")
    assert "s3cret" not in str(refused.value)
    assert "more" not in str(refused.value)


def test_a_password_that_git_adds_is_not_told_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "https://bot:s3cret@127.0.0.1:{port}/"]\n  insteadOf = https://git.example.com/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_TRACE", "1")
    monkeypatch.setenv("GIT_TRACE_CURL", "1")
    link = Link(tmp_path, Remote.parse("https://git.example.com/store.git", "main"))
    with pytest.raises(UpstreamUnreachable) as unreachable:
        link.head()
    assert str(port) in str(unreachable.value)
    assert "s3cret" not in str(unreachable.value)
    assert "trace" not in str(unreachable.value)


def test_ssh_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$0 $* $SSH_ASKPASS_REQUIRE" >>{tmp_path}/called\nexit 1\n')
    ssh.chmod(0o755)
    other = ssh.with_name("other")
    other.write_text(ssh.read_text())
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    link = Link(tmp_path, Remote.parse("git@git.example.com:store.git", "main"))

    def called() -> str:
        (tmp_path / "called").unlink(missing_ok=True)
        with pytest.raises(UpstreamUnreachable):
            link.head()
        return (tmp_path / "called").read_text()

    assert "-o BatchMode=yes" in called()
    assert called().endswith("git-upload-pack 'store.git' never\n")
    # What an operator has chosen is left to them.
    (tmp_path / "gitconfig").write_text(f"[core]\n  sshCommand = {other}\n")
    assert called().startswith(f"{other} ")
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{ssh} -4")
    assert called().startswith(f"{ssh} -4 ")


class _Forge(asyncssh.SSHServer):
    """Lets one key in, and nothing but a key."""

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._key = key.export_public_key()

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return bool(key.export_public_key() == self._key)


async def _serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
    words = shlex.split(process.command or "")
    if not words or words[0] not in {"git-upload-pack", "git-receive-pack"}:
        process.exit(1)
        return
    git = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await process.redirect(git.stdin, git.stdout, git.stderr)
    await process.stdout.drain()
    process.exit(await asyncio.to_thread(git.wait))
    await process.wait_closed()


@pytest.fixture
def ssh_port(tmp_path: Path) -> Iterator[int]:
    """A real ssh server that runs Git; its client's key is in ``tmp_path``."""
    key, host_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "id"))
    (tmp_path / "id").chmod(0o600)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            lambda: _Forge(key), "127.0.0.1", 0, server_host_keys=[host_key], process_factory=_serve, encoding=None
        )

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(20)
    port = server.get_port()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    yield port

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def test_a_forge_behind_ssh(make: Make, tmp_path: Path, ssh_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options = f"-F none -o UserKnownHostsFile={tmp_path}/known_hosts -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    monkeypatch.setenv("GIT_SSH_COMMAND", f"ssh {options} -i {tmp_path}/id")
    made = make()
    url = f"ssh://git@127.0.0.1:{ssh_port}{made.forge}"
    followed = followed_at(made.home.settings.home, made.forge, upstream=url)
    try:
        assert followed.following.look().state is State.IN_STEP
        person = Clone(followed.forge, tmp_path / "clone")
        job = followed.set_cache(fastcgi=False)
        person.replace(ENVIRONMENT, "redis: true", "redis: false")
        assert followed.following.look().state is State.IN_STEP
        assert followed.job(job).revision == followed.both()
        # Without the key nobody is asked for a password: it is told at once.
        monkeypatch.setenv("GIT_SSH_COMMAND", f"ssh {options}")
        found = followed.following.look()
        assert found.state is State.UNREACHABLE
        assert "Permission denied" in found.message
    finally:
        followed.home.close()
