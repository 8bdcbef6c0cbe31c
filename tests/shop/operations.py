"""What is done to the site of a group of cases: each operation once, as anybody asks for it."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from tests.controlplane import site_documents, until
from tests.lab.mirror import plugin
from tests.shop.world import World

FRONT = "wp-content/mu-plugins/front.php"
FAILS = "add_action('init', function () { if ('production' === TRUEUP_ENVIRONMENT) { die(); } }, 30);"
"""Its pages are white, in production alone: what no rehearsal sees."""
SETTLED_S = 1.5
"""After it what was told to nginx before is done: a page that is kept from now on is kept for its time."""
SELLING = """
add_action('wp_footer', function () { echo '<i>till VERSION</i>'; });
add_action('init', function () {
    if (!isset($_POST['visitor'])) {
        return;
    }
    global $wpdb;
    $wpdb->query('START TRANSACTION');
    $done = true;
    foreach (json_decode(base64_decode('STATEMENTS'), true) as $statement) {
        $done = $done && false !== $wpdb->query(str_replace('@n@', (string) (int) $_POST['visitor'], $statement));
    }
    $done = false !== $wpdb->query($done ? 'COMMIT' : 'ROLLBACK') && $done;
    die($done ? 'acknowledged' : 'refused');
}, 20);
"""
MIGRATING = """
add_action('init', function () {
    global $wpdb;
    if (get_option('till_schema') === '1' && $wpdb->get_var("SELECT GET_LOCK('till', 0)")) {
        STEPS
        update_option('till_schema', '2');
        $wpdb->query("SELECT RELEASE_LOCK('till')");
    }
}, 10);
"""


def clone(world: World) -> None:
    """A copy of production, which somebody looks at, and whose clock goes."""
    _begin(world)
    _copy(world)
    world.page("staging")
    for _ in range(2):
        unit = f"trueup-cron@{world.sides['staging']['id']}.service"
        # The timer starts it too, and systemd counts how often.
        world.node("staging").ssh(f"systemctl reset-failed {unit} 2>/dev/null; systemctl start {unit}")


def promote(world: World) -> None:
    """What a copy changed goes up to where it came from, which changed meanwhile."""
    _begin(world)
    _copy(world, promotion_preset="commerce-protect")
    copied = world.jobs[""]
    world.page("staging")
    world.plant("copy", "staging")
    world.plant("meanwhile", "production")
    world.done("staging", "/drift-check")
    target = world.sides["production"]["id"]
    told = world.stand.place.plane.http.get(f"/api{world.on('staging', '/promotion')}", params={"target": target})
    preview = told.json()["preview"]
    world.said |= {f"preview {name}": json.dumps(preview[name]) for name in ("moves", "stays", "left_behind")}
    world.done("production", "/backups", backup_scope="full")
    job = world.done("staging", "/promote", target_environment_id=target)
    assert job["id"] != copied["id"]


def restore(world: World) -> None:
    """A full backup, what somebody does to the site then, and the backup again."""
    _begin(world)
    world.done("production", "/backups", backup_scope="full")
    backup = world.ask("GET", world.on("production", "/backups")).json()[0]
    assert backup["status"] == "completed", backup
    world.plant("meanwhile", "production")
    world.done("production", "/restore", backup_id=backup["id"])


def domain(world: World) -> None:
    """The site gets its first domain of its own."""
    _begin(world)
    name = world.group.asked["hostname"]
    world.stand.acme.point(name, world.node("production").address)
    world.done("production", "/domains", hostname=name)


def search_replace(world: World) -> None:
    _begin(world)
    world.done("production", "/search-replace", **world.group.asked["body"], dry_run=False)


def update(world: World) -> None:
    _updated(world, "")
    assert world.jobs[""]["status"] == "succeeded", world.jobs[""]


def failed_update(world: World) -> None:
    _updated(world, FAILS)
    job = world.jobs[""]
    assert (job["status"], job["error_code"]) == ("failed", "RELEASE_UNHEALTHY"), job


def deploy(world: World) -> None:
    """One repository with what all cases have in it."""
    _begin(world)
    files = {path: text for case in world.group.cases for path, text in case.more.get("code", {}).items()}
    world.stand.code.commit(world.slug, {FRONT: _speaking("deployed"), **files})
    world.done("production", "/deploy", source_type="git", source_ref=world.stand.code.url(world.slug))


def refused_deploy(world: World) -> None:
    """One deploy for each case: a source that is refused is, whatever else is in it."""
    _begin(world)
    commit = world.stand.code.commit(world.slug, {FRONT: _speaking("whole"), **world.group.asked["code"]})
    source = {"source_type": "git", "source_ref": world.stand.code.url(world.slug)}
    world.done("production", "/deploy", **source)
    for case in world.group.cases:
        modules = dict.fromkeys(case.more.get("submodules", ()), commit)
        world.stand.code.commit(world.slug, {FRONT: _speaking("x"), **case.more["code"]}, submodules=modules)
        world.jobs[case.name] = world.run("production", "/deploy", **source)
        _put_right(world)


def rollback(world: World) -> None:
    """The steps that are asked for: `deploy WORD` and `rollback`; what each came to is said by its number."""
    _begin(world)
    for number, step in enumerate(world.group.asked["steps"], 1):
        kind, _, word = step.partition(" ")
        if kind == "deploy":
            world.stand.code.commit(world.slug, {FRONT: _speaking(word)})
            world.done("production", "/deploy", source_type="git", source_ref=world.stand.code.url(world.slug))
            world.said[f"step {number}"] = world.page("production").text
            continue
        answer = world.ask("POST", world.on("production", "/rollback"))
        if answer.status_code == 202:
            job = world.stand.place.run(answer)
            assert job["status"] == "succeeded", job
        page = world.page("production").text if answer.status_code == 202 else answer.text
        world.said[f"step {number}"] = f"{answer.status_code} {page}"


def event(world: World) -> None:
    """Pages are visited until nginx keeps them, and then something is done to the site by its own code.

    One case after the other: one that changes all pages would make every other right.
    """
    path, line = f"sites/{world.slug}/environments/production.yaml", "    fastcgi: true\n"
    documents = site_documents(world.slug)
    documents[path] = documents[path].replace(line, f"{line}    vary_cookies: {world.group.asked['vary_cookies']}\n")
    plane = world.stand.place.plane
    plane.clone.push(documents, "Add a site with pages by cookies")

    def is_there() -> bool:
        with suppress(StopIteration, httpx.TransportError):
            world.sides["production"] = plane.environment_of(world.slug)
            return world.sides["production"]["status"] == "active" and world.page("production").status_code == 200
        return False

    until(is_there, "the site", told=plane.log)
    world.plant("given", "production")

    def kept(visit: Mapping[str, Any]) -> bool:
        page = world.page("production", visit["page"], visit.get("sent", {}))
        assert page.status_code == 200, (visit, page.status_code)
        assert all(word in page.text for word in visit.get("has", [])), (visit, page.text)
        return page.headers["X-FastCGI-Cache"] == "HIT"

    for case in world.group.cases:
        time.sleep(SETTLED_S)
        for visit in case.more.get("visited", ()):
            if visit.get("kept", True):
                until(lambda visit=visit: kept(visit), f"{visit} to be kept", pause_s=0.1)  # type: ignore[misc]
            else:
                kept(visit)
        if "event" in case.more:
            world.wp("production", "eval", case.more["event"])
        world.judged[case.name] = world.wrong(case)


def login(world: World) -> None:
    """Somebody comes in, and lands in the administration; and the address is tried once more."""
    _begin(world)
    answer = world.ask("POST", world.on("production", "/magic-login"))
    world.said["asked"] = answer.status_code
    token = answer.json()["login_url"].partition("trueup_login=")[2]

    def spent() -> httpx.Response:
        return world.node("production").fetch(
            "/", host=world.host("production"), method="POST", data={"trueup_login": token}
        )

    first = spent()
    world.said["first"] = f"{first.status_code} {first.headers.get('location', '')}"
    cookies: dict[str, str] = {}
    for header in first.headers.get_list("set-cookie"):
        name, _, value = header.partition(";")[0].partition("=")
        if "path=/wp-content" not in header.lower():
            cookies[name] = value
    sent = "; ".join(f"{name}={value}" for name, value in cookies.items() if value.strip())
    world.said["administration"] = world.page("production", "/wp-admin/plugins.php", {"Cookie": sent}).text
    world.said["second"] = spent().status_code


OPERATIONS: Mapping[str, Callable[[World], None]] = {
    "clone": clone,
    "promote": promote,
    "restore": restore,
    "domain": domain,
    "search-replace": search_replace,
    "update": update,
    "failed-update": failed_update,
    "deploy": deploy,
    "refused-deploy": refused_deploy,
    "rollback": rollback,
    "event": event,
    "login": login,
}
"""By the name of its file below ``cases/``."""


def _begin(world: World) -> None:
    world.joined("production", world.stand.place.make_site(world.slug))
    world.page("production")
    world.plant("given", "production")
    world.page("production")


def _copy(world: World, **more: Any) -> None:
    path = f"/sites/{world.sides['production']['site_id']}/environments"
    body = {"name": "Staging", "slug": "staging", "type": "staging", **more}
    job = world.stand.place.run(world.ask("POST", path, **body))
    assert job["status"] == "succeeded", job
    world.jobs[""] = world.stand.place.plane.job(job["id"])
    world.joined("staging", world.ask("GET", f"/environments/{job['environment_id']}").json())


def _put_right(world: World) -> None:
    """The site is active again after what failed."""
    place = world.stand.place
    place.plane.command("apply", f"{world.slug}/production", "--yes")
    until(lambda: world.ask("GET", world.on("production", "")).json()["status"] == "active", "it to be active")


def _speaking(word: str) -> str:
    return f"<?php add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


def _updated(world: World, failure: str) -> None:
    """A plugin of all cases is updated, while visitors have it write what the cases say."""
    _begin(world)
    slug = f"till-{world.group.operation}"
    cases = [case.more for case in world.group.cases]
    statements = base64.b64encode(
        json.dumps([text for one in cases for text in one.get("during", ())]).encode()
    ).decode()
    selling = SELLING.replace("STATEMENTS", statements)
    migrating = MIGRATING.replace("STEPS", "\n".join(one["update"] for one in cases if "update" in one))
    main = f"{slug}/{slug}.php"
    world.put(
        "production",
        f"current/wp-content/plugins/{main}",
        plugin(slug, "1.0", selling.replace("VERSION", "1.0")),
    )
    active = f'a:1:{{i:0;s:{len(main)}:"{main}";}}'
    world.sql("production", f"UPDATE wp_options SET option_value = '{active}' WHERE option_name = 'active_plugins'")
    world.sql("production", "INSERT INTO wp_options (option_name, option_value) VALUES ('till_schema', '1')")
    world.forget("production")
    until(lambda: "till 1.0" in world.page("production").text, "the plugin to be there")
    code = selling.replace("VERSION", "2.0") + migrating + failure
    world.stand.mirror.publish_plugin(slug, "2.0", code)
    with _visitors(world):
        world.run("production", "/updates", scope="plugins")
    if failure:
        _put_right(world)


@contextmanager
def _visitors(world: World) -> Iterator[None]:
    """Two who have something written all the time, each by numbers of its own; who was acknowledged is said."""
    over, acknowledged = threading.Event(), []
    address, host = world.node("production").address, world.host("production")

    def visit(number: int) -> None:
        with httpx.Client(trust_env=False, timeout=60, headers={"Host": host}) as client:
            while not over.is_set():
                number += 2
                with suppress(httpx.HTTPError):
                    if client.post(f"http://{address}/", data={"visitor": str(number)}).text == "acknowledged":
                        acknowledged.append(str(number))
                time.sleep(0.05)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    world.said["acknowledged"] = acknowledged
