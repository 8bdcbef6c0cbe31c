"""What a site changes is not served any longer, as it was, out of nginx's cache; and nobody else's page goes by it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import until
from tests.playbooks.environments import Hosting
from tests.playbooks.nodes import provision
from tests.proof import sampled

SITE, NEIGHBOUR = "paging/production", "paging/staging"
SOCKET = "/run/trueup-purge.sock"
LOAD = "require_once dirname( __DIR__, 2 ) . '/wp-load.php';"

pytestmark = pytest.mark.lab

PAGES = r"""<?php
add_action( 'template_redirect', function () {
    if ( isset( $_GET['slow'] ) ) { sleep( 1 ); }
    if ( isset( $_GET['worked'] ) ) {
        file_put_contents( __DIR__ . '/../worked', '.', FILE_APPEND | LOCK_EX );
        sleep( 1 );
    }
    if ( isset( $_GET['brief'] ) ) { header( 'Cache-Control: max-age=1' ); }
    if ( isset( $_GET['store'] ) ) { header( 'Cache-Control: ' . $_GET['store'] ); }
    if ( isset( $_GET['expires'] ) ) { header( 'Expires: Thu, 01 Jan 1970 00:00:01 GMT' ); }
    if ( isset( $_GET['stores'] ) ) {
        header( 'Cache-Control: public' );
        header( 'Cache-Control: max-age=60', false );
    }
    if ( isset( $_GET['cookies'] ) ) { exit( json_encode( $_COOKIE ) ); }
    if ( isset( $_GET['seen'] ) ) {
        $seen = array_filter( $_SERVER, fn( $name ) => 0 === strpos( $name, 'HTTP_' ), ARRAY_FILTER_USE_KEY );
        exit( json_encode( $seen ) );
    }
} );
add_action( 'wp_footer', function () {
    if ( isset( $_GET['late'] ) ) { define( 'DONOTCACHEPAGE', true ); }
} );
"""
ASK = r"""
$said = array();
$until = microtime( true ) + SECONDS;
do {
    $stream = @stream_socket_client( 'unix:///run/trueup-purge.sock', $code, $message, 1 );
    $said[] = $stream ? 'open' : $code;
    if ( $stream ) { stream_set_blocking( $stream, false ); @fwrite( $stream, MESSAGE ); $kept[] = $stream; }
    if ( count( $kept ?? array() ) >= HELD ) { foreach ( $kept as $one ) { fclose( $one ); } $kept = array(); }
    usleep( PAUSE );
} while ( microtime( true ) < $until );
echo json_encode( array_count_values( $said ) );
"""


@pytest.fixture(scope="module")
def paged(own_hosting: Hosting) -> Iterator[Hosting]:
    for key in (SITE, NEIGHBOUR):
        own_hosting.apply(key).raise_if_failed()
        own_hosting.fetch(key)
        where = own_hosting.path(key, "current", "wp-content", "mu-plugins", "pages-test.php")
        own_hosting.node.ssh(["tee", where], input=PAGES)
    yield own_hosting
    for key in (SITE, NEIGHBOUR):
        own_hosting.node.ssh(["rm", own_hosting.path(key, "current", "wp-content", "mu-plugins", "pages-test.php")])


def _php(paged: Hosting, code: str, key: str = SITE) -> Any:
    """What PHP of the site's, with WordPress, answers as JSON."""
    text = paged.php(key, f"{LOAD} echo json_encode( ( function () {{ {code} }} )() );")
    return json.loads(text)


def _post(paged: Hosting, title: str, **fields: str) -> tuple[int, str]:
    """A new post's number and the path of its page."""
    wanted = json.dumps({"post_title": title, "post_status": "publish", "post_content": "first words", **fields})
    made = f"$id = wp_insert_post( json_decode( '{wanted}', true ) );"
    id_, url = _php(paged, f"{made} return [ $id, get_permalink( $id ) ];")
    return int(id_), "/" + url.split("/", 3)[3]


