# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the environment serves: a page made by WordPress, an installed WordPress, a database that answers."""

from __future__ import annotations

import http.client
import time

from ansible.module_utils import trueup_environment_wordpress as wordpress
from ansible.module_utils.trueup_environment_run import Failure

TIMEOUT = 10
# nginx reloads in the background: until its new workers are there, the old ones know no such name and hang up.
RELOAD_SECONDS = 5
# WordPress never set this cookie, but nginx passes every request with its like to PHP: a kept page would prove nothing.
PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}


def check(run, layout, database, password, variables, user, *, thorough):
    """Raise Failure unless the environment is healthy. ``thorough`` asks WordPress's own tool as well."""
    tool = None
    if thorough:
        argv = wordpress.command(layout, "core", "is-installed")
        tool = run.start(argv, user=user, environment=wordpress.environment(layout))
    try:
        page(variables["url"])
    finally:
        if tool:
            run.wait(tool, hint="`wp core is-installed` says no")
    if not database.ask(password, f"SELECT option_value FROM wp_options WHERE {wordpress.URLS};"):
        raise Failure(f"Database {database.name} names no site address, so WordPress is not installed in it.")


def page(url):
    """Raise Failure unless the home page answers 200."""
    host = url.partition("://")[2]
    deadline = time.monotonic() + RELOAD_SECONDS
    while True:
        said = _status(host)
        if said == 200:
            return
        if time.monotonic() > deadline:
            raise Failure(f"{url} answers {said} on the node itself, but a healthy WordPress answers 200.")
        time.sleep(0.02 if isinstance(said, str) else 0.5)


def _status(host):
    """The status of the home page, or in words why there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT)
    try:
        connection.request("GET", "/", headers={"Host": host, "User-Agent": "Trueup", **PAST_THE_CACHE})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing ({error or type(error).__name__})"
    finally:
        connection.close()
