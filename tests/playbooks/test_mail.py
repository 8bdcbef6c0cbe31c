"""No mail of a copy leaves it, whatever sends it, and each message is kept and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.playbooks.environments import Hosting
from tests.proof import sampled

COPY, PRODUCTION = "mailing/staging", "mailing/production"
LOAD = "require dirname( __DIR__, 2 ) . '/wp-load.php';"
SENDS = "wp_mail( 'customer@example.com', 'WHO', 'Your order', '', array( '/etc/hostname' ) );"
OWN = """<?php
/* Plugin Name: Mailer */
{guard}
    function wp_mail( $to, $subject, $message, $headers = '', $attachments = array() ) {{
        file_put_contents( WP_TEMP_DIR . '/sent', "$to $subject\\n", FILE_APPEND );
        return true;
    }}
{end}
"""
GUARDED = OWN.format(guard="if ( ! function_exists( 'wp_mail' ) ) {", end="}")
UNGUARDED = OWN.format(guard="", end="")

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    for key in (PRODUCTION, COPY):
        own_hosting.apply(key).raise_if_failed()
    return own_hosting


@pytest.fixture
def plugin(hosting: Hosting) -> Iterator[Any]:
    """Put code at a path below wp-content: a function."""
    put: list[str] = []

    def puts(path: str, code: str) -> None:
        for key in (COPY, PRODUCTION):
            place = hosting.path(key, "current", "wp-content", path)
            hosting.node.ssh(["tee", place], input=code)
            put.append(place)

    yield puts
    hosting.node.ssh(["rm", "-f", *put, *(hosting.path(key, "tmp", "sent") for key in (COPY, PRODUCTION))])
    hosting.node.ssh(["rm", "-f", hosting.path(COPY, "tmp", "trueup-mail-is-declared")])


def kept(hosting: Hosting, who: str, key: str = COPY) -> list[dict[str, Any]]:
    said = hosting.node.ssh(["cat", hosting.path(key, "logs", "mail.log")], check=False).stdout
    return [one for line in said.splitlines() if (one := json.loads(line))["subject"] == who]


def sent(hosting: Hosting, key: str = COPY) -> str:
    """What a plugin of the site's has sent by itself."""
    return hosting.node.ssh(["cat", hosting.path(key, "tmp", "sent")], check=False).stdout


def mails(hosting: Hosting) -> int:
    return hosting.look(COPY).stopped.get("mails", 0)


def say(hosting: Hosting, who: str, key: str = COPY) -> None:
    hosting.php(key, LOAD + SENDS.replace("WHO", who))


def test_mail_is_kept_and_counted(hosting: Hosting) -> None:
    before = mails(hosting)
    say(hosting, "plainly")
    (one,) = kept(hosting, "plainly")
    assert (one["to"], one["message"], one["attachments"]) == ("customer@example.com", "Your order", ["hostname"])
    assert mails(hosting) == before + 1
    hosting.php(COPY, "mail( 'customer@example.com', 'round', 'WordPress' );")
    assert len(kept(hosting, "round")) == 1
    assert mails(hosting) == before + 2


@pytest.mark.parametrize("path", sampled(["plugins/mailer.php", "db.php", "mu-plugins/000-mailer.php"]))
def test_a_wp_mail_of_a_plugin_s_own_does_not_come_first(hosting: Hosting, plugin: Any, path: str) -> None:
    plugin(path, GUARDED)
    for key in (COPY, PRODUCTION):
        if path.startswith("plugins/"):
            hosting.wp(key, "plugin", "activate", "mailer")
        say(hosting, "owned", key)
    assert sent(hosting, PRODUCTION) == "customer@example.com owned\n"
    assert sent(hosting) == ""
    assert kept(hosting, "owned")
    if path.startswith("plugins/"):
        for key in (COPY, PRODUCTION):
            hosting.wp(key, "plugin", "deactivate", "mailer", "--skip-plugins")


def test_one_that_cannot_be_loaded_beside_ours_is_loaded_all_the_same(hosting: Hosting, plugin: Any) -> None:
    fresh = {"Cookie": "wordpress_no_cache=1"}
    with hosting.without_events(COPY):  # whoever comes first fails, and they load WordPress, too
        plugin("mu-plugins/000-mailer.php", UNGUARDED)
        assert hosting.fetch(COPY, headers=fresh).status_code == 500
    assert hosting.fetch(COPY, headers=fresh).status_code == 200
    say(hosting, "of its own")
    assert "of its own" in sent(hosting)


def test_a_filter_that_answers_for_wordpress_is_not_asked(hosting: Hosting, plugin: Any) -> None:
    code = (
        "<?php add_filter( 'pre_wp_mail', function ( $a, $m ) { touch( WP_TEMP_DIR . '/sent' ); return true; }, 1, 2 );"
    )
    plugin(
        "mu-plugins/000-mailer.php", code + "add_action( 'phpmailer_init', fn() => touch( WP_TEMP_DIR . '/sent' ) );"
    )
    say(hosting, "filtered")
    assert len(kept(hosting, "filtered")) == 1
    assert hosting.node.ssh(["test", "-e", hosting.path(COPY, "tmp", "sent")], check=False).returncode != 0


def test_what_was_asked_for_of_others_is_told(hosting: Hosting) -> None:
    hosting.php(COPY, LOAD + "wp_remote_get( 'http://192.0.2.7/charge?card=1', array( 'timeout' => 3 ) );")
    said = hosting.node.ssh(["cat", hosting.path(COPY, "logs", "refused.log")]).stdout
    assert "192.0.2.7" in {json.loads(line)["host"] for line in said.splitlines()}
    assert "card" not in said