def _kept(paged: Hosting, path: str, key: str = SITE) -> str:
    """The text of a page, once nginx keeps it."""
    until(lambda: paged.fetch(key, path).headers["X-FastCGI-Cache"] == "HIT", f"{path} to be kept", pause_s=0.1)
    return paged.fetch(key, path).text


def _settled() -> None:
    """Wait until what was told before is done: a page that is kept from now on is kept for its time."""
    time.sleep(1.5)


@pytest.mark.parametrize(
    "change",
    [
        "wp_trash_post( %d );",
        pytest.param("wp_delete_post( %d, true );", marks=pytest.mark.long),
        pytest.param("wp_update_post( array( 'ID' => %d, 'post_status' => 'private' ) );", marks=pytest.mark.long),
        pytest.param("wp_update_post( array( 'ID' => %d, 'post_status' => 'draft' ) );", marks=pytest.mark.long),
    ],
)
def test_a_post_that_is_no_longer_shown_is_served_to_nobody(paged: Hosting, change: str) -> None:
    id_, path = _post(paged, "Soon gone")
    assert "first words" in _kept(paged, path)
    assert "first words" in _kept(paged, f"{path}?utm_source=news")
    _php(paged, change % id_)
    for address in (path, f"{path}?utm_source=news", path.rstrip("/")):
        until(lambda address=address: "first words" not in paged.fetch(SITE, address).text, f"{address} to be gone")  # type: ignore[misc]
    until(lambda: paged.fetch(SITE, path).status_code == 404, "the page to be a 404")


def test_a_new_post_is_on_the_home_page_and_in_the_feed(paged: Hosting) -> None:
    for path in ("/", "/feed/"):
        assert "Just written" not in _kept(paged, path)
    _post(paged, "Just written")
    for path in ("/", "/feed/"):
        until(lambda path=path: "Just written" in paged.fetch(SITE, path).text, f"{path} to show it")  # type: ignore[misc]


def test_what_is_changed_in_a_post_takes_its_page_and_its_lists_alone(paged: Hosting) -> None:
    id_, path = _post(paged, "Edited")
    _, other = _post(paged, "Left alone")
    _settled()
    for one in (path, other, "/"):
        _kept(paged, one)
    _php(paged, f"wp_update_post( array( 'ID' => {id_}, 'post_content' => 'second words' ) );")
    until(lambda: "second words" in paged.fetch(SITE, path).text, "the new words")
    # One look removes both, one after the other.
    until(lambda: paged.fetch(SITE, "/").headers["X-FastCGI-Cache"] != "HIT", "the list to go as well")
    assert paged.fetch(SITE, other).headers["X-FastCGI-Cache"] == "HIT"


