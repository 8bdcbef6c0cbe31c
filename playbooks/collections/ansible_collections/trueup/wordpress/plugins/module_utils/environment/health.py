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
SLOW_TIMEOUT = 60
SLOWER = 4
"""So many times as long as what is served may a page take: its first visit compiles it, and it is no less alive."""
MOST_BYTES = 16 << 20
"""Of a page. What goes on for longer, in bytes or in seconds, is no home page, whoever made it."""
# nginx reloads in the background: until its new workers are there, the old ones know no such name and hang up.
RELOAD_SECONDS = 5
# WordPress never set this cookie, but nginx passes every request with its like to PHP: a kept page would prove nothing.
PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}


UNHEALTHY = "RELEASE_UNHEALTHY"
END = b"</html>"
FATAL = re.compile(r"PHP (?:Fatal|Parse) error: +([^\n]{1,400})")


class Patience:
    """How many seconds a page may take: ``usual``, and up to ``most`` where what is served takes long itself.

    A machine under load is slow with every code: what is served is asked beside what is tried, in the same moment.
    """

    def __init__(self, usual=TIMEOUT, most=SLOW_TIMEOUT):
        self.usual = usual
        self.most = max(usual, most)
        self.served_s = None
        """What a page of the served release took when it was last asked; None: never, or it made none."""

    @classmethod
    def of(cls, variables):
        """As the environment's variable says."""
        said = variables.get("health") or {}
        return cls(said.get("timeout_s") or TIMEOUT, said.get("slow_timeout_s") or SLOW_TIMEOUT)

    @property
    def allowed(self):
        return min(self.most, max(self.usual, SLOWER * (self.served_s or 0)))

    def wait(self, asked, served=None, longest=None):
        """What ``asked(seconds)`` answers; TimeoutError when it takes longer than is allowed.

        ``served(seconds)`` says how many seconds the other one takes, or None. It is only asked when the usual time is
        over, as one more visitor, and for no longer than ``longest`` seconds; left out: ``most``.
        """
        begun = time.monotonic()
        tried = Asked(asked, self.most)
        if not tried.is_done(self.usual) and served:
            beside, asked_at = Asked(served, longest or self.most), time.monotonic()
            while not tried.is_done(0.05) and not beside.is_done(0):
                pass
            # Where it is not through yet, that is the least that it takes.
            least = max(time.monotonic() - asked_at, self.served_s or 0)
            self.served_s = beside.answer() or self.served_s if beside.is_done(0) else least
        if not tried.is_done(max(0, self.allowed - (time.monotonic() - begun))):
            took = f", and what is served took {self.served_s:.1f} s" if self.served_s else ""
            raise TimeoutError(f"none within {self.allowed:.0f} s{took}")
        return tried.answer()


class Asked:
    """A question that is asked in the background, ``ask(seconds)``: whoever waits for it can go on without it."""

    def __init__(self, ask, seconds):
        self.found, self.error = None, None
        self.thread = threading.Thread(target=self._ask, args=(ask, seconds), daemon=True)
        self.thread.start()

    def _ask(self, ask, seconds):
        try:
            self.found = ask(seconds)
        except Exception as error:  # noqa: BLE001 - raised where the answer is wanted
            self.error = error

    def is_done(self, seconds):
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def answer(self):
        if self.error:
            raise self.error
        return self.found


def check(run, layout, database, password, url, *, thorough, patience=None):
    """Raise Failure unless the environment is healthy. ``thorough`` asks WordPress's own tool as well."""
    tool = None
    if thorough:
        argv = wordpress.command(layout, "core", "is-installed")
        tool = sandbox.start(run, layout, argv, environment=wordpress.environment(layout))
    patience = patience or Patience()
    try:
        # It is compared with itself, asked without nginx: the code was seen to be well before it was switched to.
        page(url, patience, taken(layout, layout.release, url))
    finally:
        if tool:
            run.wait(tool, hint="`wp core is-installed` says no")
    if not database.ask(password, f"SELECT option_value FROM wp_options WHERE {wordpress.URLS};"):
        raise Failure(f"Database {database.name} names no site address, so WordPress is not installed in it.")


def page(url, patience=None, served=None):
    """Raise Failure unless the home page answers 200, in the time that ``Patience.wait`` gives it."""
    deadline = time.monotonic() + RELOAD_SECONDS
    patience = patience or Patience()
    # Visitors have this page: what hangs is to be left before long.
    longest = 2 * patience.usual
    while True:
        try:
            said = patience.wait(lambda seconds: answer(url, seconds), served, longest)
        except TimeoutError as error:
            said = f"nothing ({error})"
        if said == 200:
            return
        if time.monotonic() > deadline:
            raise Failure(f"{url} answers {said} on the node itself, but a healthy WordPress answers 200.")
        time.sleep(0.02 if isinstance(said, str) else 0.5)


def answer(url, timeout_s=TIMEOUT):
    """What the home page at ``url`` answers on this node: its status, or in words why there is none."""
    host, secure = domains.host_of(url), domains.is_secure(url)
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection("127.0.0.1", 443 if secure else 80, timeout=timeout_s)
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


def private(layout, release, url, former_url=None, patience=None, served=None, longest=None):
    """Raise Failure unless a release that nobody is sent to yet makes the home page, whole and without a fatal error.

    The request goes to the environment's own PHP by its socket, as nginx would send it after the switch. A redirect to
    ``former_url`` is WordPress telling its address: it is written down anew after the switch. ``served`` is the tree of
    the release that it is compared with where it is slow, which is waited for ``longest`` seconds.
    """

    def asked(seconds):
        return ask(layout.socket, layout.user, release, url, "/", "/index.php", seconds)

    beside = taken(layout, served, former_url or url) if served else None
    try:
        answer = (patience or Patience()).wait(asked, beside, longest)
    except (OSError, ValueError) as error:
        raise _unhealthy(layout, f"gives no answer ({error})") from error
    moved = answer.status in (301, 302) and answer.headers.get("location", "")
    if former_url and moved and moved.startswith(former_url) and not FATAL.search(answer.errors):
        return
    if why := flaw(answer):
        raise _unhealthy(layout, why)


def taken(layout, release, url):
    """A question how many seconds the home page of a release takes on its private address; None where it makes none."""

    def ask_it(seconds):
        begun = time.monotonic()
        try:
            said = ask(layout.socket, layout.user, release, url, "/", "/index.php", seconds)
        except (OSError, ValueError):
            return None
        return None if flaw(said) else time.monotonic() - begun

    return ask_it


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
