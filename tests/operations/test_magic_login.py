"""Magic login on a real node, in a real browser: once, for a minute, for this environment alone."""

import concurrent.futures
import contextlib
import subprocess
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from reconciler.core.status import EnvironmentStatus
from reconciler.home import clock
from tests.place import Place

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def environment(place: Place) -> dict[str, Any]:
    return place.make_site("magic")


def _login(place: Place, environment: dict[str, Any]) -> httpx.Response:
    return place.plane.http.post(f"/api/environments/{environment['id']}/magic-login")


def _url(place: Place, environment: dict[str, Any]) -> str:
    answer = _login(place, environment)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["login_url"])


def _post(place: Place, environment: dict[str, Any], url: str) -> httpx.Response:
    """What the form that GET shows sends."""
    host = environment["preview_url"].partition("://")[2]
    node = place.node_of(environment)
    token = url.partition("trueup_login=")[2]
    return httpx.post(
        f"http://{node.address}/",
        headers={"Host": host},
        data={"trueup_login": token},
        follow_redirects=False,
        timeout=60,
        trust_env=False,
    )


def test_a_browser_lands_in_the_administration(place: Place, environment: dict[str, Any]) -> None:
    url, node = _url(place, environment), place.node_of(environment)
    assert url.startswith(environment["preview_url"])
    host = environment["preview_url"].partition("://")[2]
    rules = f"--host-resolver-rules=MAP {host} {node.address}"
    argv = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server", rules]
    dump = [*argv, "--virtual-time-budget=20000", "--dump-dom", url]
    page = subprocess.run(dump, capture_output=True, text=True, timeout=300, check=True).stdout
    assert 'id="wpadminbar"' in page
    assert "Howdy" in page
    assert "trueup" in page
    assert "plugins.php" in page, "an administrator sees the plugins"
    assert _post(place, environment, url).status_code == 403, "it was used by the browser"


def test_it_works_once_and_tells_plugins(place: Place, environment: dict[str, Any]) -> None:
    url = _url(place, environment)
    first = _post(place, environment, url)
    assert first.status_code == 302
    assert first.headers["location"].endswith("/wp-admin/")
    assert any("wordpress_logged_in" in cookie for cookie in first.headers.get_list("set-cookie"))
    again = _post(place, environment, url)
    assert again.status_code == 403
    assert "set-cookie" not in again.headers
    assert "used already" in again.text


DESTROYED = "WP_Session_Tokens::get_instance($user->ID)->destroy_all();"
UNDONE = f"{DESTROYED} wp_clear_auth_cookie();"
CHALLENGES = {
    "a page": f"{UNDONE} header('Content-Type: text/html'); status_header(200); echo '<p>Your code?</p>'; exit;",
    "a redirect": "wp_logout(); wp_redirect(home_url('/?challenge')); exit;",
    "a page, with the session left": "echo '<p>Your code?</p>'; exit;",
    "an error": "wp_clear_auth_cookie(); wp_die('Your code?', 403);",
    "a logout that returns": "wp_logout();",
    "a page that is sent": f"{UNDONE} while (ob_get_level()) {{ ob_end_clean(); }} echo 'Your code?'; flush(); exit;",
    "another session": f"{DESTROYED} wp_set_auth_cookie($user->ID, true);",
    "a fault": "no_such_function();",
}
"""What a plugin does at ``wp_login``: the first is what those that ask for a second factor do."""
WHILE_MADE = {
    hook: f"add_filter('{hook}', function ($given) {{ if (empty($GLOBALS['asked'])) {{ $GLOBALS['asked'] = 1; "
    "wp_die('Your code?', 401); } return $given; });"
    for hook in ("attach_session_information", "set_auth_cookie", "set_logged_in_cookie")
} | {"send_auth_cookies": "add_filter('send_auth_cookies', '__return_false');"}
CASES = [
    *(
        pytest.param(
            f"add_action('wp_login', function ($login, $user) {{ {does} }}, PHP_INT_MAX, 2);",
            id=name,
            marks=() if name == "a page" else pytest.mark.long,
        )
        for name, does in CHALLENGES.items()
    ),
    *(pytest.param(does, id=name, marks=pytest.mark.long) for name, does in WHILE_MADE.items()),
]


@contextlib.contextmanager
def _plugin(place: Place, environment: dict[str, Any], code: str) -> Iterator[None]:
    path = f"/var/www/sites/{environment['id']}/current/wp-content/mu-plugins/ask-{uuid4().hex}.php"
    node = place.node_of(environment)
    node.ssh(f"cat > {path}", input=f"<?php {code}")
    try:
        yield
    finally:
        node.ssh(["rm", path])