def test_a_comment_is_on_its_page(paged: Hosting) -> None:
    id_, path = _post(paged, "Talked about", comment_status="open")
    assert "said of it" not in _kept(paged, path)
    fields = f"'comment_post_ID' => {id_}, 'comment_content' => 'said of it', 'comment_approved' => 1"
    _php(paged, f"wp_insert_comment( array( {fields} ) );")
    until(lambda: "said of it" in paged.fetch(SITE, path).text, "the comment")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("update_option( 'blogname', 'Renamed' );", "Renamed"),
        pytest.param(
            "wp_update_user( array( 'ID' => 1, 'display_name' => 'Another Name' ) );",
            "Another Name",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "wp_update_term( 1, 'category', array( 'name' => 'Another Category' ) );",
            "Another Category",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_many_pages_show_takes_all_of_them(paged: Hosting, change: str, shown: str) -> None:
    _, path = _post(paged, "Signed", post_author="1")
    _settled()
    before = {one: _kept(paged, one) for one in (path, "/")}
    assert shown not in before[path]
    _php(paged, change)
    until(lambda: shown in paged.fetch(SITE, path).text, f"{shown} to be shown")


def test_a_sold_piece_takes_the_products_page_alone(paged: Hosting) -> None:
    product = "new class( %d ) { function __construct( public $id ) {} function get_id() { return $this->id; } "
    product += "function get_parent_id() { return 0; } }"
    id_, path = _post(paged, "A chair")
    _settled()
    _kept(paged, "/")
    _kept(paged, path)
    _php(paged, f"do_action( 'woocommerce_product_set_stock', {product % id_} );")
    until(lambda: paged.fetch(SITE, path).headers["X-FastCGI-Cache"] == "MISS", "the product's page to be made anew")
    assert paged.fetch(SITE, "/").headers["X-FastCGI-Cache"] == "HIT"
    _php(paged, f"do_action( 'woocommerce_product_set_stock_status', {id_}, 'outofstock', null );")
    until(lambda: paged.fetch(SITE, "/").headers["X-FastCGI-Cache"] == "MISS", "the list to be made anew")


def test_a_page_that_was_being_made_meanwhile_is_not_kept(paged: Hosting) -> None:
    id_, path = _post(paged, "Raced")
    _settled()
    slow = threading.Thread(target=paged.fetch, args=(SITE, f"{path}?slow=1"))
    slow.start()
    time.sleep(0.5)  # it has read the post, and sleeps
    _php(paged, f"wp_trash_post( {id_} );")
    slow.join()
    until(lambda: paged.fetch(SITE, f"{path}?slow=1").status_code == 404, "what came too late to be gone")


def test_a_page_whose_time_is_over_is_not_served_when_it_is_gone(paged: Hosting) -> None:
    """Also without an event: somebody changed the table."""
    id_, path = _post(paged, "Gone by hand")
    assert "first words" in paged.fetch(SITE, f"{path}?brief=1").text
    paged.sql(SITE, f"UPDATE wp_posts SET post_status = 'draft' WHERE ID = {id_}")
    paged.redis(SITE, "FLUSHDB")
    until(lambda: paged.fetch(SITE, f"{path}?brief=1").status_code == 404, "the page to be gone", pause_s=0.3)


def _aged(paged: Hosting, path: str, seconds: int) -> tuple[int, int]:
    """Have the time of a kept page be over for so long; how long it was to be kept before, and how long beside that."""
    host = paged.environments[SITE]["hostnames"][0]
    code = f"""
import hashlib, os, pathlib, struct, time
name = hashlib.md5(b"httpGET{host}{path}").hexdigest()
file = pathlib.Path("/var/cache/nginx/{paged.id(SITE)}", name[-1], name[-3:-1], name)
valid, stale = struct.unpack("qq", file.read_bytes()[8:24])
print(round(valid - file.stat().st_mtime, -1), stale)
with file.open("r+b") as stream:
    stream.seek(8)
    stream.write(struct.pack("q", int(time.time()) - {seconds}))
"""
    kept, stale = paged.node.ssh(["python3", "-"], input=code).stdout.split()
    return int(float(kept)), int(stale)


@pytest.mark.long
def test_many_who_want_a_page_whose_time_is_over_have_it_made_once(paged: Hosting) -> None:
    where = paged.path(SITE, "current", "wp-content", "worked")
    path = "/?worked=1"
    _settled()
    _kept(paged, path)
    made = len(paged.node.ssh(["cat", where]).stdout)
    assert _aged(paged, path, 1) == (600, 10)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: paged.fetch(SITE, path), range(20)))
    assert {one.status_code for one in found} == {200}
    until(lambda: paged.fetch(SITE, path).headers["X-FastCGI-Cache"] == "HIT", "the new one to be kept")
    assert len(paged.node.ssh(["cat", where]).stdout) <= made + 2
    paged.node.ssh(["rm", where])


@pytest.mark.long
def test_an_old_page_is_served_beside_the_question_for_some_seconds_alone(paged: Hosting) -> None:
    id_, path = _post(paged, "Gone by hand, too")
    _settled()
    _kept(paged, path)
    paged.sql(SITE, f"UPDATE wp_posts SET post_status = 'draft' WHERE ID = {id_}")
    paged.redis(SITE, "FLUSHDB")
    _aged(paged, path, 1)
    assert paged.fetch(SITE, path).headers["X-FastCGI-Cache"] == "STALE"
    _aged(paged, path, 30)
    assert paged.fetch(SITE, path).status_code == 404


