"""One environment as its visitors, its neighbours and its operator see it."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.variables import EnvironmentVariables
from tests.playbooks.environments import VERSION, Hosting, variables_for

PRODUCTION = "acme/production"
STAGING = "acme/staging"
PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}

pytestmark = pytest.mark.lab


# The site


def test_it_answers_with_its_title_from_the_pinned_wordpress(hosting: Hosting) -> None:
    page = hosting.fetch(PRODUCTION)
    assert page.status_code == 200
    assert f"<title>Title of {PRODUCTION}</title>" in page.text
    assert f'content="WordPress {VERSION}"' in page.text


def test_a_pretty_permalink_works(hosting: Hosting) -> None:
    assert hosting.fetch(PRODUCTION, "/hello-world/").status_code == 200
    assert hosting.fetch(PRODUCTION, "/no-such-page/").status_code == 404


def test_a_second_run_changes_nothing(hosting: Hosting) -> None:
    before = hosting.look(PRODUCTION)
    run = hosting.apply(PRODUCTION)
    assert run.raise_if_failed().changed == 0
    assert hosting.apply(PRODUCTION, "--check").raise_if_failed().changed == 0
    assert hosting.look(PRODUCTION) == before


def test_check_mode_says_what_would_be_made_and_makes_nothing(hosting: Hosting) -> None:
    hosting.declare("ghost/production")
    run = hosting.run("environment", "ghost/production", "--check", "--diff").raise_if_failed()
    assert run.changed == 1
    assert f"user wp-{hosting.short('ghost/production')}" in run.output
    assert "fastcgi_cache_path" in run.output
    trace = f"getent passwd wp-{hosting.short('ghost/production')}; ls -d /var/www/sites/* /etc/trueup/environments/*"
    assert hosting.id("ghost/production") not in hosting.node.ssh(trace, check=False).stdout
    del hosting.environments["ghost/production"]


def test_the_manifest_digests_what_the_model_digests(hosting: Hosting) -> None:
    applied = hosting.look(PRODUCTION).applied
    assert applied
    model = EnvironmentVariables.model_validate(hosting.environments[PRODUCTION])
    assert applied.digest == model.digest()
    assert applied.contents == (model.content.id,)
    assert applied.releases == (model.release.id,)


def test_no_secret_leaves_the_node(hosting: Hosting) -> None:
    config = hosting.path(PRODUCTION, "shared", "wp-config.php")
    password = hosting.node.ssh(["sed", "-n", "s/.*'DB_PASSWORD', '\\(.*\\)'.*/\\1/p", config]).stdout.strip()
    assert len(password) >= 32
    hosting.node.ssh(["sed", "-i", "s/WP_DEBUG', false/WP_DEBUG', true/", config])
    run = hosting.apply(PRODUCTION, "--diff", "-vvv").raise_if_failed()
    assert run.changed == 1
    assert "+define( 'WP_DEBUG', false );" in run.output
    assert password not in run.output
    manifest = hosting.node.ssh(["cat", f"/etc/trueup/environments/{hosting.id(PRODUCTION)}.json"]).stdout
    journal = hosting.node.ssh(["journalctl", "--no-pager"]).stdout
    assert password not in manifest + journal
    assert hosting.node.ssh(["stat", "-c", "%a %U %G", config]).stdout.split() == [
        "640",
        "root",
        f"wp-{hosting.short(PRODUCTION)}",
    ]


# Hostile values


@pytest.mark.long
def test_hostile_text_is_only_text(hosting: Hosting, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    title = (
        f"{{{{ lookup('pipe', 'touch {mark}') }}}} $(touch {mark}) `touch {mark}` \"double\" 'single' "
        f"; DROP TABLE wp_posts; -- \nsecond line <?php touch('{mark}'); ?> \\' é 🦉 --version"
    )
    variables = variables_for("hostile/production", hosting.node)
    content = {**variables["content"], "title": title}
    hosting.apply("hostile/production", "--diff", content=content).raise_if_failed()
    assert not mark.exists()
    assert hosting.node.ssh(["test", "-e", str(mark)], check=False).returncode == 1
    shown = hosting.title("hostile/production")
    for part in ("{{ lookup(", "$(touch", "`touch", "DROP TABLE wp_posts", "é 🦉", "second line"):
        assert part in shown
    assert hosting.sql("hostile/production", "SELECT COUNT(*) FROM wp_posts") != "0"
    applied = hosting.look("hostile/production").applied
    assert applied
    assert applied.variables["content"]["title"] == title
    assert hosting.apply("hostile/production").raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        {"hostnames": ["a.example.com; return 200"]},
        {"hostnames": ["{{ 7 * 7 }}.example.com"]},
        {"url": "http://a.example.com'; phpinfo();"},
        {"site": "../../etc"},
        {"slug": "-rf"},
        {"wordpress_version": "../../../etc"},
        {"php": {"memory_limit_mb": "1\nuser = root", "max_children": 4, "upload_max_mb": 64, "max_execution_s": 60}},
        {"id": "../../../../etc/cron.d/xxxxxxxxxxxxxxxxxxx"},
        {"colour": "red"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_no_file_may_hold_is_refused(hosting: Hosting, change: dict[str, Any]) -> None:
    hosting.environments["bad/production"] = {**variables_for("bad/production", hosting.node), **change}
    run = hosting.run("environment", "bad/production")
    del hosting.environments["bad/production"]
    assert run.status != 0
    assert run.count("failed") == 1
    assert next(iter(change)) in run.output or "is no UUID" in run.output
    assert len(hosting.observe().environments) >= 2


# Caches


def test_pages_are_kept_for_strangers_and_made_for_everybody_else(hosting: Hosting) -> None:
    path = f"/?fresh={time.time_ns()}"
    assert hosting.fetch(PRODUCTION, path).headers["X-FastCGI-Cache"] == "MISS"
    assert hosting.fetch(PRODUCTION, path).headers["X-FastCGI-Cache"] == "HIT"
    logged_in = {"Cookie": "wordpress_logged_in_0123=trueup"}
    assert hosting.fetch(PRODUCTION, path, headers=logged_in).headers["X-FastCGI-Cache"] == "BYPASS"
    assert hosting.fetch(PRODUCTION, "/wp-login.php").headers["X-FastCGI-Cache"] == "BYPASS"
    assert hosting.fetch(PRODUCTION, "/", method="POST", data={"a": "b"}).headers["X-FastCGI-Cache"] == "BYPASS"
    assert "X-FastCGI-Cache" in hosting.fetch(PRODUCTION, "/wp-includes/js/jquery/jquery.min.js").headers


def test_objects_are_kept_under_the_environments_prefix(hosting: Hosting) -> None:
    for key in (PRODUCTION, STAGING):
        hosting.fetch(key, headers=PAST_THE_CACHE)
    for key in (PRODUCTION, STAGING):
        owners = {name.partition(":")[0] for name in hosting.redis(key, "--scan").splitlines()}
        assert owners == {hosting.id(key)}


def test_a_purge_empties_the_caches_of_this_environment_only(hosting: Hosting) -> None:
    for key in (PRODUCTION, STAGING):
        hosting.fetch(key)
        hosting.fetch(key, headers=PAST_THE_CACHE)
    assert hosting.fetch(PRODUCTION).headers["X-FastCGI-Cache"] == "HIT"
    assert hosting.run("purge", PRODUCTION, "--check").raise_if_failed().changed == 1
    assert hosting.fetch(PRODUCTION).headers["X-FastCGI-Cache"] == "HIT"
    with hosting.without_events(PRODUCTION):  # which write objects whenever they come
        assert hosting.run("purge", PRODUCTION).raise_if_failed().changed == 1
        assert hosting.redis(PRODUCTION, "--scan") == ""
    assert hosting.redis(STAGING, "--scan") != ""
    assert hosting.fetch(STAGING).headers["X-FastCGI-Cache"] == "HIT"
    assert hosting.fetch(PRODUCTION).headers["X-FastCGI-Cache"] == "MISS"


@pytest.mark.long
def test_caches_are_switched_off_and_on(hosting: Hosting) -> None:
    hosting.fetch(PRODUCTION)
    hosting.apply(PRODUCTION, fastcgi_cache=False, redis_cache=False).raise_if_failed()
    page = hosting.fetch(PRODUCTION)
    assert (page.status_code, page.headers["X-FastCGI-Cache"]) == (200, "NONE")
    drop_in = hosting.path(PRODUCTION, "current", "wp-content", "object-cache.php")
    assert hosting.node.ssh(["test", "-e", drop_in], check=False).returncode == 1
    unit = f"trueup-redis@{hosting.id(PRODUCTION)}.service"
    assert hosting.node.ssh(["systemctl", "is-active", unit], check=False).stdout.strip() == "inactive"
    assert hosting.node.ssh(["test", "-e", f"/etc/systemd/system/{unit}"], check=False).returncode == 1
    assert hosting.apply(PRODUCTION).raise_if_failed().changed == 0
    hosting.apply(PRODUCTION, fastcgi_cache=True, redis_cache=True).raise_if_failed()
    assert hosting.fetch(PRODUCTION).headers["X-FastCGI-Cache"] == "MISS"
    hosting.fetch(PRODUCTION, headers=PAST_THE_CACHE)
    assert hosting.redis(PRODUCTION, "--scan") != ""


def test_it_serves_without_redis(hosting: Hosting) -> None:
    unit = f"trueup-redis@{hosting.id(PRODUCTION)}.service"
    hosting.node.ssh(["systemctl", "stop", unit])
    try:
        assert hosting.title(PRODUCTION) == f"Title of {PRODUCTION}"
    finally:
        hosting.node.ssh(["systemctl", "start", unit])
    assert hosting.title(PRODUCTION) == f"Title of {PRODUCTION}"


@pytest.mark.long
def test_the_drop_in_keeps_wordpresss_promises(hosting: Hosting) -> None:
    code = """
    $seen = array();
    wp_cache_flush_group('t');
    $seen['add'] = array(wp_cache_add('a', array('x' => 1), 't'), wp_cache_add('a', 2, 't'), wp_cache_get('a', 't'));
    $seen['replace'] = array(wp_cache_replace('no', 1, 't'), wp_cache_replace('a', 'new', 't'), wp_cache_get('a', 't'));
    wp_cache_flush_runtime();
    $seen['kept'] = wp_cache_get('a', 't');
    wp_cache_set('n', 5, 't');
    $seen['count'] = array(wp_cache_incr('n', 3, 't'), wp_cache_decr('n', 20, 't'), wp_cache_incr('n', 2, 't'));
    $seen['count'][] = wp_cache_incr('no', 1, 't');
    wp_cache_flush_runtime();
    $seen['counted'] = wp_cache_get('n', 't');
    $values = array('false' => false, 'null' => null, 'zero' => 0, 'digits' => '12', 'float' => 1.5, 'empty' => '');
    foreach ($values as $k => $v) {
        wp_cache_set($k, $v, 't'); wp_cache_flush_runtime();
        $seen['types'][$k] = array(wp_cache_get($k, 't', false, $found) === $v, $found);
    }
    $object = new stdClass; $object->a = 1; wp_cache_set('o', $object, 't'); $object->a = 2;
    $seen['copy'] = wp_cache_get('o', 't')->a;
    $seen['multiple'] = wp_cache_get_multiple(array('a', 'nothing', 'n'), 't');
    $seen['delete'] = array(wp_cache_delete('a', 't'), wp_cache_delete('a', 't'), wp_cache_get('a', 't'));
    wp_cache_add_non_persistent_groups('r'); wp_cache_set('k', 1, 'r'); wp_cache_flush_runtime();
    $seen['request'] = wp_cache_get('k', 'r');
    wp_cache_set('e', 1, 't', 1); sleep(2); wp_cache_flush_runtime();
    $seen['expired'] = wp_cache_get('e', 't');
    wp_cache_flush_group('t'); $seen['flushed'] = wp_cache_get('n', 't');
    $seen['key'] = array(@wp_cache_set('', 1, 't'));
    echo json_encode($seen);
    """
    seen = json.loads(hosting.wp(PRODUCTION, "eval", code))
    assert seen == {
        "add": [True, False, {"x": 1}],
        "replace": [False, True, "new"],
        "kept": "new",
        "count": [8, 0, 2, False],
        "counted": 2,
        "types": {name: [True, True] for name in ("false", "null", "zero", "digits", "float", "empty")},
        "copy": 1,
        "multiple": {"a": "new", "nothing": False, "n": 2},
        "delete": [True, False, False],
        "request": False,
        "expired": False,
        "flushed": False,
        "key": [False],
    }


# Isolation


def test_nothing_among_the_uploads_is_run(hosting: Hosting) -> None:
    uploads = hosting.path(PRODUCTION, "shared", "uploads")
    names = ("a.php", "a.phtml", "a.php.jpg", "a.PHP", "sub/a.php")
    hosting.node.ssh(f"mkdir -p {uploads}/sub; cd {uploads}; echo '<?php echo 6*7;' | tee {' '.join(names)} > a.txt")
    for name in names:
        page = hosting.fetch(PRODUCTION, f"/wp-content/uploads/{name}")
        assert page.status_code in {403, 404}, name
        assert "42" not in page.text
    assert hosting.fetch(PRODUCTION, "/wp-content/uploads/a.php/x.jpg").status_code in {403, 404}
    assert hosting.fetch(PRODUCTION, "/wp-content/uploads/a.txt").status_code == 200
    hosting.node.ssh(f"rm -r {uploads}/a* {uploads}/sub")


@pytest.mark.parametrize(
    "path",
    ["/wp-config.php", "/wp-admin/install.php", "/wp-admin/setup-config.php", "/.git/config", "/readme.html"],
)
def test_what_is_nobodys_business_is_not_there(hosting: Hosting, path: str) -> None:
    assert hosting.fetch(PRODUCTION, path).status_code in {403, 404}


def test_php_reads_no_neighbour_and_starts_no_program(hosting: Hosting) -> None:
    theirs = [
        hosting.path(STAGING, "shared", "wp-config.php"),
        hosting.path(STAGING, "current", "index.php"),
        f"/var/lib/trueup/fences/{hosting.id(STAGING)}",
        "/etc/mysql/debian.cnf",
        f"/etc/trueup/environments/{hosting.id(STAGING)}.json",
    ]
    code = f"""
    foreach ({json.dumps(theirs)} as $path) {{ $read[] = @file_get_contents($path) === false; }}
    $run = array_map('function_exists', array('exec', 'shell_exec', 'system', 'passthru', 'popen', 'proc_open'));
    echo json_encode(array($read, $run, is_readable('{hosting.path(PRODUCTION, "shared", "wp-config.php")}')));
    """
    read, run, own = json.loads(hosting.php(PRODUCTION, code))
    assert read == [True] * len(theirs)
    assert run == [False] * 6
    assert own is True


def test_the_sandbox_alone_hides_the_neighbours(hosting: Hosting) -> None:
    """Even as root: in PHP's name space they are not there."""
    unit = f"trueup-php@{hosting.id(PRODUCTION)}.service"
    pid = hosting.node.ssh(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout.strip()
    enter = f"nsenter --target {pid} --mount"
    assert hosting.node.ssh(f"{enter} ls /var/www/sites").stdout.split() == [hosting.id(PRODUCTION)]
    assert hosting.node.ssh(f"{enter} ls /etc/trueup").stdout.split() == ["php"]
    assert hosting.node.ssh(f"{enter} ls /etc/trueup/php").stdout.split() == [hosting.id(PRODUCTION)]
    assert hosting.node.ssh(f"{enter} touch /usr/local/x", check=False).returncode != 0


def test_a_link_leads_nginx_to_no_neighbour(hosting: Hosting) -> None:
    secret = hosting.path(STAGING, "shared", "uploads", "secret.txt")
    hosting.node.ssh(f"echo confidential > {secret}; chown wp-{hosting.short(STAGING)} {secret}")
    for place in ("shared/uploads", "current/wp-content/plugins"):
        link = hosting.path(PRODUCTION, place, "link.txt")
        hosting.node.ssh(f"ln -s {secret} {link}; chown -h wp-{hosting.short(PRODUCTION)} {link}")
        public = f"/wp-content/{place.rpartition('/')[2]}/link.txt"
        assert "confidential" not in hosting.fetch(PRODUCTION, public).text
        hosting.node.ssh(["rm", link])
    assert hosting.fetch(STAGING, "/wp-content/uploads/secret.txt").text == "confidential\n"
    hosting.node.ssh(["rm", secret])


def test_the_environments_user_cannot_change_core_or_what_is_ours(hosting: Hosting) -> None:
    ours = ("index.php", "wp-includes/version.php", "wp-content/object-cache.php", "wp-content/mu-plugins/trueup.php")
    user = f"setpriv --reuid=wp-{hosting.short(PRODUCTION)} --regid=wp-{hosting.short(PRODUCTION)} --clear-groups"
    for name in ours:
        path = hosting.path(PRODUCTION, "current", name)
        for command in (f"sh -c 'echo x >> {path}'", f"rm -f {path}", f"mv {path} {path}.old"):
            assert hosting.node.ssh(f"{user} {command}", check=False).returncode != 0, f"{command}"
    hosting.node.ssh(f"{user} touch {hosting.path(PRODUCTION, 'current/wp-content/plugins/mine.php')}")
    hosting.node.ssh(["rm", hosting.path(PRODUCTION, "current/wp-content/plugins/mine.php")])


@pytest.mark.long
def test_locked_files_are_nobodys_to_change(hosting: Hosting) -> None:
    user = f"setpriv --reuid=wp-{hosting.short(STAGING)} --regid=wp-{hosting.short(STAGING)} --clear-groups"
    touch = f"{user} touch {hosting.path(STAGING, 'current/wp-content/plugins/mine.php')}"
    hosting.apply(STAGING, files="locked").raise_if_failed()
    assert hosting.node.ssh(touch, check=False).returncode != 0
    assert hosting.apply(STAGING).raise_if_failed().changed == 0
    hosting.apply(STAGING, files="writable").raise_if_failed()
    hosting.node.ssh(f"{touch}; rm {hosting.path(STAGING, 'current/wp-content/plugins/mine.php')}")


# What only production does


def test_a_copy_is_not_for_search_engines(hosting: Hosting) -> None:
    for path in ("/", "/wp-includes/js/jquery/jquery.min.js"):
        assert "noindex" in hosting.fetch(STAGING, path).headers["X-Robots-Tag"]
        assert "X-Robots-Tag" not in hosting.fetch(PRODUCTION, path).headers
    assert hosting.wp(STAGING, "option", "get", "blog_public") == "0"
    assert hosting.wp(STAGING, "eval", "echo wp_get_environment_type();") == "staging"
    assert hosting.wp(PRODUCTION, "eval", "echo wp_get_environment_type();") == "production"


def test_a_copy_logs_its_mail_instead_of_sending_it(hosting: Hosting) -> None:
    data = {"user_login": "trueup", "redirect_to": "", "wp-submit": "Get New Password"}
    page = hosting.fetch(STAGING, "/wp-login.php?action=lostpassword", method="POST", data=data)
    assert page.status_code == 302
    log = hosting.node.ssh(["tail", "-n1", hosting.path(STAGING, "logs", "mail.log")]).stdout
    assert json.loads(log)["to"] == "webmaster@example.com"
    sent = hosting.php(STAGING, "echo json_encode(mail('someone@example.com', 'Round', 'WordPress', '', '-fme'));")
    assert sent == "true"
    log = json.loads(hosting.node.ssh(["tail", "-n1", hosting.path(STAGING, "logs", "mail.log")]).stdout)
    assert (log["to"], log["subject"], log["message"].strip()) == ("someone@example.com", "Round", "WordPress")
    assert hosting.node.ssh(["test", "-e", hosting.path(PRODUCTION, "logs", "mail.log")], check=False).returncode == 1


# What runs


def test_due_events_are_run_by_the_timer(hosting: Hosting) -> None:
    hosting.wp(PRODUCTION, "cron", "event", "schedule", "trueup_test_event", "now")
    timer = f"trueup-cron@{hosting.id(PRODUCTION)}.timer"
    assert hosting.node.ssh(["systemctl", "is-active", timer]).stdout.strip() == "active"
    hosting.run_due(PRODUCTION)
    assert "trueup_test_event" not in hosting.wp(PRODUCTION, "cron", "event", "list", "--field=hook")


def test_the_nodes_own_requests_need_no_dns(hosting: Hosting) -> None:
    name = hosting.environments[PRODUCTION]["hostnames"][0]
    assert hosting.node.ssh(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{name}/"]).stdout == "200"


@pytest.mark.long
def test_it_comes_back_after_a_reboot(hosting: Hosting) -> None:
    hosting.node.reboot()
    units = [unit for key in (PRODUCTION, STAGING) for unit in hosting.look(key).services.values()]
    assert {(unit.active, unit.enabled) for unit in units} == {("active", "enabled")}
    assert hosting.title(PRODUCTION) == f"Title of {PRODUCTION}"
    for key in (PRODUCTION, STAGING):
        hosting.apply(key).raise_if_failed()  # the lab writes a new /etc/hosts at every start


# Healing


@pytest.mark.long
def test_what_somebody_changed_is_put_right(hosting: Hosting) -> None:
    site = hosting.id(PRODUCTION)
    applied = hosting.look(PRODUCTION).applied
    assert applied
    for path in applied.files:
        name, _, section = path.partition("#")
        edit = f"sed -i '/# trueup {site}/d' {name}" if section else f"sed -i '1s/.*/# hand-edited/' {name}"
        hosting.node.ssh(f"if [ -d {name} ]; then chown nobody {name}; else {edit}; fi")
    hosting.node.ssh(f"rm {hosting.path(PRODUCTION, 'current')}; chmod 777 {hosting.path(PRODUCTION)}")
    hosting.node.ssh(["systemctl", "disable", "--now", *applied.services])
    assert hosting.fetch(PRODUCTION).status_code != 200
    assert hosting.apply(PRODUCTION, "--check").raise_if_failed().changed == 1
    hosting.apply(PRODUCTION).raise_if_failed()
    healed = hosting.look(PRODUCTION)
    assert healed.files == applied.files
    assert healed.links == applied.links
    assert {(unit.active, unit.enabled) for unit in healed.services.values()} == {("active", "enabled")}
    assert hosting.title(PRODUCTION) == f"Title of {PRODUCTION}"
    assert hosting.apply(PRODUCTION).raise_if_failed().changed == 0


@pytest.mark.long
def test_a_lost_configuration_gets_new_secrets_that_work(hosting: Hosting) -> None:
    hosting.node.ssh(["rm", hosting.path(STAGING, "shared", "wp-config.php")])
    hosting.apply(STAGING).raise_if_failed()
    assert hosting.title(STAGING) == f"Title of {STAGING}"
    assert hosting.apply(STAGING).raise_if_failed().changed == 0


@pytest.mark.long
def test_a_block_that_nginx_refuses_is_put_back(hosting: Hosting) -> None:
    enabled, elsewhere = "/etc/nginx/sites-enabled", "/root/blocks"
    block = f"{enabled}/trueup-{hosting.id(STAGING)}.conf"
    filter_file = "/etc/nginx/trueup/request-filter.conf"
    # All others need the filter too, those of other tests as well: nginx would name the first of them.
    hosting.node.ssh(
        f"mv {filter_file} /root/; rm {block}; mkdir {elsewhere}; mv {enabled}/trueup-*.conf {elsewhere}; "
        f"echo '# mine' > {block}"
    )
    try:
        run = hosting.apply(STAGING)
        assert run.status != 0
        assert "nginx refuses the new server block, so the former one was put back" in run.output
        assert hosting.node.ssh(["cat", block]).stdout == "# mine\n"
    finally:
        hosting.node.ssh(f"mv /root/request-filter.conf {filter_file}; mv {elsewhere}/* {enabled}; rmdir {elsewhere}")
    hosting.apply(STAGING).raise_if_failed()
    assert hosting.title(STAGING) == f"Title of {STAGING}"


@pytest.mark.long
def test_a_foreign_file_that_nginx_refuses_is_named(hosting: Hosting) -> None:
    hosting.node.ssh("echo 'nonsense;' > /etc/nginx/conf.d/aaa-foreign.conf")
    try:
        run = hosting.apply(STAGING, fastcgi_cache=False)
        assert run.status != 0
        assert re.search(r"nginx refuses /etc/nginx/conf.d/aaa-foreign.conf \(line 1\)", run.output)
        assert hosting.title(STAGING) == f"Title of {STAGING}"
    finally:
        hosting.node.ssh("rm /etc/nginx/conf.d/aaa-foreign.conf")
    hosting.apply(STAGING, fastcgi_cache=True).raise_if_failed()
    assert hosting.apply(STAGING).raise_if_failed().changed == 0


# Releases and addresses


@pytest.mark.long
def test_a_new_release_is_switched_to_and_the_last_five_are_kept(hosting: Hosting) -> None:
    plugin = hosting.path(STAGING, "current/wp-content/plugins/mine.php")
    hosting.node.ssh(f"touch {plugin}; chown wp-{hosting.short(STAGING)} {plugin}")
    release = hosting.environments[STAGING]["release"]
    for number in range(6):
        new = {**release, "id": f"00000000-0000-4000-8000-00000000000{number}"}
        hosting.apply(STAGING, release=new).raise_if_failed()
    applied = hosting.look(STAGING).applied
    assert applied
    assert [one[-1] for one in applied.releases] == ["1", "2", "3", "4", "5"]
    listing = hosting.node.ssh(["ls", hosting.path(STAGING, "releases")]).stdout.split()
    assert sorted(listing) == sorted(applied.releases)
    assert hosting.node.ssh(["readlink", hosting.path(STAGING, "current")]).stdout.strip().endswith("5")
    assert hosting.node.ssh(["stat", "-c", "%U", plugin]).stdout.strip() == f"wp-{hosting.short(STAGING)}"
    hosting.node.ssh(["rm", plugin])
    assert hosting.title(STAGING) == f"Title of {STAGING}"


@pytest.mark.long
def test_the_address_follows_the_document_unless_somebody_set_another(hosting: Hosting) -> None:
    new = f"moved-{hosting.environments[STAGING]['hostnames'][0]}"
    before = dict(hosting.environments[STAGING])
    hosting.apply(STAGING, url=f"http://{new}", hostnames=[new], release=before["release"]).raise_if_failed()
    assert hosting.wp(STAGING, "option", "get", "siteurl") == f"http://{new}"
    assert hosting.title(STAGING) == f"Title of {STAGING}"
    hosting.sql(STAGING, "UPDATE wp_options SET option_value = 'http://elsewhere.example' WHERE option_name = 'home'")
    hosting.environments[STAGING] = before
    hosting.run("environment", STAGING)
    assert (
        hosting.sql(STAGING, "SELECT option_value FROM wp_options WHERE option_name = 'home'")
        == "http://elsewhere.example"
    )
    hosting.sql(STAGING, f"UPDATE wp_options SET option_value = '{before['url']}' WHERE option_name = 'home'")
    hosting.run("purge", STAGING).raise_if_failed()
    hosting.apply(STAGING).raise_if_failed()
