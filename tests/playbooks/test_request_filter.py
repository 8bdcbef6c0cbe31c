"""The request filter in a real nginx: what must pass, what must not, and the operator's way out."""

import http.client
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.controlplane import until
from tests.lab import Lab, Node
from tests.lab.fixtures import unique_name

pytestmark = pytest.mark.lab

HOST = "filter.example.com"
SITE = r"""
server {
    listen 80;
    server_name filter.example.com;
    include /etc/nginx/trueup/request-filter.conf;
    include /etc/nginx/trueup/security-headers.conf;
    root /var/www/filter;
    location / { try_files $uri $uri/ /index.html; }
    location ~ \.php$ { return 200 answered; }
    location = /bypass { add_header X-Bypass $trueup_cache_bypass; return 204; }
    location ^~ /bypass/ { rewrite ^ /index.html break; add_header X-Bypass $trueup_cache_bypass; }
}
"""
FILTER = "/etc/nginx/conf.d/trueup-request-filter.conf"
RELOAD = r"""
listens() { grep -qas 'worker process' /proc/$1/cmdline && ! grep -qas 'shutting down' /proc/$1/cmdline; }
former=$(pgrep -P $(cat /run/nginx.pid) -f 'worker process') && systemctl reload nginx &&
for one in $former; do while listens $one; do sleep 0.05; done; done
"""
LOG = "/var/log/nginx/access.log"
Case = tuple[str, str, str, str | None]


def read_cases(name: str, *, reasons: bool) -> list[Case]:
    """(reason, method, target, agent) of each line."""
    cases = []
    for line in (Path(__file__).parent / "requests" / name).read_text().splitlines():
        if line and not line.startswith("#"):
            request, _, agent = line.partition(" | ")
            words = request.split(" ")
            reason = words.pop(0) if reasons else "-"
            method, target = words
            cases.append((reason, method, target, {"": "Mozilla/5.0", "-": None}.get(agent, agent)))
    return cases


PASSES = read_cases("passes.txt", reasons=False)
REFUSED = read_cases("refused.txt", reasons=True)


@pytest.fixture(scope="module")
def node(lab: Lab, provisioned_snapshot: str) -> Iterator[Node]:
    """Without fail2ban, which would rightly ban whoever runs these tests."""
    node = lab.up(unique_name("filter"), snapshot=provisioned_snapshot)
    node.ssh("systemctl stop fail2ban && mkdir -p /var/www/filter && echo passed >/var/www/filter/index.html")
    reload_with(node, "/etc/nginx/sites-enabled/trueup-filter.conf", SITE)
    yield node
    node.down()


def reload_with(node: Node, path: str, text: str) -> None:
    """Put a file in place and wait until no worker takes a request that has not read it."""
    node.ssh(f"cat >{path} && nginx -t && {RELOAD}", input=text)


def send(node: Node, method: str, target: str, **headers: str | None) -> http.client.HTTPResponse:
    """Exactly these bytes: no client's idea of a proper URL comes between."""
    connection = http.client.HTTPConnection(node.address, timeout=60)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": HOST, "Content-Length": "0", **headers}.items():
        if value is not None:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def logged(node: Node, word: str, count: int = 1) -> list[str]:
    """The lines of so many requests that have the word in them: nginx writes one after it has answered."""

    def found() -> list[str]:
        return node.ssh(["grep", "-F", word, LOG], check=False).stdout.splitlines()

    until(lambda: len(found()) == count, f"{count} lines of {word}", told=lambda: f"{len(found())} lines")
    return found()


def test_ordinary_requests_pass(node: Node) -> None:
    refused = [
        f"{method} {target} | {agent}"
        for _, method, target, agent in PASSES
        if send(node, method, target, User_Agent=agent).status == 403
    ]
    assert refused == []
    assert len(PASSES) > 100


def test_attacks_are_refused_for_the_reason_given(node: Node) -> None:
    passed = [
        f"{method} {target} | {agent}"
        for number, (_, method, target, agent) in enumerate(REFUSED)
        if send(node, method, target, User_Agent=agent, Referer=f"http://refused/{number}.").status != 403
    ]
    assert passed == []
    # Each worker writes of its own: the order of the lines is not that of the requests.
    lines = logged(node, '"http://refused/', len(REFUSED))
    found = {int(line.partition("http://refused/")[2].partition(".")[0]): line.rpartition(" ")[2] for line in lines}
    assert found == dict(enumerate(reason for reason, *_ in REFUSED))


def test_every_pattern_is_the_reason_for_some_refusal(node: Node) -> None:
    """A pattern that no case needs is one that nobody has tried: number them, and see which numbers are logged."""
    text = node.ssh(["cat", FILTER]).stdout
    numbers = itertools.count(1)
    numbered = re.sub(r" (agent|uri|query);$", lambda found: f" {found[1]}{next(numbers)};", text, flags=re.MULTILINE)
    try:
        reload_with(
            node, FILTER, numbered.replace("(?<trueup_reason>method|agent|uri|query)", r"(?<trueup_reason>\w+)")
        )
        for _, method, target, agent in REFUSED:
            send(node, method, target, User_Agent=agent, Referer="http://numbered/")
        lines = logged(node, '"http://numbered/"', len(REFUSED))
    finally:
        reload_with(node, FILTER, text)
    tried = {int(found[1]) for line in lines if (found := re.search(r"[a-z](\d+)$", line))}
    untried = set(range(1, next(numbers))) - tried
    assert "\n".join(numbered_line(numbered, number) for number in sorted(untried)) == ""


