"""Decides what a lab server has installed, and builds that root file system once per machine.

The result looks like a freshly installed Debian with the hosting stack unpacked and unconfigured: configuring it is
the provisioning playbook's job. It is cached by a hash of everything that decides its content. Knows nothing of nodes.
"""

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.apt import AptSources, read_host_sources
from tests.lab.paths import LabError, cache_directory

# Raise when the recipe below changes what the image contains.
RECIPE = 2
SUITE = "bookworm"
# fmt: off
PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "sudo", "ca-certificates",
    "iproute2", "procps", "curl", "rsync", "cron", "git", "acl", "unzip", "zstd", "nftables", "fail2ban",
    "nginx", "php-fpm", "php-cli", "php-mysql", "php-redis", "php-curl", "php-gd", "php-mbstring", "php-xml",
    "php-zip", "php-intl", "php-imagick", "mariadb-server", "mariadb-client", "redis-server", "certbot",
    "python3-systemd", "bind9-dnsutils", "logrotate",
]
# What a node's own apt finds, as no node has the internet: packages of the role that no other one brings along.
OFFERED = ["python3-pymysql"]
# fmt: on

# These cannot work in a container: there is no disk to trim or scrub, and no terminal to log in at.
MASKED = ("console-getty.service", "e2scrub_reap.service", "e2scrub_all.timer", "fstrim.timer")
# Enabled by the distribution, but the apt timers need the internet, and fail2ban cannot start before it is told to read
# the journal (Debian 12 has no /var/log/auth.log). A playbook may enable them.
DISABLED = ("apt-daily.timer", "apt-daily-upgrade.timer", "fail2ban.service")

REPOSITORY = "/opt/lab-packages"

UNUSED_IMAGE_DAYS = 14


@dataclass(frozen=True)
class Image:
    """A finished root file system: `root` is the lowest layer of every node, read-only by agreement."""

    key: str
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def snapshots(self) -> Path:
        return self.directory / "snapshots"

    def exists(self) -> bool:
        return self.root.is_dir()

    def touch(self) -> None:
        """Note that the image is in use, so that pruning leaves it."""
        (self.directory / "used").touch()


class Progress:
    """Lines with elapsed seconds on standard error, at most one each few seconds while a step is running."""

    def __init__(self, interval: float = 5.0) -> None:
        self.started = time.monotonic()
        self.interval = interval
        self.last = 0.0

    def step(self, text: str) -> None:
        self.last = time.monotonic()
        print(f"[{self.last - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        if time.monotonic() - self.last >= self.interval:
            self.step(f"  {text[:100]}")


def image_key() -> str:
    recipe = [RECIPE, SUITE, sorted(PACKAGES), sorted(OFFERED), MASKED, DISABLED]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


def current_image() -> Image:
    """The image that this checkout wants, built or not."""
    key = image_key()
    return Image(key, cache_directory() / key)


def ensure_image() -> Image:
    """The image, built first if this machine does not have it (about two and a half minutes)."""
    image = current_image()
    if not image.exists():
        with _build_lock():
            if not image.exists():
                _build(image)
    image.touch()
    return image


@contextmanager
def _build_lock() -> Iterator[None]:
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(image: Image) -> None:
    """Promise: `image.directory` appears complete, by a rename, or not at all."""
    for abandoned in image.directory.parent.glob(".build-*"):
        shutil.rmtree(abandoned)
    _remove_unused_images(image.directory.parent)
    building = image.directory.parent / f".build-{image.key}-{os.getpid()}"
    root = building / "root"
    root.mkdir(parents=True)
    progress = Progress()
    sources = read_host_sources()
    with (building / "build.log").open("w") as log:
        progress.step(f"building lab image {image.key}")
        _run(["debootstrap", "--variant=minbase", SUITE, str(root), sources.mirror], progress, log)
        progress.step(f"installing {len(PACKAGES)} packages")
        _install(root, sources, progress, log)
    progress.step("finishing")
    _make_bootable(root)
    (building / "snapshots").mkdir()
    building.rename(image.directory)
    progress.step(f"image is ready in {image.directory}")


def _install(root: Path, sources: AptSources, progress: Progress, log: object) -> None:
    (root / "etc/apt/sources.list").write_text(sources.lines(SUITE))
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # postinst scripts must not start services on the builder
    policy.chmod(0o755)
    apt = "apt-get -q -y -o DPkg::Options::=--force-unsafe-io -o Acquire::Retries=3"
    script = (
        'mount -t proc proc "$1/proc"; export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8;'
        f' chroot "$1" {apt} update && chroot "$1" {apt} dist-upgrade'
        f' && chroot "$1" {apt} install --no-install-recommends {" ".join(PACKAGES)}'
        f' && chroot "$1" sh -ec {shlex.quote(_OFFER)} offer {" ".join(OFFERED)}'
    )
    _run(["sh", "-c", script, "install", str(root)], progress, log)
    policy.unlink()


_OFFER = f"""
mkdir -p {REPOSITORY} && cd {REPOSITORY}
apt-get -q download "$@"
for file in *.deb; do
    dpkg-deb --field "$file"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' \\
        "$file" "$(stat --format=%s "$file")" "$(sha256sum "$file" | cut -d' ' -f1)"
done >Packages
"""


def _run(argv: list[str], progress: Progress, log: object) -> None:
    """Run in private mount and process namespaces that die with us: a killed build leaves no mounts, no processes."""
    sandbox = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"]
    tail: list[str] = []
    with subprocess.Popen(
        [*sandbox, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=log)  # type: ignore[call-overload]
            tail = [*tail[-14:], line]
            progress.detail(line.strip())
    if process.returncode != 0:
        raise LabError(f"{argv[0]} ended with status {process.returncode} while building the image:\n{''.join(tail)}")


def _make_bootable(root: Path) -> None:
    for pattern in ("etc/ssh/ssh_host_*", "var/lib/apt/lists/*", "var/cache/apt/archives/*.deb", "var/cache/apt/*.bin"):
        for path in root.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{REPOSITORY} ./\n")
    # Without a name server line glibc asks 127.0.0.1, which refuses at once: better than waiting for one out of reach.
    (root / "etc/resolv.conf").write_text("# lab nodes have no internet\n")
    (root / "etc/machine-id").write_text("")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    systemctl = ["systemctl", f"--root={root}", "--quiet"]
    subprocess.run([*systemctl, "mask", *MASKED], check=True)
    subprocess.run([*systemctl, "disable", *DISABLED], check=True, capture_output=True)


def _remove_unused_images(directory: Path) -> None:
    """Drop images of other recipes that nothing has used for two weeks; a mounted one counts as used."""
    mounts = Path("/proc/mounts").read_text()
    for used in directory.glob("*/used"):
        old = time.time() - used.stat().st_mtime > UNUSED_IMAGE_DAYS * 86400
        if old and str(used.parent) not in mounts:
            shutil.rmtree(used.parent)
