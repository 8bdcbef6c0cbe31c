"""What a site had still to do waits in its copy, until somebody releases it; and a copy acts on nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.controlplane import until
from tests.lab.listener import Listener, listener
from tests.place import Place

pytestmark = [pytest.mark.lab, pytest.mark.in_order]

SHOP = r"""<?php
/* Plugin Name: Little shop, of the shape of a large one */
function little_act( $what ) {
    file_put_contents( WP_TEMP_DIR . '/acts', "$what\n", FILE_APPEND );
    wp_remote_post( 'http://LISTENER/' . TRUEUP_ENVIRONMENT . "/$what", array( 'timeout' => 5 ) );
    wp_mail( 'customer@example.com', $what, 'Your order' );
}
foreach ( array( 'little_charge', 'little_report', 'little_own' ) as $hook ) {
    add_action( $hook, static fn() => little_act( $hook ) );
}
add_action( 'action_scheduler_run_queue', static function () {
    global $wpdb;
    $table = "{$wpdb->prefix}actionscheduler_actions";
    foreach ( $wpdb->get_results( "SELECT * FROM $table WHERE status = 'pending'" ) as $one ) {
        $wpdb->query( "UPDATE $table SET status = 'complete' WHERE action_id = {$one->action_id}" );
        little_act( $one->hook );
    }
} );
add_action( 'init', static function () {
    global $wpdb;
    $table = "{$wpdb->prefix}actionscheduler_actions";
    $there = static fn() => $wpdb->get_var( "SELECT 1 FROM $table WHERE hook = 'little_recur' AND status = 'pending'" );
    if ( get_option( 'little_recurs' ) && ! $there() ) {
        // As as_schedule_recurring_action() does it.
        if ( null === apply_filters( 'pre_as_schedule_recurring_action', null, time(), 60, 'little_recur', array() ) ) {
            $wpdb->insert( $table, array( 'hook' => 'little_recur', 'status' => 'pending' ) );
        }
    }
} );
"""
TABLES = """
CREATE TABLE wp_actionscheduler_actions (action_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, hook VARCHAR(191),
  status VARCHAR(20) NOT NULL, scheduled_date_gmt DATETIME NULL, claim_id BIGINT UNSIGNED NOT NULL DEFAULT 0);
INSERT INTO wp_actionscheduler_actions (hook, status, scheduled_date_gmt) VALUES
  ('little_mail', 'pending', '2026-01-01'), ('little_mail', 'pending', '2026-01-02'),
  ('little_renew', 'in-progress', '2026-01-03'), ('little_mail', 'complete', '2025-01-01');
CREATE TABLE wp_wc_webhooks (webhook_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, status VARCHAR(200) NOT NULL,
  name TEXT NOT NULL);
