"""`trueup init --from`: a lost home comes back from what it followed, whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.storage.secret_store import Secrets
from tests.controlplane import ControlPlane, closed_port, program, run_git

from .conftest import ENVIRONMENT, Followed, Make, followed_at

SECRET = {"access_key": "a", "secret_key": "b"}


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    """A host that has nothing yet."""
    return ControlPlane(tmp_path / "new")


@pytest.fixture
def kept(followed: Followed, tmp_path: Path) -> dict[str, Path]:
    """What was put aside of the home before it was lost."""
    old = ControlPlane(followed.home.settings.home)
    Secrets(followed.home.settings.secrets).put("backups", SECRET)
    key, archive, ssh_key = tmp_path / "kept.key", tmp_path / "kept.tar", tmp_path / "kept.ssh"
    key.write_text(old.cli("secret", "key").stdout)
    done = subprocess.run([program(), "secret", "export"], capture_output=True, env=old.environment, check=True)
    archive.write_bytes(done.stdout)
    assert key.read_bytes().strip() not in done.stdout
    shutil.copy(followed.home.settings.ssh_key, ssh_key)
    return {"--secrets-key": key, "--secrets": archive, "--ssh-key": ssh_key}


def options(kept: dict[str, Path]) -> list[str]:
    return [word for name, path in kept.items() for word in (name, str(path))]


def refused(plane: ControlPlane, *arguments: str) -> str:
    """Why nothing was made."""
    before = sorted(path.name for path in plane.home.iterdir()) if plane.home.exists() else None
    said = plane.refused("init", *arguments)
    after = sorted(path.name for path in plane.home.iterdir()) if plane.home.exists() else None
    assert after == before
    return said


def test_all_of_it_comes_back_and_following_goes_on(
    followed: Followed, kept: dict[str, Path], plane: ControlPlane
) -> None:
    followed.set_cache(redis=False)
    assert followed.following.look().state == "in-step"
    head = followed.both()
    told = plane.command("init", "--from", f"file://{followed.forge}", *options(kept)).stdout
    assert f"from file://{followed.forge} (main) at {head}" in told
    assert "Documents: 1 nodes, 1 sites, 0 stalled" in told
    assert "Secrets: backups\n" in told
    assert f"TRUEUP_UPSTREAM=file://{followed.forge} TRUEUP_UPSTREAM_BRANCH=main" in told
    assert "authorized_keys" not in told
    for name in ("id_ed25519", "id_ed25519.pub"):
        old = (followed.home.settings.ssh_key.parent / name).read_bytes().split()[:2]
        assert (plane.home / "ssh" / name).read_bytes().split()[:2] == old
    assert Secrets(plane.home / "secrets").get("backups") == SECRET
    for path in ("ssh/id_ed25519", "secrets/key", "secrets/backups.age", "trueup.db"):
        assert (plane.home / path).stat().st_mode & 0o077 == 0, path
    again = followed_at(plane.home, followed.forge)
    assert again.both() == head
    assert again.environment() == followed.environment()
    again.set_cache(fastcgi=False)
    assert again.following.look().state == "in-step"
    assert again.both() != head
    assert "fastcgi: false" in followed.remote("show", f"main:{ENVIRONMENT}")
    again.home.close()


def test_a_new_key_is_shown_with_what_puts_it_on_each_node(followed: Followed, plane: ControlPlane) -> None:
    plane.settings["TRUEUP_UPSTREAM"] = f"file://{followed.forge}"
    told = plane.command("init", "--from", f"file://{followed.forge}").stdout
    public = (plane.home / "ssh" / "id_ed25519.pub").read_text().strip()
    assert f"echo '{public}' | ssh -p 22 root@127.0.0.1 'cat >> .ssh/authorized_keys'\n" in told
    assert "TRUEUP_UPSTREAM" not in told
    assert "Secrets: none" in told


@pytest.mark.long
def test_a_copy_of_the_directory_of_secrets_has_their_key(followed: Followed, plane: ControlPlane) -> None:
    old = followed.home.settings.secrets
    Secrets(old).put("backups", SECRET)
    plane.command("init", "--from", f"file://{followed.forge}", "--secrets", str(old))
    assert Secrets(plane.home / "secrets").get("backups") == SECRET


@pytest.mark.long
def test_another_branch(followed: Followed, plane: ControlPlane) -> None:
    followed.remote("branch", "-m", "main", "live")
    said = refused(plane, "--from", f"file://{followed.forge}")
    assert "(main) has no such branch; it has live." in said
    plane.command("init", "--from", f"file://{followed.forge}", "--branch", "live")
    assert plane.git("rev-parse", "main") == followed.remote("rev-parse", "live")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://ada:secret@git.example.com/store.git", "--from holds a password"),
        ("--upload-pack=touch /tmp/x", "--from is no address that is followed"),
        ("file:///no/such/store.git", "file:///no/such/store.git (main) did not answer"),
    ],
)
def test_an_address_that_leads_nowhere(plane: ControlPlane, url: str, why: str) -> None:
    said = refused(plane, f"--from={url}")
    assert why in said
    assert "secret" not in said


def test_a_repository_without_documents(plane: ControlPlane, tmp_path: Path) -> None:
    forge, work = tmp_path / "forge.git", tmp_path / "work"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(forge))
    assert "has no such branch. Name" in refused(plane, "--from", f"file://{forge}")
    run_git(tmp_path, "clone", "-q", str(forge), str(work))
    (work / "README.md").write_text("Something else\n")
    run_git(work, "add", "-A")
    run_git(work, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-q", "-m", "Begin")
    run_git(work, "push", "-q", "origin", "HEAD:main")
    assert "has no documents" in refused(plane, "--from", f"file://{forge}")


def test_what_does_not_fit_is_refused_before_anything_is_made(
    followed: Followed, kept: dict[str, Path], plane: ControlPlane, tmp_path: Path
) -> None:
    begin = ("--from", f"file://{followed.forge}")
    other = tmp_path / "other"
    Secrets(other).key()
    plane.home.mkdir()
    (plane.home / ".ssh").mkdir()
    assert "does not open secret backups" in refused(plane, *begin, *options({**kept, "--secrets-key": other / "key"}))
    assert "is no age key" in refused(plane, *begin, "--secrets-key", str(kept["--secrets"]))
    assert "their key is missing" in refused(plane, *begin, "--secrets", str(kept["--secrets"]))
    assert "neither a directory nor an archive" in refused(plane, *begin, "--secrets", str(kept["--secrets-key"]))
    assert "has no secrets" in refused(plane, *begin, "--secrets", str(other))
    assert "is no private key" in refused(plane, *begin, "--ssh-key", str(kept["--secrets-key"]))
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a phrase", "-f", str(locked)], check=True)
    assert "without a passphrase" in refused(plane, *begin, "--ssh-key", str(locked))
    assert "cannot be read" in refused(plane, *begin, "--ssh-key", str(tmp_path / "nowhere"))
    assert "go with --from" in refused(plane, "--ssh-key", str(locked))
    plane.command("init", *begin, *options(kept))


def test_a_database_that_cannot_be_had_leaves_nothing(followed: Followed, plane: ControlPlane) -> None:
    plane.settings["TRUEUP_DATABASE_URL"] = f"postgresql://nobody@127.0.0.1:{closed_port()}/none"
    refused(plane, "--from", f"file://{followed.forge}")


def test_a_home_that_is_in_use_stays_as_it_is(make: Make) -> None:
    followed = make()
    home = followed.home.settings.home
    said = refused(ControlPlane(home), "--from", f"file://{followed.forge}")
    assert f"{home} is in use: " in said
    assert "store.git" in said