def test_a_visitor_is_told_of_caching_what_the_application_says(paged: Hosting) -> None:
    def said(path: str, **headers: str) -> list[str]:
        return [paged.fetch(SITE, path, headers=headers).headers.get("Cache-Control") for _ in range(2)]

    assert said("/?told=1") == [None, None]
    assert said("/?store=max-age=300") == ["max-age=300"] * 2
    assert said("/?stores=1") == ["public, max-age=60"] * 2
    assert said("/?told=2", Cookie="wordpress_no_cache=1") == [None, None]
    assert all("no-store" in one for one in said("/wp-login.php"))
    assert said("/wp-includes/css/dashicons.min.css") == ["max-age=2592000"] * 2


GATED = "while ( ! file_exists( WP_CONTENT_DIR . '/gate' ) ) { clearstatcache(); usleep( 100000 ); %s }"


@pytest.mark.long
@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [
        ("", ""),
        ("for ( $n = 0; $n < 30; $n++ ) { trueup_changed( 'page', %d ); }", "$GLOBALS['wpdb']->query( 'DO 1' );"),
    ],
    ids=["alone", "after_many"],
)
def test_a_long_run_tells_what_it_changed_while_it_is_at_work(paged: Hosting, before: str, meanwhile: str) -> None:
    id_, path = _post(paged, "In a long run")
    gate = paged.path(SITE, "current", "wp-content", "gate")
    _settled()
    _kept(paged, path)
    code = f"{before % id_ if before else ''} wp_trash_post( {id_} ); {GATED % meanwhile}"
    running = threading.Thread(target=paged.wp, args=(SITE, "eval", code))
    running.start()
    try:
        until(lambda: paged.fetch(SITE, path).status_code == 404, "the page to be gone")
        assert running.is_alive()
    finally:
        paged.node.ssh(["touch", gate])
        running.join()
        paged.node.ssh(["rm", gate])


@pytest.mark.long
def test_what_is_written_after_its_event_is_shown_when_the_request_is_over(paged: Hosting) -> None:
    id_, path = _post(paged, "Written on")
    told, gate = (paged.path(SITE, "current", "wp-content", name) for name in ("told", "gate"))
    _settled()
    code = f"wp_update_post( array( 'ID' => {id_}, 'post_content' => 'second words' ) ); usleep( 600000 );"
    code += f"wp_set_object_terms( {id_}, 'a tag', 'post_tag' ); touch( WP_CONTENT_DIR . '/told' ); {GATED % ''}"
    code += f"$GLOBALS['wpdb']->query( \"UPDATE wp_posts SET post_content = 'third words' WHERE ID = {id_}\" );"
    running = threading.Thread(target=paged.wp, args=(SITE, "eval", f"{code} clean_post_cache( {id_} );"))
    running.start()
    try:
        until(lambda: paged.node.ssh(["ls", told], check=False).returncode == 0, "it to have told of its changes")
        _settled()
        assert "second words" in _kept(paged, path)
    finally:
        paged.node.ssh(["touch", gate])
        running.join()
        paged.node.ssh(["rm", gate, told])
    until(lambda: "third words" in paged.fetch(SITE, path).text, "the last words")


def test_due_events_and_wp_cli_are_heard_too(paged: Hosting) -> None:
    id_, path = _post(paged, "By command")
    _kept(paged, path)
    paged.wp(SITE, "post", "delete", str(id_))
    until(lambda: paged.fetch(SITE, path).status_code == 404, "the page to be gone")


@pytest.mark.parametrize(
    "query",
    ["late=1", "store=no-store", "store=private", "expires=1"],
)
def test_what_the_application_wants_kept_by_nobody_is_kept_by_nobody(paged: Hosting, query: str) -> None:
    found = [paged.fetch(SITE, f"/?{query}") for _ in range(3)]
    assert [one.status_code for one in found] == [200] * 3
    assert {one.headers["X-FastCGI-Cache"] for one in found} <= {"MISS", "EXPIRED", "BYPASS"}
    assert {name for one in found for name in one.headers} & {"x-accel-expires", "x-trueup-began"} == set()