INSERT INTO wp_wc_webhooks (status, name) VALUES ('active', 'Order created'), ('disabled', 'Old one');
"""
# Production's own timer finds the lock taken, so that what is due is still so when the copy is made. The lock is in
# Redis, and a copy has one of its own.
SCHEDULE = (
    "set_transient( 'doing_cron', '9999999999.0', 900 );"
    "wp_schedule_single_event( time() - 60, 'little_charge', array( 7 ) );"
    "wp_schedule_event( time() - 60, 'hourly', 'little_report' );"
    "wp_schedule_event( time() - 60, 'hourly', 'action_scheduler_run_queue' );"
)


@pytest.fixture(scope="module")
def outside(place: Place) -> Iterator[Listener]:
    with listener(place.nodes["web-1"].network.gateway) as found:
        yield found


@pytest.fixture(scope="module")
def source(place: Place, outside: Listener) -> dict[str, Any]:
    """A shop that has something to do."""
    environment = place.make_site("little-shop")
    path = f"/var/www/sites/{environment['id']}/current/wp-content/plugins/little.php"
    code = SHOP.replace("LISTENER", f"{outside.address}:{outside.port}")
    place.node_of(environment).ssh(["tee", path], input=code)
    place.sql(environment, TABLES)
    wp(place, environment, "plugin", "activate", "little")
    wp(place, environment, "eval", SCHEDULE)
    return environment


@pytest.fixture(scope="module")
def copy(place: Place, source: dict[str, Any]) -> dict[str, Any]:
    body = {"name": "Trying", "slug": "trying", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{source['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    found: dict[str, Any] = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    return found


def wp(place: Place, environment: dict[str, Any], *arguments: str) -> str:
    user = f"wp-{environment['id'].replace('-', '')[:12]}"
    argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "wp", *arguments]
    argv += [f"--path=/var/www/sites/{environment['id']}/current"]
    return place.node_of(environment).ssh(argv).stdout.strip()


def run_due(place: Place, environment: dict[str, Any]) -> None:
    unit = f"trueup-cron@{environment['id']}.service"
    # The timer starts it too: what began before knows only of what was due then, and systemd counts how often.
    over = f"while [ $(systemctl is-active {unit}) = activating ]; do sleep 0.1; done"
    place.node_of(environment).ssh(f"{over}; systemctl reset-failed {unit} 2>/dev/null; systemctl start {unit}")


def acts(place: Place, environment: dict[str, Any]) -> list[str]:
    path = f"/var/www/sites/{environment['id']}/tmp/acts"
    return sorted(place.node_of(environment).ssh(["cat", path], check=False).stdout.split())


def waiting(place: Place, *command: str) -> dict[tuple[str, str], int]:
    rows = json.loads(place.plane.cli("events", *command, "-o", "json").stdout)
    return {(row["kind"], row["name"]): row["count"] for row in rows}


ALL = {
    ("event", "little_charge"): 1,
    ("event", "little_report"): 1,
    ("action", "little_mail"): 2,
    ("action", "little_renew"): 1,
    ("webhook", "Order created"): 1,
}
WEBHOOKS = "SELECT name, status FROM wp_wc_webhooks ORDER BY webhook_id"


def test_what_was_due_waits_in_the_copy(place: Place, copy: dict[str, Any], outside: Listener) -> None:
    for _ in range(2):
        run_due(place, copy)
    assert acts(place, copy) == []
    assert waiting(place, "list", "little-shop/trying") == ALL
    assert place.sql(copy, WEBHOOKS) == "Order created\tpaused\nOld one\tdisabled"
    assert [call for call in outside.calls if b"staging" in call] == []


def test_the_counts_are_in_the_status(place: Place, copy: dict[str, Any]) -> None:
    def stopped() -> str:
        rows = json.loads(place.plane.cli("status", "-o", "json").stdout)["environments"]
        (row,) = [row for row in rows if row["environment"] == "little-shop/trying"]
        assert row["egress"] in {"closed", "unknown"}
        return str(row["stopped"])

    until(lambda: re.search(r"2 events, 3 actions, 1 webhooks", stopped()) is not None, "the status", told=stopped)


def test_production_does_what_it_has_to(place: Place, source: dict[str, Any], outside: Listener) -> None:
    assert waiting(place, "list", "little-shop/production") == {}
    wp(place, source, "transient", "delete", "doing_cron")
    run_due(place, source)
    assert {"little_charge", "little_report", "little_mail"} <= set(acts(place, source))
    until(lambda: outside.has("/production/little_charge"), "production's call")
    assert place.sql(source, WEBHOOKS).startswith("Order created\tactive")


def test_what_the_copy_comes_to_have_itself_is_done(place: Place, copy: dict[str, Any]) -> None:
    wp(place, copy, "eval", "wp_schedule_single_event( time() - 1, 'little_own' );")
    run_due(place, copy)
    assert acts(place, copy) == ["little_own"]


def test_what_is_released_is_done_and_the_rest_waits(place: Place, copy: dict[str, Any]) -> None:
    released = waiting(place, "release", "little-shop/trying", "little_charge", "no_such")
    assert released == {("event", "little_charge"): 1}
    run_due(place, copy)
    assert acts(place, copy) == ["little_charge", "little_own"]
    left = {key: count for key, count in ALL.items() if key != ("event", "little_charge")}
    assert waiting(place, "list", "little-shop/trying") == left


def test_the_api_tells_and_releases_the_same(place: Place, source: dict[str, Any], copy: dict[str, Any]) -> None:
    url = f"/api/environments/{copy['id']}/held"
    told = place.plane.http.get(url).json()
    assert ("action", "little_renew", 1, "2026-01-03T00:00:00+00:00") in {tuple(one.values()) for one in told["held"]}
    until(lambda: place.plane.http.get(url).json()["egress"] == "closed", "it to be known to be closed")
    released = place.plane.http.post(f"{url}/release", json={"names": ["little_renew"]})
    assert (released.status_code, [one["name"] for one in released.json()["held"]]) == (200, ["little_renew"])
    assert "little_renew" not in place.plane.http.get(url).text
    nothing = {"egress": "open", "hosts": [], "stopped": {}, "held": []}
    production = f"/api/environments/{source['id']}/held"
    until(lambda: place.plane.http.get(production).json() == nothing, "production to be known to be open")
    place.plane.http.post(f"{url}/release", json={"names": ["no_such"]}).raise_for_status()
    assert place.plane.http.post(f"{url}/release", json={"names": []}).status_code == 400


def test_all_is_released(place: Place, copy: dict[str, Any], outside: Listener) -> None:
    assert len(waiting(place, "release", "little-shop/trying", "--all")) == len(ALL) - 2
    assert waiting(place, "list", "little-shop/trying") == {}
    assert waiting(place, "release", "little-shop/trying", "--all") == {}
    # The queue is run every hour here, and was run when all of it waited.
    wp(place, copy, "eval", "wp_schedule_single_event( time() - 1, 'action_scheduler_run_queue' );")
    run_due(place, copy)
    done = ["little_charge", "little_mail", "little_mail", "little_own", "little_renew", "little_report"]
    assert acts(place, copy) == done
    assert place.sql(copy, WEBHOOKS) == "Order created\tactive\nOld one\tdisabled"
    mails = place.node_of(copy).ssh(["cat", f"/var/www/sites/{copy['id']}/logs/mail.log"]).stdout
    assert mails.count("customer@example.com") == len(done)
    assert [call for call in outside.calls if b"staging" in call] == [], "the network refuses what was released"


def test_a_copy_has_other_salts(place: Place, source: dict[str, Any], copy: dict[str, Any]) -> None:
    def salts(environment: dict[str, Any]) -> set[str]:
        text = (
            place.node_of(environment).ssh(["cat", f"/var/www/sites/{environment['id']}/shared/wp-config.php"]).stdout
        )
        return set(re.findall(r"_(?:KEY|SALT)', '([A-Za-z0-9_-]{32,})'", text))

    assert len(salts(source)) == len(salts(copy)) == 8
    assert salts(source) & salts(copy) == set()


def as_if_it_came_now(place: Place, copy: dict[str, Any], *more: str) -> None:
    """The copy's content is as it was before its first request, and says ``more`` in SQL."""
    place.sql(copy, ";".join(("UPDATE wp_options SET option_value = '' WHERE option_name = 'trueup_copy'", *more)))
    # WordPress keeps options in Redis.
    place.node_of(copy).ssh(["redis-cli", "-s", f"/run/trueup-redis/{copy['id']}/redis.sock", "flushdb"])