def _administration(place: Place, environment: dict[str, Any], answer: httpx.Response) -> httpx.Response:
    """What a browser gets there that kept the answer's cookies: of one name and path the last one."""
    kept: dict[tuple[str, str], str] = {}
    for header in answer.headers.get_list("set-cookie"):
        (name, cookie), *_ = (SimpleCookie(header)).items()
        kept[name, cookie["path"]] = (
            "" if "1970" in cookie["expires"] or not cookie.value.strip() else cookie.coded_value
        )
    sent = "; ".join(f"{name}={value}" for (name, path), value in kept.items() if value and path in {"/", "/wp-admin"})
    host = environment["preview_url"].partition("://")[2]
    return place.node_of(environment).fetch("/wp-admin/plugins.php", host=host, headers={"Cookie": sent})


@pytest.mark.parametrize("code", CASES)
def test_a_second_factor_does_not_stop_it(place: Place, environment: dict[str, Any], code: str) -> None:
    with _plugin(place, environment, code):
        url = _url(place, environment)
        first = _post(place, environment, url)
        assert (first.status_code, first.headers.get("location", "")[-10:]) == (302, "/wp-admin/")
        assert 'id="wpadminbar"' in _administration(place, environment, first).text
        again = _post(place, environment, url)
        assert (again.status_code, "set-cookie" in again.headers) == (403, False)


def test_what_is_left_of_an_administrator_who_is_gone_gets_none(place: Place, environment: dict[str, Any]) -> None:
    left = """(0, 'wp_capabilities', 'a:1:{s:13:"administrator";b:1;}')"""
    place.sql(environment, f"INSERT INTO wp_usermeta (user_id, meta_key, meta_value) VALUES {left}")
    try:
        first = _post(place, environment, _url(place, environment))
        assert 'id="wpadminbar"' in _administration(place, environment, first).text
        place.sql(environment, "UPDATE wp_users SET ID = 4711 WHERE ID = 1")
        try:
            answer = _login(place, environment)
        finally:
            place.sql(environment, "UPDATE wp_users SET ID = 1 WHERE ID = 4711")
        assert (answer.status_code, answer.json()["code"]) == (502, "wp_cli_error"), "nobody is there to log in as"
    finally:
        place.sql(environment, "DELETE FROM wp_usermeta WHERE user_id = 0")


@pytest.mark.long
def test_a_preview_does_not_use_it_up(place: Place, environment: dict[str, Any]) -> None:
    url = _url(place, environment)
    for agent in ("Slackbot-LinkExpanding 1.0", "WhatsApp/2.0"):
        path = url.removeprefix(environment["preview_url"])
        host = environment["preview_url"].partition("://")[2]
        page = place.node_of(environment).fetch(path, host=host, headers={"User-Agent": agent})
        assert page.status_code == 200
        assert "set-cookie" not in page.headers
        assert "no-store" in page.headers["cache-control"]
    assert _post(place, environment, url).status_code == 302


@pytest.mark.long
def test_after_a_minute_it_is_refused(place: Place, environment: dict[str, Any]) -> None:
    url = _url(place, environment)
    aged = "SUBSTRING_INDEX(meta_value, ':', -1) - 61"
    place.sql(
        environment,
        "UPDATE wp_usermeta SET meta_value = CONCAT(SUBSTRING_INDEX(meta_value, ':', 1), ':', "
        f"{aged}) WHERE meta_key = 'trueup_login'",
    )
    assert _post(place, environment, url).status_code == 403


@pytest.mark.long
def test_another_environment_refuses_it(place: Place, environment: dict[str, Any]) -> None:
    other = place.make_site("othermagic")
    assert _post(place, other, _url(place, environment)).status_code == 403


def _runs(place: Place, environment: dict[str, Any]) -> int:
    """How often systemd was told to run something in the environment's sandbox, beside its own units."""
    runs = f"trueup-run-{environment['id'].replace('-', '')[:12]}-*"
    return int(
        place.node_of(environment).ssh(f"journalctl -q -o cat -u '{runs}' | grep -c ^Started", check=False).stdout
    )


def test_php_that_runs_already_is_asked(place: Place, environment: dict[str, Any]) -> None:
    def ran() -> int:
        before = _runs(place, environment)
        assert _post(place, environment, _url(place, environment)).status_code == 302
        return _runs(place, environment) - before

    # The loop looks at the site's health now and then, and that is such a run, too.
    assert 0 in (ran() for _ in range(5))
    visitor = place.node_of(environment)
    host = environment["preview_url"].partition("://")[2]
    for path in ("/login.php", "/shared/login.php", "/../shared/login.php"):
        page = visitor.fetch(path, host=host, headers={"TRUEUP_LOGIN": "0" * 64})
        assert page.status_code == 404