FORGED = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Server": "evil.example",
    "X-Forwarded-Port": "1234",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Prefix": "/evil",
    "X-Host": "evil.example",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "Forwarded": "host=evil.example",
}


def test_no_header_outside_of_the_key_reaches_what_is_kept(paged: Hosting) -> None:
    kept = paged.fetch(SITE, "/?seen=kept", headers=FORGED)
    assert kept.headers["X-FastCGI-Cache"] == "MISS"
    assert "HTTP_HOST" in kept.json()
    assert {f"HTTP_{name.upper().replace('-', '_')}" for name in FORGED} & kept.json().keys() == set()
    own = paged.fetch(SITE, "/?seen=own", headers={**FORGED, "Cookie": "wordpress_no_cache=1"}).json()
    assert own["HTTP_X_FORWARDED_FOR"] == "192.0.2.7", "who the visitor is may be asked where nothing is kept"
    assert {"HTTP_X_FORWARDED_HOST", "HTTP_X_ORIGINAL_URL", "HTTP_FORWARDED"} & own.keys() == set()
    override = paged.fetch(SITE, "/?seen=override", headers={"X-HTTP-Method-Override": "DELETE"})
    assert override.headers["X-FastCGI-Cache"] == "BYPASS"


VARIED = "varied/production"


@pytest.mark.long
def test_each_value_of_a_declared_cookie_has_pages_of_its_own(paged: Hosting) -> None:
    paged.apply(VARIED, vary_cookies=["currency", "lang"]).raise_if_failed()

    def kept(cookie: str) -> str:
        return str(paged.fetch(VARIED, "/", headers={"Cookie": cookie}).headers["X-FastCGI-Cache"])

    until(lambda: kept("") == "HIT", "the page to be kept")
    ways = ("currency=EUR", "currency=USD", "currency=EUR; lang=de", "lang=EUR", "currency=EUR lang=de")
    assert [kept(one) for one in ways] == ["MISS"] * len(ways)
    assert [kept(one) for one in ways] == ["HIT"] * len(ways)
    assert kept("other=1; currency=USD") == "HIT"
    _post_of(paged, VARIED)
    for one in ways:
        until(lambda one=one: kept(one) != "HIT", f"the page for {one} to go")  # type: ignore[misc]


ODD = [
    ("Currency=EUR; currency=USD", {"Currency": "EUR", "currency": "USD"}),
    ("currency=EUR; Currency=USD", {"currency": "EUR", "Currency": "USD"}),
    ("CURRENCY=EUR", {"CURRENCY": "EUR"}),
    ("currency=EUR; currency=USD", {"currency": "EUR"}),
    ("pll.language=de; pll_language=en", {"pll_language": "de"}),
    ("pll language=de", {"pll_language": "de"}),
    ("pll[language=de", {"pll_language": "de"}),
    ("currency[]=EUR", {"currency": ["EUR"]}),
    ("currency[a]=EUR; currency=USD", {"currency": {"a": "EUR"}}),
    ("other=1,currency=EUR", {"other": "1,currency=EUR"}),
    ("currency =EUR", {"currency_": "EUR"}),
    ("currency= EUR", {"currency": " EUR"}),
    ("currency=", {"currency": ""}),
    ("currency", {"currency": ""}),
    ("a;" * 5000 + "currency=EUR", {"a": ""}),
]
PLAIN = ["currency=EUR", "currency=EUR,x", "other=1; currency=EUR; pll_language=de", "pll_languages=de", "currency.x=1"]


