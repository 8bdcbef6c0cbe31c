"""A site for the cases of one operation: they are planted together, and each is looked at of its own."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.controlplane import until
from tests.lab.listener import Listener
from tests.lab.node import Node
from tests.lab.stand import Stand
from tests.playbooks.test_rewrite import php
from tests.shop.table import Case, Group

PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}
STANDS = re.compile(r"@[a-z_.]+@")
PATIENCE_S = 15.0
"""Of what is told to nginx: only ends a case that fails."""
POST = {"post_type": "post", "post_status": "publish", "post_author": 1, "comment_status": "open"}
POST |= {"post_date": "2026-01-02 03:04:05", "post_date_gmt": "2026-01-02 03:04:05"}


@dataclass
class World:
    """``sides`` are environments by what they are here: `production`, and `staging` where there is a copy of it."""

    stand: Stand
    outside: Listener
    group: Group
    sides: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the case whose job it is; by `""` that of all cases."""
    said: dict[str, Any] = field(default_factory=dict)
    """What was seen while the operation ran, by name."""
    judged: dict[str, list[str]] = field(default_factory=dict)
    """What was wrong, by the case that was looked at while the operation ran."""
    _words: dict[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        return f"shop-{self.group.operation}"

    # What there is

    def node(self, side: str) -> Node:
        return self.stand.place.node_of(self.sides[side])

    def joined(self, side: str, environment: dict[str, Any]) -> None:
        """There is one more side."""
        self.sides[side] = environment
        self._words.clear()

    def database(self, side: str) -> str:
        return "wp_" + str(self.sides[side]["id"]).replace("-", "")[:12]

    def directory(self, side: str) -> str:
        return f"/var/www/sites/{self.sides[side]['id']}"

    def host(self, side: str) -> str:
        return str(self.sides[side]["preview_url"]).partition("://")[2]

    def words(self, side: str) -> Mapping[str, str]:
        """What stands for a side's own in the data; with a side's name before it, for that side's."""
        if side not in self._words:
            found = {"listener": f"{self.outside.address}:{self.outside.port}"}
            for name, environment in self.sides.items():
                url = self.sql(name, "SELECT option_value FROM wp_options WHERE option_name = 'home'")
                own = {
                    "url": url,
                    "host": url.partition("://")[2],
                    "directory": self.directory(name),
                    "database": self.database(name),
                    "preview_url": environment["preview_url"],
                    "preview_host": self.host(name),
                }
                found |= {f"{name}.{word}": value for word, value in own.items()}
                found |= own if name == side else {}
            self._words[side] = found
        return self._words[side]

    def said_here(self, side: str, value: Any) -> Any:
        """A value out of the data, as it is said for this side: `@url@` and its like are replaced."""
        if isinstance(value, Mapping):
            return {key: self.said_here(side, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.said_here(side, item) for item in value]
        if isinstance(value, str) and STANDS.search(value):
            for name, word in self.words(side).items():
                value = value.replace(f"@{name}@", word)
        return value

    # What is done

    def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        return self.stand.place.plane.http.request(method, f"/api{path}", json=body or None)

    def on(self, side: str, path: str) -> str:
        return f"/environments/{self.sides[side]['id']}{path}"

    def run(self, side: str, path: str, **body: Any) -> dict[str, Any]:
        """The finished job of a request, with its result, which becomes that of all cases."""
        job = self.stand.place.run(self.ask("POST", self.on(side, path), **body))
        self._words.clear()
        self.jobs[""] = self.stand.place.plane.job(job["id"])
        return self.jobs[""]

    def done(self, side: str, path: str, **body: Any) -> dict[str, Any]:
        """The same of what has to succeed."""
        job = self.run(side, path, **body)
        assert job["status"] == "succeeded", job
        return job

    def sql(self, side: str, query: str) -> str:
        """What root is answered."""
        client = ["mariadb", "--default-character-set=utf8mb4", "-N", "--raw", self.database(side)]
        return self.node(side).ssh(client, input=query).stdout.rstrip("\n")

    def wp(self, side: str, *arguments: str) -> str:
        user = self.database(side).replace("_", "-")
        argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "wp", *arguments]
        return self.node(side).ssh([*argv, f"--path={self.directory(side)}/current"]).stdout.strip()

    def forget(self, side: str) -> None:
        """WordPress keeps options in Redis."""
        socket = f"/run/trueup-redis/{self.sides[side]['id']}/redis.sock"
        self.node(side).ssh(["redis-cli", "-s", socket, "flushdb"])

    def page(self, side: str, path: str = "/", headers: Mapping[str, str] | None = None) -> httpx.Response:
        sent = PAST_THE_CACHE if headers is None else headers
        return self.node(side).fetch(path, host=self.host(side), headers=sent, timeout=30)

    # What is planted

    def plant(self, section: str, side: str) -> None:
        """What all cases have of this section, in one go."""
        found = [self.said_here(side, case.planted[section]) for case in self.group.cases if section in case.planted]
        statements = ["SET sql_mode = '';"]
        statements += [f"{one['sql'].strip().rstrip(';')};" for one in found if "sql" in one]
        for one in found:
            statements += _rows("wp_options", [_option(*pair) for pair in one.get("options", {}).items()])
            statements += _rows("wp_posts", [self.said_here(side, _post(post)) for post in one.get("posts", ())])
            for table, rows in one.get("rows", {}).items():
                statements += _rows(table, rows)
        self.sql(side, "\n".join(statements))
        for one in found:
            for path, text in one.get("files", {}).items():
                self.put(side, path, text)
        self.forget(side)
        if code := "".join(one["php"] for one in found if "php" in one):
            self.wp(side, "eval", code)

    def put(self, side: str, path: str, text: str) -> None:
        """A file of the site's own, below its directory."""
        place, user = f"{self.directory(side)}/{path}", self.database(side).replace("_", "-")
        script = f"install -d -o {user} -g {user} $(dirname {shlex.quote(place)})"
        self.node(side).ssh(
            f"{script} && cat > {shlex.quote(place)} && chown {user}:{user} {shlex.quote(place)}", input=text
        )

    # What is looked at

    def wrong(self, case: Case) -> list[str]:
        """What is otherwise than the case expects."""
        if case.name in self.judged:
            return self.judged[case.name]
        return [word for check in case.expect for word in self._judged(case, check)]

    def _judged(self, case: Case, check: Mapping[str, Any]) -> list[str]:
        side = str(check.get("of", self.group.asked.get("looked_at", "production")))
        here = self.said_here(side, dict(check))
        if "page" not in check:
            return _differences(here, self._seen(case, here, side), lambda: self._seen(case, here, "production"))
        words: list[str] = []

        def fine() -> bool:
            words[:] = _page(here, self.page(side, here["page"], here.get("sent")))
            return not words

        try:
            until(fine, "the page", PATIENCE_S, pause_s=0.2)
        except AssertionError:
            return list(words)
        return []

    def _seen(self, case: Case, check: Mapping[str, Any], side: str) -> str | None:
        """What is there of what the check looks at; None: nothing."""
        looks: Mapping[str, Callable[[Any], str | None]] = {
            "option": lambda name: self._option(side, name),
            "sql": lambda query: self.sql(side, query),
            "file": lambda path: self._file(side, path, check.get("lines", "")),
            "job": lambda name: self._job(case, name),
            "held": lambda name: self._held(side, name),
            "calls": lambda _: b"\n".join(self.outside.calls).decode(errors="replace"),
            "said": lambda name: str(self.said[name]),
            "missing": lambda query: self._missing(side, query),
        }
        (name,) = looks.keys() & check.keys()
        return looks[name](check[name])

    def _option(self, side: str, name: str) -> str | None:
        found = self.sql(side, f"SELECT CONCAT('=', option_value) FROM wp_options WHERE option_name = '{name}'")
        return found[1:] if found else None

    def _file(self, side: str, path: str, lines: str) -> str | None:
        done = self.node(side).ssh(["cat", f"{self.directory(side)}/{path}"], check=False)
        if done.returncode:
            return None
        return "\n".join(line for line in done.stdout.splitlines() if lines in line) if lines else done.stdout

    def _job(self, case: Case, name: str) -> str:
        job = self.jobs.get(case.name, self.jobs.get(""))
        assert job is not None
        found = job[name]
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    def _held(self, side: str, name: str) -> str | None:
        rows = self.ask("GET", self.on(side, "/held")).json()["held"]
        found = [f"{one['kind']} {one['count']}" for one in rows if one["name"] == name]
        return "\n".join(found) or None

    def _missing(self, side: str, query: str) -> str:
        """What visitors were acknowledged and the query does not answer, or answers twice."""
        there = self.sql(side, query).split()
        acknowledged = self.said["acknowledged"]
        assert acknowledged, "nobody was acknowledged anything"
        return " ".join(one for one in acknowledged if there.count(one) != 1)


def _differences(check: Mapping[str, Any], seen: str | None, other: Callable[[], str | None]) -> list[str]:
    """In words what is not as the check says. ``other``: the same in production."""
    what = next(f"{name} {check[name]}" for name in check if name not in {"of", "lines"})
    if check.get("there") is False:
        return [] if seen is None else [f"{what} is there: {seen[:300]}"]
    if seen is None:
        return [f"{what} is not there"]
    found = []
    if "is" in check:
        wanted = check["is"] if isinstance(check["is"], str) else php(check["is"]).decode()
        found += [] if seen == wanted else [f"{what} is {seen[:600]!r} and not {wanted[:600]!r}"]
    found += [f"{what} lacks {word!r}: {seen[:900]}" for word in _list(check, "has") if word not in seen]
    found += [f"{what} has {word!r}: {seen[:900]}" for word in _list(check, "lacks") if word in seen]
    if "unlike" in check and (not seen or seen == other()):
        found.append(f"{what} is what production has")
    return found


def _page(check: Mapping[str, Any], page: httpx.Response) -> list[str]:
    what = f"page {check['page']}"
    found = [] if page.status_code == check.get("status", 200) else [f"{what} has status {page.status_code}"]
    found += [f"{what} lacks {word!r}" for word in _list(check, "has") if word not in page.text]
    found += [f"{what} has {word!r}" for word in _list(check, "lacks") if word in page.text]
    for name, value in check.get("header", {}).items():
        if (seen := page.headers.get(name)) not in (value if isinstance(value, list) else [value]):
            found.append(f"{what} has {name}: {seen}")
    return found


def _list(check: Mapping[str, Any], name: str) -> list[str]:
    found = check.get(name, [])
    return found if isinstance(found, list) else [found]


def _literal(value: Any) -> str:
    if value is None or isinstance(value, int):
        return "NULL" if value is None else str(value)
    data = value.encode() if isinstance(value, str) else php(value)
    return f"CONVERT(X'{data.hex()}' USING utf8mb4)"


def _rows(table: str, rows: list[Mapping[str, Any]]) -> list[str]:
    return [
        f"REPLACE INTO {table} ({', '.join(row)}) VALUES ({', '.join(map(_literal, row.values()))});" for row in rows
    ]


def _option(name: str, value: Any) -> Mapping[str, Any]:
    return {"option_name": name, "option_value": str(value) if isinstance(value, int) else value}


def _post(post: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**POST, "guid": f"@url@/?p={post['ID']}", **post}
