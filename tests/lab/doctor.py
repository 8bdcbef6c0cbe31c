"""Decides whether this machine can run the lab, and says in words what is missing and what to do about it."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.container import cgroup2_mount
from tests.lab.image import current_image
from tests.lab.paths import cache_directory, state_directory

# What each command is needed for, and the Debian package that brings it.
COMMANDS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "systemctl": "systemd",
}
IMAGE_GIGABYTES = 3
NODE_GIGABYTES = 1


@dataclass(frozen=True)
class Finding:
    subject: str
    ok: bool
    fact: str
    advice: str = ""

    def __str__(self) -> str:
        mark = "ok     " if self.ok else "MISSING"
        return f"{mark} {self.subject}: {self.fact}" + (f" {self.advice}" if self.advice else "")


def examine() -> list[Finding]:
    """Every finding, good and bad; changes nothing that lasts."""
    findings = [_root(), *map(_command, COMMANDS), _control_groups(), *_disk(), _image()]
    if findings[0].ok:
        findings += [_overlay(), _namespaces()]
    return findings


def problems() -> list[Finding]:
    return [finding for finding in examine() if not finding.ok]


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "running as root.")
    return Finding(
        "root", False, f"running as user {os.geteuid()}.", "Run as root: the lab mounts and makes namespaces."
    )


def _command(name: str) -> Finding:
    path = shutil.which(name)
    if path:
        return Finding(name, True, f"{path}.")
    return Finding(name, False, "not found.", f"apt-get install {COMMANDS[name]}")


def _control_groups() -> Finding:
    mount = cgroup2_mount()
    if mount:
        return Finding("cgroup2", True, f"mounted on {mount}.")
    return Finding("cgroup2", False, "not mounted.", "mount -t cgroup2 none /sys/fs/cgroup/unified")


def _disk() -> list[Finding]:
    needed = NODE_GIGABYTES if current_image().exists() else IMAGE_GIGABYTES
    return [_space(cache_directory(), needed), _space(state_directory(), NODE_GIGABYTES)]


def _space(directory: Path, gigabytes: int) -> Finding:
    free = shutil.disk_usage(_existing(directory)).free / 1e9
    fact = f"{free:.1f} GB free for {directory}, {gigabytes} needed."
    advice = "Free some, or set TRUEUP_CACHE and TRUEUP_LAB_STATE to directories elsewhere."
    return Finding("disk space", free >= gigabytes, fact, "" if free >= gigabytes else advice)


def _image() -> Finding:
    image = current_image()
    if image.exists():
        return Finding("image", True, f"{image.directory}.")
    return Finding("image", True, "not built yet; the first node builds it.", "Or now: python -m tests.lab image")


def _overlay() -> Finding:
    """Tries one, because a kernel that has overlayfs may still refuse it on this file system."""
    with tempfile.TemporaryDirectory(dir=_existing(state_directory()), prefix=".doctor-") as directory:
        script = (
            'cd "$1" && mkdir l u w m && mount -t overlay doctor'
            " -o lowerdir=l,upperdir=u,workdir=w,volatile m && touch m/f && test -e u/f"
        )
        error = _try(["unshare", "--mount", "sh", "-c", script, "doctor", directory])
    if error is None:
        return Finding("overlayfs", True, "works where nodes are kept.")
    advice = "Set TRUEUP_LAB_STATE to a directory on ext4 or xfs; kernel 5.10 or later."
    return Finding("overlayfs", False, error, advice)


def _namespaces() -> Finding:
    error = _try(["unshare", "--net", "--pid", "--fork", "--mount", "true"])
    if error is None:
        return Finding("namespaces", True, "can be made.")
    return Finding("namespaces", False, error, "Run outside a container, or in a privileged one.")


def _try(argv: list[str]) -> str | None:
    """None if it worked, else what it said."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip() or f"status {done.returncode}")


def _existing(directory: Path) -> Path:
    return next(path for path in [directory, *directory.parents] if path.exists())
