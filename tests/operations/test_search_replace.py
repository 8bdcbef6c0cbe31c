"""A text replaced in a site's tables by request: counted first, made while customers order, and undone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.churn import options
from tests.controlplane import run_git, until
from tests.lab.s3 import S3
from tests.place import Place
from tests.playbooks.test_rewrite import php

pytestmark = pytest.mark.lab
OLD, NEW = "Welcome to WordPress", "Welcome to WordPress, and <b>to</b> “us”"
WIDGET = {2: {"title": OLD, "text": f"<p>{OLD}</p>"}}
BUILT = r"""[{"id":"a","settings":{"title":"%s\/\u00e9"}}]"""
BLOCK = r"""<!-- wp:acme/card {"title":"%s"} --><p>%s</p><!-- /wp:acme/card -->"""


@pytest.fixture(scope="module")
def site(place: Place, storage: S3) -> dict[str, Any]:
    environment = place.make_site("replaced")
    place.sql(environment, "CREATE TABLE wp_orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200))")
    return environment


def fill(place: Place, site: dict[str, Any]) -> None:
    """What holds the text, in the forms that sites keep it in."""
    block, built = BLOCK % (OLD, OLD), BUILT % OLD
    script = (
        f"UPDATE wp_posts SET post_content = X'{block.encode().hex()}', post_title = '{OLD}' WHERE ID = 1;"
        f"REPLACE INTO wp_postmeta VALUES (900, 1, '_elementor_data', X'{built.encode().hex()}');"
        f"REPLACE INTO wp_options VALUES (900, 'widget_acme', X'{php(WIDGET).hex()}', 'yes');"
        f"UPDATE wp_options SET option_value = '{OLD}' WHERE option_name = 'blogdescription';"
        f"DELETE FROM wp_orders; INSERT INTO wp_orders VALUES (1, 'To: {OLD}')"
    )
    place.sql(site, script)
    place.run(place.plane.http.post(f"/api/environments/{site['id']}/cache/purge"))


def state(place: Place, site: dict[str, Any]) -> str:
    """Of all tables, but for what WordPress changes by itself in a moment."""
    tables = "wp_posts, wp_postmeta, wp_orders, wp_users, wp_usermeta, wp_comments, wp_commentmeta, wp_terms"
    return place.sql(site, f"CHECKSUM TABLE {tables}; {options('option_name, MD5(option_value)')}")


def replace(place: Place, site: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = place.plane.http.post(f"/api/environments/{site['id']}/search-replace", json=more)
    job = place.run(answer)
    assert job["status"] == "succeeded", job
    found: dict[str, Any] = place.plane.http.get(f"/api/jobs/{job['id']}").json()
    return found


@contextmanager
def orders_come_in(place: Place, site: dict[str, Any]) -> Iterator[list[str]]:
    """Customers who order all the time, and say what they ordered; what was acknowledged is in the list."""
    over, acknowledged = threading.Event(), []

    def order() -> None:
        while not over.is_set():
            note = f"order {len(acknowledged)}"
            place.sql(site, f"INSERT INTO wp_orders (note) VALUES ('{note}')")
            acknowledged.append(note)

    thread = threading.Thread(target=order)
    thread.start()
    try:
        yield acknowledged
    finally:
        over.set()
        thread.join()


def test_it_is_counted_first_and_then_made_while_customers_order(place: Place, site: dict[str, Any]) -> None:
    fill(place, site)
    place.page(site)
    before = state(place, site)
    counted = replace(place, site, **{"from": OLD, "to": NEW})
    assert counted["job_type"] == "search"
    assert counted["result"]["dry_run"] is True
    assert state(place, site) == before
    found = counted["result"]["replaced"]
    counts = {one["table"]: one["count"] for one in found["tables"]}
    assert counts.items() >= {"wp_postmeta": 1, "wp_options": 2, "wp_orders": 1}.items()
    assert counts["wp_posts"] >= 2
    with orders_come_in(place, site) as acknowledged:
        done = replace(place, site, **{"from": OLD, "to": NEW, "dry_run": False})
    assert done["job_type"] == "search-replace"
    assert done["result"]["replaced"] == found
    notes = place.sql(site, "SELECT note FROM wp_orders ORDER BY id").splitlines()
    assert notes[0] == f"To: {NEW}"
    assert set(acknowledged) <= set(notes)
    assert acknowledged

    escaped = NEW.replace("<", r"\u003c").replace(">", r"\u003e")
    content = place.sql(site, "SELECT post_content FROM wp_posts WHERE ID = 1")
    assert content == BLOCK % (escaped, NEW)
    built = place.sql(site, "SELECT meta_value FROM wp_postmeta WHERE meta_id = 900")
    assert built == BUILT % NEW.replace("/", r"\/")
    widget = place.sql(site, "SELECT option_value FROM wp_options WHERE option_id = 900")
    assert widget.encode() == php({2: {"title": NEW, "text": f"<p>{NEW}</p>"}})
    # The page that nginx kept and what Redis kept are gone.
    assert "and <b>to</b>" in place.page(site).text
    assert done["result"]["replaced"]["left"] == found["left"]
    backups = place.plane.http.get(f"/api/environments/{site['id']}/backups").json()
    assert (backups[0]["backup_scope"], backups[0]["status"]) == ("full", "completed")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"from": "", "to": "x"}, 400, "invalid_request"),
        ({"from": "a", "to": "b"}, 400, "invalid_request"),
        ({"from": "ab", "to": "ab"}, 409, "conflict"),
        ({"from": "  ", "to": "b"}, 400, "invalid_request"),
        ({"from": "a\nb", "to": "b"}, 400, "invalid_request"),
        ({"from": "a" * 1001, "to": "b"}, 400, "invalid_request"),
        ({"from": "ab", "to": "b" * 1001}, 400, "invalid_request"),
        ({"from": "ab"}, 400, "invalid_request"),
        ({"from": "ab", "to": "b", "tables": ["a`b"]}, 400, "invalid_request"),
        ({"from": "ab", "to": "b", "groups": ["all"]}, 400, "invalid_request"),
        ({"from": "ab", "to": "b", "dry_run": "no"}, 400, "invalid_request"),
    ],
)
def test_what_makes_no_sense_is_refused(
    place: Place, site: dict[str, Any], body: dict[str, Any], status: int, code: str
) -> None:
    answer = place.plane.http.post(f"/api/environments/{site['id']}/search-replace", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_command_counts_unless_it_is_told_to_replace(place: Place, site: dict[str, Any]) -> None:
    fill(place, site)
    asked = ("search-replace", "replaced/production", "To: Welcome", "An: {{ 6 * 7 }}", "--table", "orders")
    counted = place.plane.cli(*asked)
    assert counted.exit_code == 0, counted.output
    assert "wp_orders" in counted.stdout
    assert "Nothing was changed" in counted.stdout
    assert place.sql(site, "SELECT note FROM wp_orders WHERE id = 1") == f"To: {OLD}"
    done = place.plane.cli(*asked, "--apply")
    assert done.exit_code == 0, done.output
    assert "wp_orders" in done.stdout
    assert place.sql(site, "SELECT note FROM wp_orders WHERE id = 1") == "An: {{ 6 * 7 }} to WordPress"


def test_a_table_that_is_not_there_is_told(place: Place, site: dict[str, Any]) -> None:
    body = {"from": OLD, "to": NEW, "tables": ["nowhere"]}
    job = place.run(place.plane.http.post(f"/api/environments/{site['id']}/search-replace", json=body))
    assert (job["status"], job["error_code"]) == ("failed", "SEARCH_TABLE_MISSING")
    assert place.plane.http.get(f"/api/environments/{site['id']}").json()["status"] == "active"


@contextmanager
def orders_held(place: Place, site: dict[str, Any]) -> Iterator[None]:
    """Somebody holds the table of orders: whoever changes it waits."""
    node, database = place.node_of(site), "wp_" + site["id"].replace("-", "")[:12]
    sql = "BEGIN; SELECT * FROM wp_orders FOR UPDATE; SELECT SLEEP(1000)"
    node.ssh(["systemd-run", "--quiet", "--unit=holding-orders", "mariadb", database, "-e", sql])
    try:
        held = "mariadb -N -e \"SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(1000)'\""
        until(lambda: node.ssh(held).stdout.strip() != "0", "the table to be held")
        yield
    finally:
        node.ssh(["systemctl", "stop", "holding-orders.service"], check=False)


def in_the_middle(place: Place, site: dict[str, Any], body: dict[str, Any]) -> str:
    """The id of a job that has changed some tables, and waits for the orders'."""
    answer = place.plane.http.post(f"/api/environments/{site['id']}/search-replace", json=body)
    assert answer.status_code == 202, answer.text
    reached = ["grep", "-q", "wp_orders", f"/var/lib/trueup/replaced-{site['id']}.jsonl"]
    node = place.node_of(site)
    until(lambda: node.ssh(reached, check=False).returncode == 0, "the orders' turn", told=place.plane.log)
    found: str = answer.json()["job_id"]
    return found


