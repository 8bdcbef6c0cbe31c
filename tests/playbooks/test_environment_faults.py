"""Runs that are killed, late, or at odds with each other: what is on the node then, and what the next run does."""

import json
import random
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.lab import Lab
from tests.lab.commands import wait_until
from tests.playbooks.environments import Hosting, variables_for
from tests.proof import count

KEY = "fault/production"
ROUNDS = count(short=2, full=10)

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def payload(hosting: Hosting) -> Iterator[str]:
    """The module as Ansible sends it, kept on the node with the arguments of one environment."""
    hosting.declare(KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSIBLE_KEEP_REMOTE_FILES", "1")
        patch.setenv("ANSIBLE_PIPELINING", "0")
        hosting.apply(KEY).raise_if_failed()
    found = hosting.node.ssh("ls -t /root/.ansible/tmp/*/AnsiballZ_environment.py | head -n1").stdout.strip()
    hosting.node.ssh(["cp", found, "/root/module.py"])
    yield "python3 /root/module.py"
    forget(hosting)
    del hosting.environments[KEY]


def forget(hosting: Hosting) -> None:
    """Remove every trace of the environment, as if it had never been."""
    site, short = hosting.id(KEY), hosting.short(KEY)
    hosting.node.ssh(
        f"""
        systemctl stop trueup-php@{site}.service trueup-cron@{site}.timer trueup-redis@{site}.service 2>/dev/null
        rm -rf /etc/systemd/system/*/trueup-*@{site}.* /etc/systemd/system/trueup-*@{site}.* /var/www/sites/{site}
        systemctl stop trueup-{short}.slice 2>/dev/null; rm -f /etc/systemd/system/trueup-{short}.slice
        rm -rf /etc/nginx/sites-enabled/trueup-{site}.conf /etc/trueup/environments/{site}.* /etc/trueup/php/{site}
        rm -f /var/lib/trueup/fences/{site} /run/trueup/locks/{site}
        mariadb -e "DROP DATABASE IF EXISTS wp_{short}; DROP DATABASE IF EXISTS wp_{short}_install;
            DROP USER IF EXISTS wp_{short}@localhost"
        userdel wp-{short}; sed -i "/# trueup {site}/d" /etc/hosts
        systemctl daemon-reload; systemctl reload nginx; true
        """
    )


def outcome(process: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    found = json.loads(process.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.long
def test_killed_anywhere_the_next_run_finishes_the_work(hosting: Hosting, payload: str) -> None:
    chance = random.Random(20240611)
    interrupted = 0
    forget(hosting)
    began = time.monotonic()
    hosting.node.ssh(payload)
    whole_s = time.monotonic() - began
    for number in range(ROUNDS):
        forget(hosting)
        # Soon after it began, in the midst of its changes, or around its end.
        mark = f"/etc/trueup/environments/{hosting.id(KEY)}.pending"
        begun = f"for i in $(seq 4000); do [ -e {mark} ] && break; sleep 0.005; done; " if number % 5 else ""
        delay = chance.uniform(0, whole_s / (1 if number % 5 == 4 else 3))
        # Every other time only the module dies, and what it had started goes on for a moment.
        victim = "pkill -KILL -P $!; kill -KILL $!" if number % 2 else "kill -KILL $!"
        hosting.node.ssh(f"{payload} >/dev/null 2>&1 & {begun}sleep {delay:.2f}; {victim} 2>/dev/null; wait; true")
        pending = hosting.node.ssh(f"ls /etc/trueup/environments/{hosting.id(KEY)}.* || true").stdout
        interrupted += "pending" in pending
        assert not ("json" in pending and "pending" in pending), "the manifest was written before the end"
        again = hosting.node.ssh(f"for i in 1 2 3 4 5; do {payload} && exit 0 || sleep 1; done; exit 1")
        assert '"changed"' in again.stdout, (delay, again.stdout)
        third = outcome(hosting.node.ssh(payload))
        assert third["changed"] is False, (delay, third["diff"])
        assert hosting.title(KEY) == f"Title of {KEY}", delay
        assert hosting.sql(KEY, "SELECT COUNT(*) FROM wp_users") == "1", delay
        assert hosting.sql(KEY, "SELECT COUNT(*) FROM wp_posts WHERE post_type IN ('post', 'page')") == "3", delay
        assert hosting.sql(KEY, "SELECT option_value FROM wp_options WHERE option_name = 'permalink_structure'") != ""
        assert "_install" not in hosting.node.ssh(["mariadb", "-BNe", "SHOW DATABASES"]).stdout
        assert hosting.node.ssh(["ls", "-A", hosting.path(KEY, "releases")]).stdout.split() == [
            hosting.environments[KEY]["release"]["id"]
        ]
        assert not hosting.look(KEY).pending
    assert interrupted >= ROUNDS // 2, "the kills came too late to prove anything"


@pytest.mark.long
def test_after_a_kill_between_file_and_reload_everything_is_reloaded(hosting: Hosting, payload: str) -> None:
    hosting.apply(KEY).raise_if_failed()
    unit = f"trueup-php@{hosting.id(KEY)}.service"
    started = hosting.node.ssh(["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", unit]).stdout
    hosting.node.ssh(["touch", f"/etc/trueup/environments/{hosting.id(KEY)}.pending"])
    assert hosting.look(KEY).pending
    assert hosting.apply(KEY).raise_if_failed().changed == 1
    assert hosting.node.ssh(["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", unit]).stdout != started
    assert not hosting.look(KEY).pending
    assert hosting.apply(KEY).raise_if_failed().changed == 0


@pytest.mark.long
def test_what_stopped_runs_were_unpacking_goes(hosting: Hosting, payload: str) -> None:
    hosting.apply(KEY).raise_if_failed()
    names = ("importing", "unpacking", "updating")
    for name in names:
        hosting.node.ssh(["mkdir", "-p", hosting.path(KEY, name, "tree")])
        hosting.node.ssh(["touch", hosting.path(KEY, name, "tree", "half.php")])
    assert hosting.apply(KEY).raise_if_failed().changed == 1
    assert set(names) & set(hosting.node.ssh(["ls", "-A", hosting.path(KEY)]).stdout.split()) == set()
    assert hosting.apply(KEY).raise_if_failed().changed == 0


@pytest.mark.long
def test_content_that_was_left_is_not_made_again_and_one_that_was_half_exchanged_goes_back(
    hosting: Hosting, payload: str
) -> None:
    """A return out of a backup that was stopped behind its exchange, and no word for another one."""
    content, spent, staged = hosting.environments[KEY]["content"], str(uuid4()), str(uuid4())
    hosting.apply(KEY).raise_if_failed()
    manifest, live = f"/etc/trueup/environments/{hosting.id(KEY)}.json", f"wp_{hosting.short(KEY)}"
    applied = json.loads(hosting.node.ssh(["cat", manifest]).stdout)
    applied["contents"] = [spent, content["id"]]
    hosting.node.ssh(["tee", manifest], input=json.dumps(applied))
    sealed = {"content": staged, "database": True, "tables": None, "uploads": None, "merge": None}
    seal = hosting.path(KEY, "incoming", staged, "sealed.json")
    hosting.node.ssh(["mkdir", "-p", seal.rpartition("/")[0]])
    hosting.node.ssh(["tee", seal], input=json.dumps(sealed))
    hosting.node.ssh(
        f"""
        mariadb -e "CREATE DATABASE {live}_former; CREATE DATABASE {live}_next"
        mariadb-dump {live} | mariadb {live}_former
        mariadb {live} -e "UPDATE wp_options SET option_value = 'half exchanged' WHERE option_name = 'blogname';
            CREATE TABLE trueup_content (id CHAR(36)); INSERT INTO trueup_content VALUES ('{staged}')"
        """
    )
    run = hosting.apply(KEY, content={**content, "id": spent})
    assert run.status != 0
    assert f"Content {spent} was here and was left for {content['id']}" in run.output
    assert hosting.sql(KEY, "SELECT option_value FROM wp_options WHERE option_name = 'blogname'") == content["title"]
    assert "incoming" not in hosting.node.ssh(["ls", hosting.path(KEY)]).stdout.split()
    assert json.loads(hosting.node.ssh(["cat", manifest]).stdout)["contents"] == [spent, content["id"]]
    assert hosting.apply(KEY, "--check", content={**content, "id": spent}).status != 0
    hosting.apply(KEY, content=content).raise_if_failed()
    assert hosting.apply(KEY).raise_if_failed().changed == 0


@pytest.mark.long
def test_tables_of_somebody_else_are_kept(hosting: Hosting, payload: str) -> None:
    forget(hosting)
    database = f"wp_{hosting.short(KEY)}"
    hosting.node.ssh(["mariadb", "-e", f"CREATE DATABASE {database}; CREATE TABLE {database}.precious (a INT)"])
    run = hosting.apply(KEY)
    assert run.status != 0
    assert "has tables, but no WordPress" in run.output
    assert hosting.node.ssh(["mariadb", "-BNe", f"SHOW TABLES IN {database}"]).stdout.split() == ["precious"]
    forget(hosting)


# Fences


def job(fence: int) -> dict[str, object]:
    return {"id": str(uuid4()), "fence": fence}


@pytest.mark.long
def test_of_two_jobs_the_later_one_wins_and_the_late_one_is_refused(hosting: Hosting, payload: str) -> None:
    forget(hosting)
    lock = f"/run/trueup/locks/{hosting.id(KEY)}"

    def is_held(fence: int) -> bool:
        return f'"fence": {fence}' in hosting.node.ssh(f"cat {lock}", check=False).stdout

    with ThreadPoolExecutor(2) as pool:
        # Without a database that answers, the early one is in the middle of it until the later one has come.
        hosting.node.ssh(["systemctl", "kill", "--signal=STOP", "mariadb.service"])
        try:
            early = pool.submit(hosting.apply, KEY, job=job(7))
            assert wait_until(lambda: is_held(7), 120, 0.05)
            other = Hosting(hosting.lab, hosting.node, hosting.directory / "other", hosting.wp_cli, hosting.wordpress)
            other.environments = hosting.environments
            later = pool.submit(other.apply, KEY, job=job(8))
            assert wait_until(lambda: is_held(8), 120, 0.05)
        finally:
            hosting.node.ssh(["systemctl", "kill", "--signal=CONT", "mariadb.service"])
    assert early.result().status != 0
    later.result().raise_if_failed()
    assert hosting.title(KEY) == f"Title of {KEY}"
    late = hosting.apply(KEY, job=job(7))
    assert late.status != 0
    assert "it is late" in late.output
    assert '"stale": true' in late.output
    assert hosting.apply(KEY, job=job(8)).raise_if_failed().changed == 0


@pytest.mark.long
def test_a_run_does_not_disturb_an_operator(hosting: Hosting, payload: str) -> None:
    hosting.apply(KEY).raise_if_failed()
    lock = f"/run/trueup/locks/{hosting.id(KEY)}"
    record = json.dumps({"unit": "trueup-manual-1.scope", "fence": None})
    script = (
        f"import fcntl,time; f=open({lock!r},'w'); fcntl.flock(f,2); f.write({record!r}); f.flush(); time.sleep(600)"
    )
    holder = subprocess.Popen([*hosting.node.ssh_command(), shlex.join(["timeout", "600", "python3", "-c", script])])
    try:
        assert wait_until(lambda: "manual-1" in hosting.node.ssh(f"cat {lock}").stdout, 120)
        run = hosting.apply(KEY, job=job(100))
        assert run.status != 0
        assert "trueup-manual-1.scope is at work" in run.output
        assert '"busy": true' in run.output
        assert hosting.run("purge", KEY, job=job(100)).status != 0
    finally:
        hosting.node.ssh("pkill -f '^timeout 600 python3 -c import fcntl'", check=False)
        holder.wait(30)


@pytest.mark.long
def test_an_operators_hold_stops_jobs_but_not_the_operator(hosting: Hosting, payload: str) -> None:
    hosting.node.ssh("echo 'moving disks' > /etc/trueup/hold")
    try:
        run = hosting.apply(KEY, job=job(200))
        assert run.status != 0
        assert "An operator holds this node: moving disks" in run.output
        hosting.apply(KEY).raise_if_failed()
    finally:
        hosting.node.ssh("rm /etc/trueup/hold")


@pytest.mark.long
def test_a_job_works_in_a_scope_of_its_name(hosting: Hosting, payload: str) -> None:
    mine = job(300)
    output = hosting.apply(KEY, "-v", job=mine).raise_if_failed().output
    assert f'"unit": "trueup-{mine["id"]}.scope"' in output
    assert re.search(r'"notes": \[\]', output)


@pytest.mark.long
def test_environments_do_not_wait_for_each_other(hosting: Hosting, lab: Lab, payload: str) -> None:
    """Two new environments at once on one node: both serve, and both names resolve."""
    keys = ("twin-a/production", "twin-b/production")
    runs = {}
    with ThreadPoolExecutor(2) as pool:
        for key in keys:
            one = Hosting(
                lab, hosting.node, hosting.directory / key.replace("/", "-"), hosting.wp_cli, hosting.wordpress
            )
            one.environments = {key: variables_for(key, hosting.node)}
            runs[key] = (one, pool.submit(one.apply, key))
    for key, (one, run) in runs.items():
        run.result().raise_if_failed()
        assert one.title(key) == f"Title of {key}"
        assert one.look(key).files[f"/etc/hosts#{one.id(key)}"]