def numbered_line(text: str, number: int) -> str:
    return next(line.strip() for line in text.splitlines() if re.search(rf" [a-z]+{number};$", line))


def test_the_operators_exclusions_let_through(node: Node) -> None:
    target = "/payment/callback?note=%3Cscript%3E"
    assert send(node, "POST", target).status == 403
    reload_with(node, "/etc/nginx/trueup/exclusions.conf", '"~^filter\\.example\\.com/payment/callback\\?" 1;\n')
    assert send(node, "POST", target).status != 403
    assert send(node, "POST", "/payment/other?note=%3Cscript%3E").status == 403
    assert send(node, "POST", "/payment/../.env?/payment/callback").status == 403


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("/?trueup_login=0123secret", "/?***"),
        ("/wp-login.php?a=1&trueup_login=0123secret&b=2", "/wp-login.php?***"),
        ("/wp-login.php?action=rp&key=0123secret&login=ann", "/wp-login.php?***"),
        ("/?page=2&monkey=0123public", "/?page=2&monkey=0123public"),
    ],
)
def test_secrets_stay_out_of_the_log(node: Node, target: str, written: str) -> None:
    agent = uuid4().hex
    send(node, "GET", target, Referer=f"http://{HOST}{target}", User_Agent=agent)
    (line,) = logged(node, agent)
    assert f'"GET {written} HTTP/1.1"' in line
    assert f'"http://{HOST}{written}"' in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("method", "target", "headers", "bypass"),
    [
        ("GET", "/bypass", {}, "0"),
        ("HEAD", "/bypass?utm_source=x", {}, "0"),
        ("GET", "/bypass/shop/", {"Cookie": "_ga=1; wp-settings-time-1=2"}, "0"),
        ("GET", "/bypass/cartography/", {}, "0"),
        ("POST", "/bypass", {}, "1"),
        ("GET", "/bypass", {"Cookie": "a=1; wordpress_logged_in_0a=ann"}, "1"),
        ("GET", "/bypass", {"Cookie": "woocommerce_items_in_cart=1"}, "1"),
        ("GET", "/bypass", {"Cookie": "wp_woocommerce_session_0a=x"}, "1"),
        ("GET", "/bypass", {"Cookie": "comment_author_0a=Ann"}, "1"),
        ("GET", "/bypass", {"Cookie": "wp-postpass_0a=x"}, "1"),
        ("GET", "/bypass", {"Authorization": "Basic YTpi"}, "1"),
        ("GET", "/bypass/wp-admin/", {}, "1"),
        ("GET", "/bypass/wp-login.php", {}, "1"),
        ("GET", "/bypass/wp-cron.php?doing_wp_cron", {}, "1"),
        ("GET", "/bypass/xmlrpc.php", {}, "1"),
        ("GET", "/bypass/wp-json/wp/v2/posts", {}, "1"),
        ("GET", "/bypass?rest_route=/", {}, "1"),
        ("GET", "/bypass/cart/", {}, "1"),
        ("GET", "/bypass?wc-ajax=x", {}, "1"),
        ("GET", "/bypass?p=1&preview=true", {}, "1"),
    ],
)
def test_the_cache_is_bypassed_where_pages_differ_by_person(
    node: Node, method: str, target: str, headers: dict[str, str], bypass: str
) -> None:
    answer = send(node, method, target, **headers)
    assert answer.getheader("X-Bypass") == bypass


def test_security_headers_are_on_every_answer(node: Node) -> None:
    for target, status in (("/", 200), ("/.env", 403)):
        answer = send(node, "GET", target)
        assert answer.status == status
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        assert answer.getheader("X-Frame-Options") == "SAMEORIGIN"
        assert answer.getheader("Referrer-Policy") == "strict-origin-when-cross-origin"
        assert answer.getheader("X-FastCGI-Cache") == "NONE"
        assert answer.getheader("Strict-Transport-Security") is None
        assert answer.getheader("Server") == "nginx"


def test_other_sites_may_embed_a_post(node: Node) -> None:
    assert send(node, "GET", "/some-post/embed/").getheader("X-Frame-Options") is None
    assert send(node, "GET", "/?p=1&embed=true").getheader("X-Frame-Options") is None
    assert send(node, "GET", "/embedded/").getheader("X-Frame-Options") == "SAMEORIGIN"


def test_jails_read_the_log_that_nginx_writes(node: Node) -> None:
    """Each filter finds exactly the requests that it is about, in lines of a real nginx."""
    own = "http://jails/"
    send(node, "POST", "/wp-login.php", User_Agent='evil" 200 - x wp-login -', Referer=own)
    send(node, "POST", "/%77p-login.php", Referer=own)
    send(node, "GET", "/wp-login.php", Referer=own)
    send(node, "POST", "/xmlrpc.php", Referer=own)
    send(node, "GET", "/.env", Referer=own)
    send(node, "GET", "/harmless", User_Agent="uri", Referer=own)
    node.ssh(["tee", "/root/jails.log"], input="".join(f"{line}\n" for line in logged(node, own, 6)))
    found = {name: matches(node, name) for name in ("wp-login", "xmlrpc", "scanners", "http-auth")}
    assert found == {"wp-login": 2, "xmlrpc": 1, "scanners": 1, "http-auth": 0}


def matches(node: Node, name: str) -> int:
    command = f"fail2ban-regex /root/jails.log /etc/fail2ban/filter.d/trueup-{name}.conf"
    output = node.ssh(command).stdout
    found = re.search(r"^Lines: \d+ lines, \d+ ignored, (\d+) matched", output, re.MULTILINE)
    assert found, output
    return int(found.group(1))
