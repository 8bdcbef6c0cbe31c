"""A job is run once more although all of it is done, as after a worker that died before it could record the end."""

from typing import Any
from uuid import UUID

from sqlalchemy import update

from reconciler.core.jobs import JobStatus
from reconciler.records.database import write
from reconciler.records.tables import jobs
from tests.churn import options
from tests.controlplane import until
from tests.place import Place
from tests.proof import is_long

# WordPress makes the directory of a month's uploads whenever it is first asked for it, by its own events, too.
SEEN = r"""
look() {
cat /etc/trueup/environments/$1.json /etc/nginx/sites-enabled/trueup-$1.conf 2>&1
getent passwd wp-$2
for name in $(mariadb -N -e "SHOW DATABASES LIKE 'wp\_$2%'"); do
  echo "$name"
  mariadb-dump --single-transaction --hex-blob --skip-dump-date --order-by-primary --ignore-table=$name.wp_options \
    $name | sha256sum
  mariadb -N $name -e "OPTIONS"
done
test -d /var/www/sites/$1 || return 0
find /var/www/sites/$1 -path /var/www/sites/$1/logs -prune -o -path /var/www/sites/$1/tmp -prune -o \
  -type d -regex '.*/shared/uploads/[0-9/]+' -o -type l \
  -printf '%p %l\n' -o -printf '%p %u %g %m\n' | sort
find /var/www/sites/$1/releases /var/www/sites/$1/shared -type f CONTENT | sort | sha256sum
}
for id in "$@"; do echo "environment $id"; look $id $(echo $id | tr -d - | head -c 12); done
"""
SEEN = SEEN.replace("OPTIONS", options("option_name, MD5(option_value)"))
# Reading all files takes longer than many a job: what nobody wrote has the size and the time that it had.
SEEN = SEEN.replace("CONTENT", "-exec sha256sum {} +" if is_long() else r"-printf '%p %s %T@\n'")


def run_again(place: Place, job: dict[str, Any]) -> None:
    """Run a job that has succeeded once more: it succeeds, and all is what it was, on the nodes and in the records."""
    until(lambda: not _is_busy(place, job), "nothing to be under way", told=place.plane.log)
    place.ended(job["id"])
    before, known = seen(place, job), place.plane.job(job["id"])["attempt_count"]
    requeue(place, job)
    again = place.plane.wait_job(job["id"])
    until(lambda: not _is_busy(place, job), "nothing to be under way", told=place.plane.log)
    assert (again["status"], again["attempt_count"]) == ("succeeded", known + 1), again
    # An environment is told to be active a moment after its job to have succeeded.
    known_as = before["environments"]
    until(lambda: _told(_environments(place, job)) == known_as, "what is told to be as it was", told=place.plane.log)
    after = seen(place, job)
    assert after == before


def requeue(place: Place, job: dict[str, Any]) -> None:
    """Have a job that has succeeded run once more."""
    with place.plane.opened() as home:
        values = {"status": JobStatus.QUEUED, "finished_at": None, "locked_at": None, "locked_by": None}
        query = update(jobs).where(jobs.c.id == UUID(job["id"]), jobs.c.status == JobStatus.SUCCEEDED).values(**values)
        assert write(home.records.engine, lambda connection: connection.execute(query).rowcount) == 1


def _is_busy(place: Place, job: dict[str, Any]) -> bool:
    """Whether anything else is at work on the site, as what the loop does about a job that was killed."""
    jobs = place.plane.http.get("/api/jobs", params={"site_id": job["site_id"]}).json()
    return any(one["status"] in {"queued", "running"} for one in jobs)


def _environments(place: Place, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a job's site; none of one that is gone."""
    answer = place.plane.http.get(f"/api/sites/{job['site_id']}/environments")
    assert answer.status_code in {200, 404}, answer.text
    return answer.json() if answer.status_code == 200 else []


def _told(listed: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    return [(one["id"], one["status"], one["current_release_id"]) for one in listed]


def seen(place: Place, job: dict[str, Any]) -> dict[str, Any]:
    """The site of a job: what the store says, what was backed up, and what each node has of its environments."""
    listed = _environments(place, job)
    ids = sorted({*filter(None, [job["environment_id"]]), *(one["id"] for one in listed)})
    with place.plane.opened() as home:
        kept = {id_: [(one.id, one.status) for one in home.records.backups.of(UUID(id_))] for id_ in ids}
    found: dict[str, Any] = {"head": place.plane.git("rev-parse", "main"), "kept": kept}
    found["environments"] = _told(listed)
    for name, node in place.nodes.items():
        found[name] = node.ssh(["bash", "-c", SEEN, "bash", *ids], check=False).stdout.splitlines()
    for one in listed:
        database = "wp_" + one["id"].replace("-", "")[:12]
        assert any(database in found[name] for name in place.nodes), "nothing was looked at"
    return found