def page(place: Place, environment: dict[str, Any]) -> int:
    host = environment["preview_url"].partition("://")[2]
    headers = {"Cookie": "wordpress_no_cache=1"}
    return place.node_of(environment).fetch("/", host=host, headers=headers).status_code


ACTION = (
    "INSERT INTO wp_actionscheduler_actions (hook, status, scheduled_date_gmt) VALUES ('{}', 'pending', '2026-01-01')"
)
ACTIONS = "SELECT hook, status FROM wp_actionscheduler_actions WHERE status <> 'complete'"


@pytest.mark.long
def test_no_other_site_keeps_a_copy_from_setting_aside(place: Place, copy: dict[str, Any]) -> None:
    """Names of the database server's locks are everybody's."""
    node, name = place.node_of(copy), f"trueup_held_wp_{copy['id'].replace('-', '')[:12]}"
    hold = f"SELECT GET_LOCK('{name}', 0), SLEEP(600)"
    node.ssh(["systemd-run", "--unit=tu-holder", "mariadb", "-e", hold])
    try:
        taken = ["mariadb", "-N", "-e", f"SELECT IS_USED_LOCK('{name}')"]
        until(lambda: node.ssh(taken).stdout.strip() != "NULL", "the lock to be taken")
        as_if_it_came_now(place, copy, ACTION.format("little_mail"))
        assert page(place, copy) == 200
        assert place.sql(copy, ACTIONS) == "little_mail\ttrueup-held"
    finally:
        node.ssh(["systemctl", "stop", "tu-holder.service"], check=False)


