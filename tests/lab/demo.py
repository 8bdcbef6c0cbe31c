"""``make demo``: the main job end to end on real parts, as a client would do it; leaves everything running.

It uses what a user uses: the ``trueup`` command, the HTTP API, ``git push``, ssh. Nothing of ours is imported
but the lab, which stands in for a server that somebody rents.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.lab.doctor import problems
from tests.lab.image import ensure_image
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.paths import LabError

HOME = Path(os.environ.get("TRUEUP_DEMO_HOME", "/var/lib/trueup-demo"))
NODE = "demo"
EMAIL = "admin@example.com"
TITLE = "Nightshift Coffee"
PATIENCE_S = 120.0


class DemoError(Exception):
    """A step did not come out as it must; the message says what was seen."""


class Clock:
    """Says what happens, with the seconds since the demo began, and remembers what each step took."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.steps: list[tuple[str, float]] = []

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.say(title)
        began = time.monotonic()
        yield
        self.steps.append((title, time.monotonic() - began))


class Trueup:
    """The control plane of the demo, reached as its users reach it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.environment = {
            **os.environ,
            "TRUEUP_HOME": str(HOME),
            "TRUEUP_LISTEN_PORT": str(port),
            "TRUEUP_OBSERVE_INTERVAL_S": "2",
        }
        self.program = str(Path(sys.executable).with_name("trueup"))

    def command(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [self.program, *arguments],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=600,
        )
        if done.returncode:
            raise DemoError(f"`trueup {' '.join(arguments)}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def serve(self) -> None:
        with (HOME / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [self.program, "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        (HOME / "serve.pid").write_text(f"{process.pid} {_start_of(process.pid)}")
        _until(lambda: _answers(self.http), f"the API at {self.url} to be ready; see {HOME / 'serve.log'}")

    def login(self, password: str) -> None:
        answer = self.http.post("/api/login", json={"email": EMAIL, "password": password})
        if answer.status_code != 200:
            raise DemoError(f"The login answered {answer.status_code}: {answer.text}")

    def job(self, job_id: str) -> dict:
        """The job once it has finished; a failed one ends the demo."""
        job: dict = {}

        def finished() -> bool:
            job.update(self.http.get(f"/api/jobs/{job_id}").json())
            return job["status"] not in ("queued", "running")

        _until(finished, f"job {job_id} to finish")
        if job["status"] != "succeeded":
            raise DemoError(f"Job {job_id} {job['status']}: {job['error_code']}: {job['error_message']}")
        return job


def up() -> int:
    if found := problems():
        print("The demo boots a server of its own, and this machine lacks what that takes:\n")
        for finding in found:
            print(f"  {finding}")
        print("\nWithout it these still run: `make test` (all tests but those that need a node), and")
        print("`.venv/bin/trueup validate desired-state`, `trueup init`, `trueup serve` with hosts of your own.")
        return 1
    clock = Clock()
    try:
        with clock.step("Looking for the base image of the lab"):
            ensure_image()
        _remove_earlier(clock)
        summary = _run(clock)
    except (DemoError, LabError) as error:
        clock.say(f"The demo stopped: {error}")
        print(f"Look at {HOME / 'serve.log'}; `make demo-down` removes what there is.")
        return 1
    _tell(clock, summary)
    print(json.dumps({key: summary[key] for key in _LAST_LINE}))
    return 0


_LAST_LINE = ("site_url", "node_address", "home", "api_url", "created_s", "healed_s", "git_change_s")


def _run(clock: Clock) -> dict:
    trueup, password = Trueup(_free_port()), secrets.token_urlsafe(12)
    with clock.step("Making a control plane: store, database, ssh key"):
        HOME.mkdir(mode=0o700, parents=True)
        trueup.command("init")
        trueup.command("admin", "set-password", "--email", EMAIL, stdin=password)
    with clock.step("Fetching WordPress and WP-CLI, pinned and verified"):
        trueup.command("fetch")
    with clock.step("Booting a server (systemd-nspawn, its own address)"):
        node = Lab().up(NODE, (HOME / "ssh" / "id_ed25519.pub").read_text().strip(), persist=True)
    with clock.step("Starting the API, the workers and the loop"):
        trueup.serve()
    with clock.step(f"Adding {node.address} by its host key's fingerprint, provisioning it"):
        fingerprint = _fingerprint(node.host_key)
        trueup.command("node", "add", "web-1", "--address", node.address, "--fingerprint", fingerprint, "--wait")
    with clock.step("Logging in over HTTP and creating a site: POST /api/sites"):
        trueup.login(password)
        site, created = _create_site(trueup, node)
    clock.say(f"  {site['url']} answers: “{TITLE}”, WordPress 7.1.1, {created:.1f} s after the POST")
    with clock.step("Breaking it by hand: editing its server block, stopping its PHP"):
        healed = _break_and_wait(node, site, clock)
    clock.say(f"  found, reported and put right in {healed:.1f} s")
    with clock.step("Merging a pull request: git push of spec.cache.fastcgi: false"):
        changed = _push_and_wait(trueup, node, site)
    clock.say(f"  applied {changed:.1f} s after the push")
    return {
        "site_url": site["url"],
        "node_address": node.address,
        "home": str(HOME),
        "api_url": f"{trueup.url}/api",
        "docs": f"{trueup.url}/docs",
        "password": password,
        "created_s": round(created, 2),
        "healed_s": round(healed, 2),
        "git_change_s": round(changed, 2),
    }


def _create_site(trueup: Trueup, node: Node) -> tuple[dict, float]:
    began = time.monotonic()
    answer = trueup.http.post("/api/sites", json={"name": TITLE, "slug": "nightshift"})
    if answer.status_code != 202:
        raise DemoError(f"POST /api/sites answered {answer.status_code}: {answer.text}")
    job = trueup.job(answer.json()["job_id"])
    environment = trueup.http.get(f"/api/environments/{job['environment_id']}").json()
    site = {"url": environment["preview_url"], "id": environment["id"], "key": "nightshift/production"}
    page = _page(node, site)
    took = time.monotonic() - began
    if page.status_code != 200 or TITLE not in page.text or "WordPress 7.1.1" not in page.text:
        raise DemoError(f"{site['url']} answered {page.status_code} without the site's title or version")
    return site, took


def _break_and_wait(node: Node, site: dict, clock: Clock) -> float:
    block = f"/etc/nginx/sites-enabled/trueup-{site['id']}.conf"
    unit = f"trueup-php@{site['id']}.service"
    node.ssh(["sh", "-c", f"echo '# edited by hand' >> {block} && systemctl stop {unit}"])
    began = time.monotonic()
    clock.say(f"  a page that no cache has now answers {_page(node, site, '/wp-login.php').status_code}")

    def healed() -> bool:
        touched = node.ssh(["grep", "-q", "edited by hand", block], check=False).returncode == 0
        return not touched and _page(node, site, "/wp-login.php").status_code == 200

    _until(healed, "the loop to put the server block and the unit right")
    return time.monotonic() - began


def _push_and_wait(trueup: Trueup, node: Node, site: dict) -> float:
    before = _page(node, site).headers["x-fastcgi-cache"]
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "store"
        _git("clone", "--quiet", str(HOME / "store.git"), str(clone))
        document = clone / "sites" / "nightshift" / "environments" / "production.yaml"
        text = document.read_text()
        document.write_text(text.replace("fastcgi: true", "fastcgi: false"))
        author = ("-c", "user.name=Robin Reviewer", "-c", "user.email=robin@example.com")
        _git("-C", str(clone), *author, "commit", "--quiet", "-am", "Turn the page cache off while the sale runs (#12)")
        began = time.monotonic()
        _git("-C", str(clone), "push", "--quiet")
    _until(lambda: _page(node, site).headers["x-fastcgi-cache"] == "NONE", "the page cache to be off")
    took = time.monotonic() - began
    if before == "NONE":
        raise DemoError(f"The page cache was {before} before the push already")
    return took


def _tell(clock: Clock, summary: dict) -> None:
    print("\n  step                                                                          seconds")
    for title, seconds in clock.steps:
        print(f"  {title[:76]:<76}  {seconds:7.1f}")
    print(f"  {'in all':<76}  {time.monotonic() - clock.began:7.1f}\n")
    print(f"  The site     {summary['site_url']}  (made in {summary['created_s']} s)")
    print(f"  The API      {summary['docs']}  {EMAIL} / {summary['password']}")
    print(f"  The store    git clone {HOME / 'store.git'}")
    print(f"  What next    TRUEUP_HOME={HOME} .venv/bin/trueup status | plan | drift --check | job list")
    print("               .venv/bin/python -m tests.lab ssh demo   (break something; `trueup job list` shows the cure)")
    print("               make demo-down   (removes the server, the control plane and all their files)\n")


def down() -> int:
    _remove_earlier(Clock(), say_nothing_found=True)
    return 0


def _remove_earlier(clock: Clock, *, say_nothing_found: bool = False) -> None:
    lab = Lab()
    nodes = [node for node in lab.nodes() if node.name == NODE]
    if not nodes and not HOME.exists():
        if say_nothing_found:
            clock.say("There is no demo.")
        return
    clock.say("Removing the demo: the server, the control plane and their files")
    _end_process()
    for node in nodes:
        node.down()
    shutil.rmtree(HOME, ignore_errors=True)


def _end_process() -> None:
    """End the serving process that the demo started, if it is still that one."""
    with suppress(OSError, ValueError):
        pid, start = map(int, (HOME / "serve.pid").read_text().split())
        if _start_of(pid) != start:
            return
        os.kill(pid, signal.SIGTERM)
        with suppress(DemoError):
            _until(lambda: _start_of(pid) != start, "the control plane to end", patience_s=25)
        if _start_of(pid) == start:
            os.killpg(pid, signal.SIGKILL)


def _start_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def _page(node: Node, site: dict, path: str = "/") -> httpx.Response:
    return node.fetch(path, host=site["url"].partition("://")[2])


def _fingerprint(host_key: str) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=host_key, capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def _answers(http: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return http.get("/readyz").status_code == 200
    return False


def _until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"Waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.05)


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def _free_port() -> int:
    preferred = 8080
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit({"up": up, "down": down}[sys.argv[1]]())