@pytest.mark.long
def test_a_cookie_that_nginx_and_php_read_otherwise_is_nobodys_page(paged: Hosting) -> None:
    """Each is asked before anybody else, so that it would be what others get; and gets nothing that they have."""
    paged.apply(VARIED, vary_cookies=["currency", "pll_language"]).raise_if_failed()
    where = paged.path(VARIED, "current", "wp-content", "mu-plugins", "pages-test.php")
    paged.node.ssh(["tee", where], input=PAGES)

    def asked(cookie: str, query: str) -> tuple[Any, str]:
        page = paged.fetch(VARIED, f"/?cookies={query}", headers={"Cookie": cookie} if cookie else {})
        return page.json(), page.headers["X-FastCGI-Cache"]

    for n, (cookie, seen) in enumerate(ODD):
        assert asked(cookie, str(n)) == (seen, "BYPASS"), cookie[-60:]
        assert asked("currency=EUR", str(n)) == ({"currency": "EUR"}, "MISS")
        assert asked("", str(n)) == ([], "MISS")
        assert asked(cookie, str(n)) == (seen, "BYPASS"), cookie[-60:]
    for n, cookie in enumerate(PLAIN):
        assert [asked(cookie, f"p{n}")[1] for _ in range(2)] == ["MISS", "HIT"], cookie
    host = paged.environments[VARIED]["hostnames"][0]
    two = [word for one in (f"Host: {host}", "Cookie: currency=EUR", "Cookie: other=1") for word in ("-H", one)]
    text = paged.node.ssh(["curl", "-s", *two, "http://127.0.0.1/?cookies=two"]).stdout
    assert json.loads(text) == {"currency": "EUR", "other": "1"}


@pytest.mark.parametrize(
    "cookie", ["comment.author.a=x", "wp-postpass a=x", "a=1;\tcomment_author[a=x", "PHPSESSID[]=1"]
)
def test_a_cookie_of_ones_own_is_one_however_it_is_written(paged: Hosting, cookie: str) -> None:
    page = paged.fetch(SITE, "/?seen=written", headers={"Cookie": cookie})
    assert page.headers["X-FastCGI-Cache"] == "BYPASS"


@pytest.mark.long
def test_a_cookie_that_would_be_more_than_a_name_is_refused(paged: Hosting) -> None:
    run = paged.apply("refused/production", vary_cookies=['x";}'])
    assert run.status != 0
    assert "vary_cookies" in run.output


# A hacked site


def _ask(paged: Hosting, message: str, *, seconds: int = 0, held: int = 1, pause_us: int = 0) -> dict[str, int]:
    """What came of connections by the site's code; ``held`` of them are open at once, and then ended together."""
    code = ASK.replace("SECONDS", str(seconds)).replace("MESSAGE", json.dumps(message)).replace("HELD", str(held))
    found: dict[str, int] = json.loads(paged.php(SITE, code.replace("PAUSE", str(pause_us))))
    return found


def test_a_site_reaches_its_own_pages_alone(paged: Hosting) -> None:
    host = paged.environments[NEIGHBOUR]["hostnames"][0]
    _settled()
    for said in (
        "all\n",
        "page /\nlist /\n",
        f"page /{host}/\nlist http://{host}/\nall {paged.id(NEIGHBOUR)}\n",
        "../\n",
    ):
        for key in (SITE, NEIGHBOUR):
            _kept(paged, "/", key)
        assert _ask(paged, said) == {"open": 1}
        if said != "../\n":
            until(lambda: paged.fetch(SITE, "/").headers["X-FastCGI-Cache"] != "HIT", f"its own page to go by {said!r}")
        assert paged.fetch(NEIGHBOUR, "/").headers["X-FastCGI-Cache"] == "HIT", said


def test_whoever_is_no_sites_user_is_not_heard(paged: Hosting) -> None:
    _settled()
    _kept(paged, "/")
    for user in ("root", "www-data", "nobody"):
        say = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{SOCKET}')"
        say += "\ns.sendall(b'all\\n'); print(s.recv(1))"
        told = paged.node.ssh(["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-"], input=say, check=False)
        assert told.returncode == 0 or "Reset" in told.stderr or "Broken" in told.stderr, told.stderr
    assert paged.fetch(SITE, "/").headers["X-FastCGI-Cache"] == "HIT"