# Tables come by their names, so comments are changed before orders, and posts after them.
BODY = {"from": OLD, "to": NEW, "dry_run": False}


@pytest.mark.long
def test_killed_in_the_middle_it_begins_anew_and_each_text_goes_in_once(place: Place, site: dict[str, Any]) -> None:
    fill(place, site)
    place.sql(site, f"UPDATE wp_comments SET comment_content = '{OLD}!' WHERE comment_ID = 1")
    with orders_held(place, site):
        job_id = in_the_middle(place, site, BODY)
        assert place.sql(site, "SELECT comment_content FROM wp_comments WHERE comment_ID = 1") == f"{NEW}!"
        place.plane.kill()
    place.plane.restart()
    job = place.plane.wait_job(job_id)
    assert (job["status"], job["attempt_count"]) == ("succeeded", 2), job
    assert place.sql(site, "SELECT comment_content FROM wp_comments WHERE comment_ID = 1") == f"{NEW}!"
    assert place.sql(site, "SELECT note FROM wp_orders WHERE id = 1") == f"To: {NEW}"


@pytest.mark.long
def test_cancelled_in_the_middle_it_is_taken_back_row_by_row(place: Place, site: dict[str, Any]) -> None:
    fill(place, site)
    place.sql(site, f"UPDATE wp_comments SET comment_content = '{OLD}!' WHERE comment_ID = 1")
    applied = place.manifest(site)["contents"]
    with orders_held(place, site):
        job_id = in_the_middle(place, site, BODY)
        place.plane.http.post(f"/api/jobs/{job_id}/cancel")
        assert place.plane.wait_job(job_id)["status"] == "cancelled"
        place.sql(site, "UPDATE wp_posts SET post_title = 'by a visitor' WHERE ID = 1")
    query = "SELECT comment_content FROM wp_comments WHERE comment_ID = 1"
    until(lambda: place.sql(site, query) == f"{OLD}!", "what was half-way to go back", told=place.plane.log)
    assert place.sql(site, "SELECT post_title FROM wp_posts WHERE ID = 1") == "by a visitor"
    assert place.sql(site, "SELECT note FROM wp_orders WHERE id = 1") == f"To: {OLD}"
    assert place.manifest(site)["contents"] == applied


@pytest.mark.long
def test_it_comes_back_by_a_revert(place: Place, site: dict[str, Any]) -> None:
    place.plane.http.post(f"/api/environments/{site['id']}/reset")
    fill(place, site)
    until(
        lambda: place.plane.http.get(f"/api/environments/{site['id']}").json()["status"] == "active", "it to be active"
    )
    job = replace(place, site, **BODY)
    assert place.sql(site, "SELECT note FROM wp_orders WHERE id = 1") == f"To: {NEW}"
    clone = place.plane.clone.path
    run_git(clone, "pull", "-q", "--rebase", "origin", "main")
    run_git(clone, "revert", "--no-edit", place.plane.declaring_commits()[job["id"]][0])
    run_git(clone, "commit", "-q", "--amend", "--no-edit", "--trailer", "Trueup-Confirm: replaced/production")
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    query = "SELECT note FROM wp_orders WHERE id = 1"
    until(lambda: place.sql(site, query) == f"To: {OLD}", "what was before", told=place.plane.log)
    assert place.sql(site, "SELECT option_value FROM wp_options WHERE option_id = 900").encode() == php(WIDGET)