@pytest.mark.long
def test_a_release_that_is_gone_is_not_asked(place: Place, environment: dict[str, Any]) -> None:
    """PHP that keeps in mind where links led made a login before; then another release is switched to."""
    node, site = place.node_of(environment), f"/var/www/sites/{environment['id']}"
    former = node.ssh(["readlink", f"{site}/current"]).stdout.strip()
    later = "releases/00000000-0000-4000-8000-000000000001"
    assert _login(place, environment).status_code == 200
    place.close("magic")  # or the loop might see the switch, and put it right
    node.ssh(f"cd {site} && cp -a {former} {later} && ln -s {later} next && mv -T next current && mv {former} away")
    try:
        answer = _login(place, environment)
    finally:
        node.ssh(f"cd {site} && mv away {former} && ln -s {former} next && mv -T next current && rm -r {later}")
        place.open("magic")
    assert answer.status_code == 200, answer.text


@pytest.mark.long
@pytest.mark.parametrize("lacks", ["its PHP", "the file"])
def test_where_php_cannot_be_asked_another_one_is(place: Place, environment: dict[str, Any], lacks: str) -> None:
    """As on a node that is not reconciled yet; nothing is kept twice, as it would be good twice."""
    node = place.node_of(environment)
    service, file = f"trueup-php@{environment['id']}.service", f"/var/www/sites/{environment['id']}/shared/login.php"
    before = _runs(place, environment)
    node.ssh(["systemctl", "stop", service] if lacks == "its PHP" else ["mv", file, f"{file}.away"])
    try:
        url = _url(place, environment)
    finally:
        node.ssh(["systemctl", "start", service] if lacks == "its PHP" else ["mv", f"{file}.away", file])
    assert _runs(place, environment) == before + 1
    assert [_post(place, environment, url).status_code for _ in range(2)] == [302, 403]


def test_of_six_at_once_one_is_in(place: Place, environment: dict[str, Any]) -> None:
    url = _url(place, environment)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: _post(place, environment, url).status_code, range(6)))
    assert sorted(answers) == [302, 403, 403, 403, 403, 403]


@pytest.mark.long
def test_neither_log_nor_database_has_the_token(place: Place, environment: dict[str, Any]) -> None:
    url = _url(place, environment)
    token = url.partition("trueup_login=")[2]
    place.node_of(environment).fetch(f"/?trueup_login={token}", host=environment["preview_url"].partition("://")[2])
    stored = place.sql(environment, "SELECT meta_value FROM wp_usermeta WHERE meta_key = 'trueup_login'")
    assert stored
    assert token not in stored
    grep = ["grep", "-rqF", "-e", token, "/var/log", f"/var/www/sites/{environment['id']}/logs"]
    assert place.node_of(environment).ssh(grep, check=False).returncode == 1


@pytest.mark.long
def test_a_paused_node_is_told_while_it_is_paused(place: Place, environment: dict[str, Any]) -> None:
    node = place.node_of(environment)
    node.freeze()
    try:
        answer = _login(place, environment)
    finally:
        node.thaw()
    assert (answer.status_code, answer.json()["code"]) == (502, "node_unreachable")


@pytest.mark.long
def test_a_broken_site_is_a_wp_cli_error(place: Place) -> None:
    environment = place.make_site("brokenmagic")
    place.sql(environment, "RENAME TABLE wp_usermeta TO wp_usermeta_away")
    answer = _login(place, environment)
    assert (answer.status_code, answer.json()["code"]) == (502, "wp_cli_error")
    assert "wp_usermeta" not in answer.text
    place.sql(environment, "RENAME TABLE wp_usermeta_away TO wp_usermeta")
    assert _login(place, environment).status_code == 200


def test_a_busy_environment_gives_none(place: Place, environment: dict[str, Any]) -> None:
    with place.plane.opened() as home:
        id_ = UUID(environment["id"])
        home.records.statuses.put(id_, EnvironmentStatus.DEPLOYING, clock(), job_id=None)
        try:
            answer = _login(place, environment)
        finally:
            home.records.statuses.put(id_, EnvironmentStatus.ACTIVE, clock(), job_id=None)
    assert (answer.status_code, answer.json()["code"]) == (409, "environment_not_active")