def test_nothing_is_paused_that_cannot_be_remembered(place: Place, copy: dict[str, Any]) -> None:
    """And nothing of the content's runs meanwhile."""
    refused = (
        "CREATE TRIGGER tu_refused BEFORE INSERT ON wp_options FOR EACH ROW SET NEW.autoload = "
        "IF(NEW.option_name = 'trueup_held', (SELECT 1 UNION SELECT 2), NEW.autoload)"
    )
    active = "UPDATE wp_wc_webhooks SET status = 'active' WHERE name = 'Order created'"
    as_if_it_came_now(place, copy, active, refused)
    try:
        assert page(place, copy) == 503
        assert place.sql(copy, WEBHOOKS) == "Order created\tactive\nOld one\tdisabled"
    finally:
        place.sql(copy, "DROP TRIGGER tu_refused")
    assert page(place, copy) == 200
    assert place.sql(copy, WEBHOOKS) == "Order created\tpaused\nOld one\tdisabled"
    assert waiting(place, "list", "little-shop/trying")[("webhook", "Order created")] == 1


def test_a_recurring_action_that_waits_is_not_made_anew(place: Place, copy: dict[str, Any]) -> None:
    recurs = "INSERT INTO wp_options (option_name, option_value) VALUES ('little_recurs', '1')"
    as_if_it_came_now(place, copy, recurs, ACTION.format("little_recur"))
    for _ in range(2):
        assert page(place, copy) == 200
    assert "little_recur\ttrueup-held" in place.sql(copy, ACTIONS)
    assert "little_recur\tpending" not in place.sql(copy, ACTIONS)


@pytest.mark.long
def test_a_copy_of_an_earlier_version_serves_between_two_steps_of_its_upgrade(
    place: Place, copy: dict[str, Any]
) -> None:
    """The files that WordPress loads are new, and its wp-config.php is not yet."""
    node, id_ = place.node_of(copy), copy["id"]
    path, php = f"/var/www/sites/{id_}/shared/wp-config.php", f"trueup-php@{id_}.service"
    node.ssh(f"cp -a {path} {path}.tu && sed -i '/TRUEUP_CONTENT/d; s/^\\trequire_once .*copy.php.*//' {path}")
    try:
        node.ssh(["systemctl", "restart", php])
        assert page(place, copy) == 200
        run_due(place, copy)
    finally:
        node.ssh(f"mv {path}.tu {path}; systemctl restart {php}")
    assert page(place, copy) == 200


@pytest.mark.long
@pytest.mark.usefixtures("storage")
def test_a_replaced_text_sets_nothing_aside(place: Place, copy: dict[str, Any]) -> None:
    """It came from nowhere: what the copy came to have itself is done, and what waits goes on waiting."""
    before = waiting(place, "list", "little-shop/trying")
    wp(place, copy, "eval", "wp_schedule_single_event( time() - 1, 'little_own', array( 2 ) );")
    body = {"from": "Hello world", "to": "Hallo Welt", "dry_run": False}
    job = place.run(place.plane.http.post(f"/api/environments/{copy['id']}/search-replace", json=body))
    assert job["status"] == "succeeded", job
    run_due(place, copy)
    assert acts(place, copy).count("little_own") == 2
    assert waiting(place, "list", "little-shop/trying") == before


@pytest.mark.long
@pytest.mark.usefixtures("storage")
def test_what_waited_in_a_copy_is_told_where_its_backup_goes(
    place: Place, source: dict[str, Any], copy: dict[str, Any]
) -> None:
    """Production has actions in a status that their plugin does not know: somebody has to say what becomes of them."""
    job = place.run(place.plane.http.post(f"/api/environments/{copy['id']}/backups", json={"backup_scope": "full"}))
    assert job["status"] == "succeeded", job
    (backup, *_) = place.plane.http.get(f"/api/environments/{copy['id']}/backups").json()
    body = {"backup_id": backup["id"]}
    job = place.run(place.plane.http.post(f"/api/environments/{source['id']}/restore", json=body))
    assert job["status"] == "succeeded", job
    told = waiting(place, "list", "little-shop/production")
    assert {("action", "little_mail"), ("webhook", "Order created")} <= told.keys()
    assert {kind for kind, _ in told} == {"action", "webhook"}, "events are due in production when they are"
    waiting(place, "release", "little-shop/production", "--all")
    assert "trueup-held" not in place.sql(source, ACTIONS)
    assert place.sql(source, WEBHOOKS).startswith("Order created\tactive")
    assert waiting(place, "list", "little-shop/production") == {}
