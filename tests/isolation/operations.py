"""Everything that Trueup does to an environment or beside it, as it is asked for, and waited for until it ends."""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from reconciler.core.jobs import JobType
from tests.controlplane import until
from tests.isolation.hacked import NODE, Hacked
from tests.lab.acme import Acme
from tests.lab.git_server import GitServer
from tests.lab.mirror import Mirror
from tests.lab.s3 import S3
from tests.lab.web_server import WebServer
from tests.operations.test_by_hand import by_hand
from tests.place import Place

PATIENCE_S = 300.0
"""Only ends what hangs: a job that has not ended by then never ends by itself, as far as these tests can tell."""


@dataclass(frozen=True)
class End:
    """How something ended: a job's status, or an exit status of a command as ``succeeded`` and ``failed``."""

    what: str
    status: str
    code: str | None = None
    message: str = ""
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"


@dataclass
class Ground:
    """Where operations happen: the control plane and its nodes, and all the services that they may ask."""

    place: Place
    storage: S3
    git: GitServer
    web: WebServer
    mirror: Mirror
    acme: Acme
    export: bytes
    """Of a site that nobody has broken into."""
    spoken: str = ""
    """What commands printed during an operation."""

    def run(self, what: str, answer: httpx.Response, patience_s: float = PATIENCE_S) -> End:
        """The job of a request once it ended, or is given up."""
        if answer.status_code != 202:
            said = answer.json()
            return End(what, "refused", str(said.get("code")), str(said.get("message")))
        return self.wait(what, answer.json()["job_id"], patience_s)

    def wait(self, what: str, job_id: str, patience_s: float = PATIENCE_S) -> End:
        ends, http = time.monotonic() + patience_s, self.place.plane.http
        while True:
            job = self.place.plane.job(job_id)
            waits = job["status"] == "queued" and job["attempt_count"]
            if waits or job["status"] not in {"queued", "running"}:
                if waits:
                    http.post(f"/api/jobs/{job_id}/cancel")
                return End(
                    what, "failed" if waits else job["status"], job["error_code"], job["error_message"] or "", job
                )
            if time.monotonic() > ends:
                http.post(f"/api/jobs/{job_id}/cancel")
                return End(what, "hung", None, f"{job}", job)
            time.sleep(0.1)

    def command(self, what: str, *arguments: str) -> End:
        """A ``trueup`` command."""
        argv = [self.place.plane.trueup, *arguments]
        return self._process(what, lambda: self._command(argv))

    def playbook(self, what: str, arguments: str) -> End:
        """A playbook by hand."""
        script = f"ansible-playbook -i inventory playbooks/{arguments}"
        return self._process(
            what, lambda: by_hand(f"timeout {PATIENCE_S:.0f} {script}", TRUEUP_HOME=str(self.place.plane.home))
        )

    def _command(self, argv: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.place.plane.environment,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode, done.stdout.decode("utf-8", "surrogateescape")

    def _process(self, what: str, run: Callable[[], tuple[int, str]]) -> End:
        try:
            status, output = run()
        except subprocess.TimeoutExpired:
            return End(what, "hung")
        self.spoken += output
        return End(what, "hung" if status == 124 else "failed" if status else "succeeded", None, output[-1500:])

    def post(self, what: str, hacked: Hacked, path: str, **body: Any) -> End:
        return self.run(what, self.place.plane.http.post(f"{hacked.api}{path}", json=body or None))


@dataclass(frozen=True)
class Operation:
    """``prepares`` runs while the site is still clean. A run returns how each of its parts ended, and stops at the
    first that did not succeed."""

    name: str
    runs: Callable[[Ground, Hacked], list[End]]
    job_types: tuple[JobType, ...] = ()
    playbooks: tuple[str, ...] = ()
    prepares: Callable[[Ground, Hacked], None] | None = None
    ends_the_site: bool = False
    begins_afresh: bool = False
    """On a site on which nothing has failed yet: the loop waits longer and longer after what did."""


def _steps(*steps: Callable[[], End]) -> list[End]:
    ends: list[End] = []
    for step in steps:
        ends.append(step())
        if not ends[-1].succeeded:
            break
    return ends


def _copied(ground: Ground, hacked: Hacked, end: End) -> None:
    if id_ := end.job.get("environment_id"):
        answer = ground.place.plane.http.get(f"/api/environments/{id_}")
        if answer.status_code == 200:
            hacked.derived.append(answer.json())


def _unique(hacked: Hacked) -> str:
    return f"copy-{len(hacked.derived)}-{time.monotonic_ns() % 100_000}"


def _copy(ground: Ground, hacked: Hacked, **more: Any) -> End:
    slug = _unique(hacked)
    body = {"name": "Copy", "slug": slug, "type": "staging", **more}
    end = ground.run(
        "clone", ground.place.plane.http.post(f"/api/sites/{hacked.environment['site_id']}/environments", json=body)
    )
    _copied(ground, hacked, end)
    return end


def create_beside(ground: Ground, hacked: Hacked) -> list[End]:
    """A new site must get its own code, not the hacked one's."""
    slug = f"beside-{time.monotonic_ns() % 1_000_000}"
    return [ground.command("create beside", "site", "create", slug, "--node", NODE)]


def clone(ground: Ground, hacked: Hacked) -> list[End]:
    return [_copy(ground, hacked, node_id=hacked.environment["node_id"])]


def clone_elsewhere(ground: Ground, hacked: Hacked) -> list[End]:
    nodes = {node["id"] for node in ground.place.plane.http.get("/api/nodes").json()}
    (other,) = nodes - {hacked.environment["node_id"]}
    return [_copy(ground, hacked, node_id=other)]


def import_(ground: Ground, hacked: Hacked) -> list[End]:
    url = ground.web.serve("/export.tar.gz", ground.export)
    path = f"/api/sites/{hacked.environment['site_id']}/import"
    return [ground.run("import", ground.place.plane.http.post(path, json={"archive_url": url}))]


def deploy(ground: Ground, hacked: Hacked) -> list[End]:
    ground.git.commit("code", {"wp-content/mu-plugins/ours.php": f"<?php // {time.monotonic_ns()}"})
    body = {"source_type": "git", "source_ref": ground.git.url("code")}
    return _steps(lambda: ground.post("deploy", hacked, "/deploy", **body))


def rollback(ground: Ground, hacked: Hacked) -> list[End]:
    before = str(hacked.now["current_release_id"])
    return [*deploy(ground, hacked), *_steps(lambda: ground.post("rollback", hacked, "/rollback", release_id=before))]


def search_replace(ground: Ground, hacked: Hacked) -> list[End]:
    """What is planted is read first, then changed: a text that WordPress's first post has."""
    body = {"from": "Welcome to WordPress", "to": f"Welcome {time.monotonic_ns()}"}
    return _steps(
        lambda: ground.post("search", hacked, "/search-replace", **body),
        lambda: ground.post("search-replace", hacked, "/search-replace", **body, dry_run=False),
    )


def updates(ground: Ground, hacked: Hacked) -> list[End]:
    ground.mirror.publish_plugin("akismet", f"99.{time.monotonic_ns() % 10_000_000}", "")
    return [ground.post("updates", hacked, "/updates", scope="plugins")]


def backup(ground: Ground, hacked: Hacked) -> list[End]:
    return [ground.post("backup", hacked, "/backups", backup_scope="full")]


def _back_up(ground: Ground, hacked: Hacked) -> None:
    (end,) = backup(ground, hacked)
    assert end.succeeded, end


def restore(ground: Ground, hacked: Hacked) -> list[End]:
    kept = [one for one in ground.place.plane.http.get(f"{hacked.api}/backups").json() if one["status"] == "completed"]
    return [ground.post("restore", hacked, "/restore", backup_id=kept[-1]["id"])]


def drill(ground: Ground, hacked: Hacked) -> list[End]:
    return [ground.post("drill", hacked, "/drill")]


def drift_check(ground: Ground, hacked: Hacked) -> list[End]:
    """The deep look, and what an operator is shown of it."""
    return _steps(
        lambda: ground.post("drift check", hacked, "/drift-check"),
        lambda: _shown(ground, "drift", hacked.key),
        lambda: _shown(ground, "plan", hacked.key),
        lambda: ground.run("drift report", ground.place.plane.http.post("/api/drift-reports")),
    )


def _shown(ground: Ground, *arguments: str) -> End:
    end = ground.command(" ".join(arguments), *arguments)
    told = end.status == "failed" and "Traceback" not in end.message  # drift that was found is an exit status, too
    return End(end.what, "succeeded" if told else end.status, None, end.message)


def adopt(ground: Ground, hacked: Hacked) -> list[End]:
    return _steps(
        lambda: ground.post("drift check", hacked, "/drift-check"),
        lambda: ground.post("adopt", hacked, "/drift/adopt"),
    )


def discard(ground: Ground, hacked: Hacked) -> list[End]:
    return _steps(
        lambda: ground.post("drift check", hacked, "/drift-check"),
        lambda: ground.post("discard", hacked, "/drift/discard"),
    )


def _make_staging(ground: Ground, hacked: Hacked) -> None:
    end = _copy(ground, hacked, node_id=hacked.environment["node_id"], promotion_preset="content-protect")
    assert end.succeeded, end
    hacked.environment["staging"] = hacked.derived[-1]["id"]


def promote(ground: Ground, hacked: Hacked) -> list[End]:
    """Both sides are hacked: the copy was made while the site was clean, and is planted in as its source is."""
    source = Hacked(hacked.place, hacked.derived[-1], hacked.slug)
    return _steps(
        lambda: ground.post("comparison", source, "/drift-check"),
        lambda: ground.post("backup", hacked, "/backups", backup_scope="full"),
        lambda: ground.post("promote", source, "/promote", target_environment_id=hacked.id),
    )


def _succeed(ends: list[End]) -> None:
    assert all(end.succeeded for end in ends), ends


def domains(ground: Ground, hacked: Hacked) -> list[End]:
    name = f"{hacked.slug}.example.com"
    ground.acme.point(name, hacked.node.address)
    ends = [ground.post("domain add", hacked, "/domains", hostname=name)]
    for one in ground.place.plane.http.get(f"{hacked.api}/domains").json():
        ends.append(ground.run("domain remove", ground.place.plane.http.delete(f"/api/domains/{one['id']}")))
    return ends


def cache(ground: Ground, hacked: Hacked) -> list[End]:
    off = {"fastcgi_cache_enabled": False, "redis_cache_enabled": False}
    ask = lambda body: ground.run("cache", ground.place.plane.http.patch(f"{hacked.api}/cache", json=body))  # noqa: E731
    return _steps(lambda: ask(off), lambda: ask(dict.fromkeys(off, True)))


def purge(ground: Ground, hacked: Hacked) -> list[End]:
    return [ground.post("purge", hacked, "/cache/purge")]


def health_check(ground: Ground, hacked: Hacked) -> list[End]:
    return [ground.post("health check", hacked, "/health-check")]


def login(ground: Ground, hacked: Hacked) -> list[End]:
    """An answer, no job."""
    try:
        answer = ground.place.plane.http.post(f"{hacked.api}/magic-login", timeout=PATIENCE_S)
    except httpx.TimeoutException:
        return [End("login", "hung")]
    known = answer.status_code in {200, 409, 502}
    return [End("login", "succeeded" if known else "failed", answer.json().get("code"), answer.text)]


def release(ground: Ground, hacked: Hacked) -> list[End]:
    """Of what waits in a copy, which is as hacked as its source. An answer, no job."""
    copied = clone(ground, hacked)
    if not copied[-1].succeeded:
        return copied
    url = f"/api/environments/{hacked.derived[-1]['id']}/held/release"
    try:
        answer = ground.place.plane.http.post(url, json={}, timeout=PATIENCE_S)
    except httpx.TimeoutException:
        return [*copied, End("release", "hung")]
    known = answer.status_code in {200, 409, 502}
    return [*copied, End("release", "succeeded" if known else "failed", answer.json().get("code"), answer.text)]


def reconcile(ground: Ground, hacked: Hacked) -> list[End]:
    """A file of ours was touched, and the loop puts it right; what the site planted may have made it try before."""

    def jobs(*statuses: str) -> list[str]:
        listed = ground.place.plane.http.get("/api/jobs", params={"environment_id": hacked.id}).json()
        mine = [one for one in listed if one["job_type"] == JobType.RECONCILE]
        return [one["id"] for one in mine if not statuses or one["status"] in statuses]

    before = set(jobs("succeeded"))
    hacked.place.touch_block(hacked.environment)
    try:
        until(lambda: bool(set(jobs()) - before), "the loop to see it", PATIENCE_S, pause_s=0.2)
    except AssertionError:
        listed = ground.place.plane.http.get("/api/jobs", params={"environment_id": hacked.id, "limit": 5}).json()
        known = [(one["job_type"], one["status"], one["error_code"], one["attempt_count"]) for one in listed]
        return [End("look", "hung", message=f"{known}\n{ground.place.plane.cli('plan', hacked.key).output[-1500:]}")]
    return [ground.wait("reconcile", one) for one in set(jobs()) - before]


def by_hand_environment(ground: Ground, hacked: Hacked) -> list[End]:
    hacked.place.touch_block(hacked.environment)
    return [ground.playbook("environment.yml", f"environment.yml -e environment={hacked.key}")]


def provision(ground: Ground, hacked: Hacked) -> list[End]:
    name = next(one for one, node in ground.place.nodes.items() if node is hacked.node)
    return _steps(
        lambda: ground.command("node provision", "node", "provision", name),
        lambda: ground.playbook("node.yml", f"node.yml -e node={name}"),
    )


def probe(ground: Ground, hacked: Hacked) -> list[End]:
    """The loop's own look, twice, and the same by hand."""
    name = next(one for one, node in ground.place.nodes.items() if node is hacked.node)

    def looked() -> End:
        def seen() -> str:
            nodes = ground.place.plane.http.get("/api/nodes").json()
            return next(str(one["observed_at"]) for one in nodes if one["name"] == name)

        for _ in range(2):
            before = seen()
            try:
                until(lambda before=before: seen() > before, "a look at the node", PATIENCE_S)  # type: ignore[misc]
            except AssertionError:
                return End("look", "hung")
        return End("look", "succeeded")

    deep = f"observe.yml -e node={name} -e deep=true"
    return _steps(looked, lambda: ground.playbook("observe.yml", deep))


def remove_environment(ground: Ground, hacked: Hacked) -> list[End]:
    copy = hacked.derived[-1]
    return [ground.run("remove", ground.place.plane.http.delete(f"/api/environments/{copy['id']}"))]


def remove_site(ground: Ground, hacked: Hacked) -> list[End]:
    path = f"/api/sites/{hacked.environment['site_id']}"
    answer = ground.place.plane.http.delete(path, params={"confirm": hacked.slug})
    return [ground.run("remove site", answer)]


def reset(ground: Ground, hacked: Hacked) -> list[End]:
    """Only what failed is reset: else it is refused, which is an end as well."""
    return [ground.post("reset", hacked, "/reset")]


OPERATIONS: Mapping[str, Operation] = {
    one.name: one
    for one in (
        Operation("create-beside", create_beside, (JobType.SITE_CREATE,), ("environment.yml",)),
        Operation("clone", clone, (JobType.ENVIRONMENT_CREATE,), ("clone.yml",)),
        Operation("clone-elsewhere", clone_elsewhere, (JobType.ENVIRONMENT_CREATE,), ("clone.yml",)),
        Operation("import", import_, (JobType.SITE_IMPORT,), ("import.yml",)),
        Operation("deploy", deploy, (JobType.DEPLOY,), ("deploy.yml",)),
        Operation("rollback", rollback, (JobType.DEPLOY,)),
        Operation("search-replace", search_replace, (JobType.SEARCH, JobType.SEARCH_REPLACE), ("search_replace.yml",)),
        Operation("updates", updates, (JobType.UPDATES,), ("rehearsal.yml", "updates.yml")),
        Operation("backup", backup, (JobType.BACKUP,), ("backup.yml",)),
        Operation("restore", restore, (JobType.RESTORE,), ("restore.yml",), _back_up),
        Operation("drill", drill, (JobType.DRILL,), ("drill.yml",), _back_up),
        Operation("drift-check", drift_check, (JobType.DRIFT_CHECK, JobType.DRIFT_REPORT, JobType.REPORT_DELIVERY)),
        Operation("adopt", adopt, (JobType.DRIFT_ADOPT,)),
        Operation("discard", discard, (JobType.DRIFT_DISCARD,)),
        Operation("promote", promote, (JobType.PROMOTE,), ("drift.yml", "promote.yml"), _make_staging),
        # A node's first domain brings whom to ask for certificates.
        Operation(
            "domains",
            domains,
            (JobType.DOMAIN_ADD, JobType.DOMAIN_REMOVE),
            ("preview_certificate.yml",),
            prepares=lambda ground, hacked: _succeed(domains(ground, hacked)),
        ),
        Operation("cache", cache, (JobType.CACHE_UPDATE,)),
        Operation("purge", purge, (JobType.CACHE_PURGE,), ("purge.yml",)),
        Operation("health-check", health_check, (JobType.HEALTH_CHECK,), ("health.yml",)),
        Operation("reset", reset, (JobType.HEALTH_CHECK,)),
        Operation("login", login),
        Operation("release", release),
        Operation("reconcile", reconcile, (JobType.RECONCILE,), ("environment.yml",), begins_afresh=True),
        Operation("by-hand", by_hand_environment, (JobType.OPERATOR_RUN,), ("environment.yml",)),
        Operation("provision", provision, (JobType.NODE_PROVISION,), ("node.yml",)),
        Operation("probe", probe, (JobType.NODE_OBSERVE,), ("observe.yml",)),
        Operation("remove", remove_environment, (JobType.ENVIRONMENT_REMOVE,), ("remove.yml",), _make_staging),
        Operation("remove-site", remove_site, (JobType.SITE_REMOVE,), ("remove.yml",), ends_the_site=True),
    )
}
