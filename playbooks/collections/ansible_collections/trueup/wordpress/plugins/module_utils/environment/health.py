# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the environment serves: a page made by WordPress, an installed WordPress, a database that answers."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import threading
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import fastcgi
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates import domains
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import sandbox, wordpress
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

TIMEOUT = 10
MOST_BYTES = 16 << 20
"""Of a page. What goes on for longer, in bytes or in seconds, is no home page, whoever made it."""
# nginx reloads in the background: until its new workers are there, the old ones know no such name and hang up.
RELOAD_SECONDS = 5
# WordPress never set this cookie, but nginx passes every request with its like to PHP: a kept page would prove nothing.
PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}


UNHEALTHY = "RELEASE_UNHEALTHY"
END = b"</html>"
FATAL = re.compile(r"PHP (?:Fatal|Parse) error: +([^\n]{1,400})")


def check(run, layout, database, password, url, *, thorough):
    """Raise Failure unless the environment is healthy. ``thorough`` asks WordPress's own tool as well."""
    tool = None
    if thorough:
        argv = wordpress.command(layout, "core", "is-installed")
        tool = sandbox.start(run, layout, argv, environment=wordpress.environment(layout))
    try:
        page(url)
    finally:
        if tool:
            run.wait(tool, hint="`wp core is-installed` says no")
    if not database.ask(password, f"SELECT option_value FROM wp_options WHERE {wordpress.URLS};"):
        raise Failure(f"Database {database.name} names no site address, so WordPress is not installed in it.")


def page(url):
    """Raise Failure unless the home page answers 200."""
    deadline = time.monotonic() + RELOAD_SECONDS
    while True:
        said = answer(url)
        if said == 200:
            return
        if time.monotonic() > deadline:
            raise Failure(f"{url} answers {said} on the node itself, but a healthy WordPress answers 200.")
        time.sleep(0.02 if isinstance(said, str) else 0.5)


def answer(url):
    """What the home page at ``url`` answers on this node: its status, or in words why there is none."""
    host, secure = domains.host_of(url), domains.is_secure(url)
    deadline = time.monotonic() + TIMEOUT
    connection = http.client.HTTPConnection("127.0.0.1", 443 if secure else 80, timeout=TIMEOUT)
    try:
        connection.connect()
        if secure:
            connection.sock = _context().wrap_socket(connection.sock, server_hostname=host)
        connection.request("GET", "/", headers={"Host": host, "User-Agent": "Trueup", **PAST_THE_CACHE})
        wire = connection.sock  # the connection lets go of it when the answer is the last one
        answer = connection.getresponse()
        is_whole = _is_whole(answer, wire, deadline)
        is_html = (answer.getheader("Content-Type") or "text/html").startswith("text/html")
        if answer.status == 200 and is_whole is None:
            return "200 with a page that does not end"
        if answer.status == 200 and is_html and not is_whole:
            return "200 with a page that is not whole"
        return answer.status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing ({error or type(error).__name__})"
    finally:
        connection.close()


def _is_whole(answer, wire, deadline):
    """Whether the end of a page is in the answer, of which no more is kept than that takes; None where it has none."""
    found, last, size = False, b"", 0
    while size <= MOST_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        wire.settimeout(left)
        block = answer.read1(1 << 16)
        if not block:
            return found
        size += len(block)
        last = last[-len(END) :] + block.lower()
        found = found or END in last
    return None


def _context():
    """That the right certificate is shown is looked at elsewhere; who issued it is not this node's to judge."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def private(layout, release, url, former_url=None):
    """Raise Failure unless a release that nobody is sent to yet makes the home page, whole and without a fatal error.

    The request goes to the environment's own PHP by its socket, as nginx would send it after the switch. A redirect to
    ``former_url`` is WordPress telling its address: it is written down anew after the switch.
    """
    try:
        answer = ask(layout.socket, layout.user, release, url, "/", "/index.php", TIMEOUT)
    except (OSError, ValueError) as error:
        raise _unhealthy(layout, f"gives no answer ({error})") from error
    moved = answer.status in (301, 302) and answer.headers.get("location", "")
    if former_url and moved and moved.startswith(former_url) and not FATAL.search(answer.errors):
        return
    if why := flaw(answer):
        raise _unhealthy(layout, why)


class Visit:
    """A first visit of a new site on its private address, while nginx takes it up: PHP compiles all that a page needs.

    What comes of it is not looked at: the check that follows asks for the same page, in the way that visitors do.
    """

    def __init__(self, layout, url, begin=None):
        """``begin`` returns when the tables are there; PHP may still be starting then."""
        self.thread = threading.Thread(target=self._ask, args=(layout, url, begin), daemon=True)
        self.thread.start()

    def _ask(self, layout, url, begin):
        if begin:
            begin()
        deadline = time.monotonic() + TIMEOUT
        with contextlib.suppress(OSError, ValueError):
            while True:
                try:
                    ask(layout.socket, layout.user, layout.release, url, "/", "/index.php", TIMEOUT)
                    return
                except (FileNotFoundError, ConnectionRefusedError):
                    if time.monotonic() > deadline:
                        return
                time.sleep(0.01)

    def wait(self):
        self.thread.join(TIMEOUT)


def ask(socket, user, tree, url, uri, script, timeout_s):
    """What PHP of ``user`` at ``socket`` says to a GET of ``uri``, which ``script`` of the tree handles; or OSError."""
    return fastcgi.request(socket, user, _parameters(tree, url, uri, script), timeout_s)


def flaw(answer):
    """In words, what is wrong with the answer to a page; None where it is whole and without a fatal error."""
    fatal = FATAL.search(answer.errors)
    if fatal:
        return f"ends in a fatal error: {fatal.group(1)}"
    if answer.status != 200:
        return f"answers {answer.status}"
    if not answer.body.strip():
        return "answers with a white page"
    is_html = answer.headers.get("content-type", "").startswith("text/html")
    if is_html and b"</html>" not in answer.body.lower():
        return "answers with a page that breaks off"
    return None


def _unhealthy(layout, what):
    return Failure(
        f"Release {layout.release_id} {what}, as its private address shows. It was not switched to.",
        trueup_code=UNHEALTHY,
    )


def _parameters(release, url, uri, script):
    path, _, query = uri.partition("?")
    scheme, _, host = url.partition("://")
    secure = {"HTTPS": "on"} if scheme == "https" else {}
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "trueup",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": "GET",
        "REQUEST_SCHEME": scheme,
        "REQUEST_URI": uri,
        "DOCUMENT_URI": script if path == "/" else path,
        "QUERY_STRING": query,
        "SCRIPT_NAME": script,
        "SCRIPT_FILENAME": f"{release}{script}",
        "DOCUMENT_ROOT": release,
        "SERVER_NAME": host,
        "SERVER_ADDR": "127.0.0.1",
        "SERVER_PORT": "443" if secure else "80",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": "Trueup",
        "REDIRECT_STATUS": "200",
        **secure,
    }