@pytest.mark.parametrize("how", sampled(["often", "silent", "much"], short=0))
def test_a_site_that_says_too_much_delays_nobody(paged: Hosting, how: str) -> None:
    values: dict[str, Any] = {
        "silent": {"message": "page /x", "held": 500, "pause_us": 10_000},
        "much": {"message": "page /x\n" * 10_000, "held": 5},
        "often": {"message": "all\n", "held": 1},
    }[how]
    id_, path = _post_of(paged, NEIGHBOUR)
    _kept(paged, path, NEIGHBOUR)
    shouting = threading.Thread(target=_ask, args=(paged,), kwargs={**values, "seconds": 8})
    shouting.start()
    time.sleep(0.5)
    _php(paged, f"wp_trash_post( {id_} );", NEIGHBOUR)
    until(lambda: paged.fetch(NEIGHBOUR, path).status_code == 404, "the neighbour's page to be gone")
    assert shouting.is_alive(), "it went while the other was still talking"
    shouting.join()
    assert paged.node.ssh("systemctl show trueup-purge.service -p NRestarts --value").stdout.strip() == "0"


def _post_of(paged: Hosting, key: str) -> tuple[int, str]:
    fields = "array( 'post_title' => 'Beside', 'post_status' => 'publish', 'post_content' => 'x' )"
    id_, url = _php(paged, f"$id = wp_insert_post( {fields} ); return [ $id, get_permalink( $id ) ];", key)
    return int(id_), "/" + url.split("/", 3)[3]


# Where nobody listens


def test_a_site_works_where_nobody_listens(paged: Hosting) -> None:
    node = paged.node
    node.ssh(["systemctl", "stop", "trueup-purge.socket", "trueup-purge.service"])
    try:
        _, path = _post(paged, "Unheard")
        assert paged.fetch(SITE, path).status_code == 200
        node.ssh(["rm", "-f", SOCKET])
        _, path = _post(paged, "Unheard too")
        assert paged.fetch(SITE, path).status_code == 200
    finally:
        node.ssh(["systemctl", "start", "trueup-purge.socket"])


@pytest.mark.long
def test_it_is_replaced_while_sites_talk_to_it(paged: Hosting, tmp_path: Path) -> None:
    """A message between the end of the one and the beginning of the other starts it again."""
    gate = paged.path(SITE, "current", "wp-content", "gate")
    shout = "while ( ! file_exists( WP_CONTENT_DIR . '/gate' ) ) { clearstatcache(); usleep( 2000 );"
    shout += f" @stream_socket_client( 'unix://{SOCKET}', $code, $message, 0.1 ); }}"
    shouting = threading.Thread(target=paged.wp, args=(SITE, "eval", shout))
    paged.node.ssh("echo '# another' >> /opt/trueup/page_purge.py")
    shouting.start()
    try:
        provision(paged.lab, paged.node, tmp_path, paged.wp_cli).raise_if_failed()
    finally:
        paged.node.ssh(["touch", gate])
        shouting.join()
        paged.node.ssh(["rm", gate])
    assert paged.node.ssh(["systemctl", "is-active", "trueup-purge.socket"]).stdout == "active\n"


def test_the_service_has_nothing_but_the_caches(paged: Hosting) -> None:
    _ask(paged, "all\n")
    asked = "systemctl is-active trueup-purge.service"
    until(lambda: paged.node.ssh(asked, check=False).stdout.strip() == "active", "it to listen")
    pid = paged.node.ssh("systemctl show trueup-purge.service -p MainPID --value").stdout.strip()
    status = paged.node.ssh(["cat", f"/proc/{pid}/status"]).stdout
    assert "CapEff:\t0000000000000000" in status
    assert paged.node.ssh(["stat", "-c", "%U", f"/proc/{pid}"]).stdout.strip() == "www-data"
    look = "setpriv --reuid=www-data --clear-groups ls /var/www/sites /etc/trueup"
    inside = paged.node.ssh(f"nsenter -t {pid} -m {look}", check=False)
    assert inside.returncode != 0
    assert inside.stdout == ""
