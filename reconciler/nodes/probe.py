"""Looks at a node and prints what is there: one line of JSON, the fields of ``core.observed.ObservedNode``.

Sent to ``python3 -I -S -`` on the node, so: standard library only, Python 3.9 or later, one file. It changes nothing
and judges nothing. ``argv[1]`` is JSON: ``deep`` compares code with what its manifests say; ``environments`` names the
ids to look at, null for all; ``options`` names options of WordPress to read beside those that were applied, by
environment; ``since`` (seconds, UTC) asks for those who logged in by ssh after that.
"""

# Importing pathlib would take longer than looking at ten environments.
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from itertools import chain
from typing import Any

VERSION = "1"
ENVIRONMENTS = "/etc/trueup/environments"
NODE_MANIFEST = "/etc/trueup/node.json"
HOLD = "/etc/trueup/hold"
SITES = "/var/www/sites"
STORE = "/opt/trueup/wordpress"
DATABASES = "/var/lib/mysql"
UNITS = "/etc/systemd/system"
WP_CLI = "/usr/local/bin/wp"
CERTIFICATES = "/etc/trueup/certificates"
LINEAGES = "/var/lib/trueup/letsencrypt/live"
PREVIEW = "/var/lib/trueup/preview/manifest.json"
EGRESS_LISTS = "/etc/trueup/egress.d"
EGRESS_STATE = "/var/lib/trueup/egress"
MOST_HOSTS = 32
HANDSHAKE_S = 1.0
MOST_LOGINS = 200
# A client without commands of its own, that reads nobody's settings.
DATABASE = ("mariadb", "--no-defaults", "--batch", "--skip-column-names", "--raw", "--binary-mode", "--sandbox")
DATABASE_S = 3.0
"""For one environment's options, and as much for those of all others."""
AT_ONCE = 6
LONGEST_OPTION = 16_000
LONGEST_ANSWER = 8 << 20
LONGEST_CONFIG = 1 << 18
LINKED = "wp-includes"
"""The part of core that a release has as a link to the store."""
MOST_READ = 64 << 20
DEEP_S = 200.0
"""What a deep look takes at the most; each environment has its share."""
MOST_ENTRIES = 2_000_000
MOST_BYTES = 64 << 30
DEEPEST = 100
MOST_TOLD = 160 << 10
"""Bytes of the paths of its differences. All of these are of one environment."""
ACCEPTED = re.compile(r"Accepted \S+ for (\S+) from (\S+) port \d+ ssh2(?:: \S+ (SHA256:\S+))?")

PACKAGES = {
    "nginx": r"nginx",
    "php": r"php\d+\.\d+-fpm",
    "mariadb": r"mariadb-server",
    "redis": r"redis-server|valkey-server",
}
# WordPress itself writes there, and nothing in there is run by its name.
UNWATCHED = {"wp-content/upgrade", "wp-content/upgrade-temp-backup", "wp-content/cache", "wp-content/uploads"}
SCRIPT = re.compile(r"\.(?:php\d*|phtml|phar|pht|phps)(?:\.|$)", re.IGNORECASE)
# Plugins put an empty index.php into their upload directories, so that nobody lists them.
SILENCE = re.compile(rb"\s*<\?php\s*(?://[^\n]*|/\*.*?\*/|#[^\n]*)?\s*(?:\?>)?\s*", re.DOTALL)

SHUT_OUT = [
    {"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": "@closed"}},
    {"jump": {"target": "shut"}},
]
"""The rule of the node's firewall that refuses what closed users send."""
NO_MAIL = [
    {
        "match": {
            "op": "==",
            "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"set": [25, 465, 587, 2525]},
        }
    },
    {"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": "@copies"}},
    {"jump": {"target": "shut"}},
]
"""The one that refuses mail of whatever is not production."""
STOPPED = ("mails", "events", "actions", "webhooks")
MOST_STOPPED = 4096
REFUSING = 2
"""Rules that it leads to: for TCP, and for all else."""

Found = dict[str, Any]


def main(options: Found) -> Found:
    """The whole answer."""
    node = _subject(NODE_MANIFEST)
    environments = {one: _environment(one) for one in _environment_ids(options.get("environments"))}
    _look_at_egress(environments)
    subjects = [node, *environments.values()]
    states = _service_states(unit for subject in subjects for unit in _services_of(subject))
    for subject in subjects:
        subject["services"] = {unit: states[unit] for unit in _services_of(subject)}
    _look_at_options(environments, options.get("options") or {})
    if options.get("deep"):
        stores, until = Stores(), time.monotonic() + DEEP_S
        for number, (one, environment) in enumerate(environments.items()):
            # What one environment does not take of the time is for those after it.
            seconds = max((until - time.monotonic()) / (len(environments) - number), 1.0)
            environment["differences"] = _differences(one, environment, stores, seconds)
            environment["disk_used_bytes"] = _used((f"{SITES}/{one}", f"{DATABASES}/{_database(one)}"), Look(seconds))
    return {
        **_machine(),
        **node,
        "preview": _preview(),
        "logins": _logins(options.get("since")),
        "environments": environments,
    }


# What a manifest says, and what is there


def _subject(manifest: str) -> Found:
    """A manifest and the present state of all that it names."""
    applied = _manifest(manifest)
    files = applied.get("files", {}) if applied else {}
    links = applied.get("links", {}) if applied else {}
    attributes = applied.get("attributes", {}) if applied else {}
    return {
        "applied": applied,
        "pending": os.path.exists(manifest[: -len("json")] + "pending"),
        "files": {path: _state(path, attributes.get(path)) for path in files},
        "links": {path: _target(path) for path in links},
    }


def _manifest(path: str) -> Found | None:
    """None where there is none, or none that can be understood."""
    try:
        found = json.loads(_read(path) or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("format") == 1 else None


def _environment_ids(wanted: list[str] | None) -> list[str]:
    """Environments that were made here, or whose making began."""
    try:
        names = os.listdir(ENVIRONMENTS)
    except FileNotFoundError:
        return []
    there = {name.rpartition(".")[0] for name in names if name.endswith((".json", ".pending"))}
    return sorted(there if wanted is None else there & set(wanted))


def _environment(one: str) -> Found:
    subject = _subject(f"{ENVIRONMENTS}/{one}.json")
    return {
        **subject,
        "domains": _domains(one, subject["applied"] or {}),
        "database": os.path.isdir(f"{DATABASES}/{_database(one)}"),
        "wordpress_version": _wordpress_version(f"{SITES}/{one}/current"),
        "options": {},
        "egress": None,
        "stopped": {},
        "differences": None,
    }


def _database(one: str) -> str:
    return "wp_" + one.replace("-", "")[:12]


# What goes out


def _look_at_egress(environments: dict[str, Found]) -> None:
    """Fill in whether the firewall refuses what each environment's user sends, and how much of it."""
    if not environments:
        return
    import pwd

    refused = _refused_users()
    for one, environment in environments.items():
        name = "wp-" + one.replace("-", "")[:12]
        with contextlib.suppress(KeyError):  # it was not made yet
            uid = pwd.getpwnam(name).pw_uid
            if refused is not None:
                # nft tells a number, or the name that the number has.
                closed, mail = (
                    next((users[who] for who in (uid, name) if who in users), None)
                    for users in (refused["closed"], refused["copies"])
                )
                environment["egress"] = {
                    "closed": closed is not None,
                    "refuses_mail": closed is not None or mail is not None,
                    "refused": None if closed is None and mail is None else (closed or 0) + (mail or 0),
                    "hosts": {} if closed is None else _listed_hosts(one),
                }
        environment["stopped"] = _stopped(f"{SITES}/{one}")


def _listed_hosts(one: str) -> Found:
    """The hosts that a closed environment lists, and what root found of them on this node."""
    try:
        names = json.loads(_read(f"{EGRESS_LISTS}/{one}.json") or b"{}").get("hosts", [])[:MOST_HOSTS]
        known = json.loads(_read(f"{EGRESS_STATE}/{one}.json") or b"{}")
        found = {name: known.get(name, {}) for name in names}
        return {
            name: {
                "addresses": list(said.get("current", ())),
                "error": said.get("error") if said else "It was not looked up yet.",
            }
            for name, said in found.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def _stopped(site: str) -> dict[str, int]:
    """What the environment's own code counts: a file that it may put anything into."""
    site_directory = _opened(site, None, os.O_DIRECTORY)
    if site_directory is None:
        return {}
    handles = [site_directory]
    try:
        logs = _opened("logs", site_directory, os.O_DIRECTORY)
        if logs is None:
            return {}
        handles.append(logs)
        counted = json.loads(Look(1.0).head("stopped.json", logs, MOST_STOPPED) or b"null")
        found = {name: counted.get(name) for name in STOPPED} if isinstance(counted, dict) else {}
        return {name: count for name, count in found.items() if type(count) is int and 0 <= count < 1 << 53}
    except (OSError, ValueError, RecursionError):
        return {}
    finally:
        for handle in handles:
            os.close(handle)


def _refused_users() -> dict[str, dict[Any, int]] | None:
    """Packets that were refused, by set and user; of nobody where the rule, the node role's, is not whole.

    None: the firewall does not answer.
    """
    users: dict[str, dict[Any, int]] = {"closed": {}, "copies": {}}
    try:
        argv = ["nft", "--json", "list", "table", "inet", "trueup_egress"]
        said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False).stdout
        found = json.loads(said)["nftables"]
        sets = {one["set"]["name"]: one["set"].get("elem", ()) for one in found if "set" in one}
        hooks = {one["chain"]["name"]: one["chain"].get("hook") for one in found if "chain" in one}
        rules = [(one["rule"]["chain"], one["rule"]["expr"]) for one in found if "rule" in one]
        refusing = [expr for chain, expr in rules if chain == "shut" and "reject" in expr[-1]]
        if hooks["output"] == "output" and len(refusing) == REFUSING:
            for name, rule in (("closed", SHUT_OUT), ("copies", NO_MAIL)):
                # An element with a counter is an object.
                elements = [one["elem"] for one in sets.get(name, ())] if ("output", rule) in rules else []
                users[name] = {one["val"]: int(one["counter"]["packets"]) for one in elements}
        return users
    except subprocess.TimeoutExpired:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return {"closed": {}, "copies": {}}


# WordPress's options


def _look_at_options(environments: dict[str, Found], asked: dict[str, list[str]]) -> None:
    """Fill in the options that are declared, as they are stored. Each environment's own database user reads them.

    An environment whose table does not answer, or is no table, keeps none, so that nothing is told of it.
    """
    questions: dict[str, list[str]] = {}
    for one, environment in environments.items():
        names = {*((environment["applied"] or {}).get("options") or ()), *asked.get(one, ())}
        if names and environment["database"] and re.fullmatch(r"[0-9a-f-]{36}", one):
            questions[one] = sorted(names)
    for one, said in _answers(questions).items():
        rows = [line.split("\t") for line in said.decode("ascii", "replace").splitlines()]
        if rows and rows[0] == ["BASE TABLE", ""]:
            found = {_unhexed(name).lower(): _unhexed(value) for name, value in rows[1:]}
            # WordPress, too, finds an option whatever the case of its name.
            environments[one]["options"] = {name: found.get(name.lower()) for name in questions[one]}


def _question(names: list[str]) -> str:
    """A row that says that it is a table, then a row for each option that is there."""
    quoted = ",".join(f"_utf8mb4 X'{name.encode().hex()}'" for name in names)
    return (
        f"SET SESSION max_statement_time = {DATABASE_S};"  # noqa: S608
        "SELECT table_type, '' FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = 'wp_options';"
        f"SELECT HEX(option_name), IFNULL(HEX(LEFT(option_value, {LONGEST_OPTION})), '') FROM wp_options "
        f"WHERE option_name IN ({quoted}) LIMIT {2 * len(names)};"
    )


def _answers(questions: dict[str, list[str]]) -> dict[str, bytes]:
    """What the databases say, by environment, of those that answer in time: a few at once, so that none waits long."""
    import select

    waiting, said = sorted(questions), {}
    started: dict[int, tuple[str, subprocess.Popen[bytes], bytearray, float]] = {}
    poll, end = select.poll(), time.monotonic() + 2 * DATABASE_S
    while (waiting or started) and time.monotonic() < end:
        while waiting and len(started) < AT_ONCE:
            one = waiting.pop(0)
            if process := _asked(one, questions[one]):
                handle = process.stdout.fileno()  # type: ignore[union-attr]
                started[handle] = (one, process, bytearray(), time.monotonic() + DATABASE_S)
                poll.register(handle, select.POLLIN | select.POLLHUP)
        for handle, _ in poll.poll(100):
            one, process, answer, _ = started[handle]
            block = os.read(handle, 1 << 16)
            answer += block
            if block and len(answer) <= LONGEST_ANSWER:
                continue
            if not block and process.wait(1) == 0:
                said[one] = bytes(answer)
            _end(process, poll, started, handle)
        for handle in [handle for handle, (*_, late) in started.items() if time.monotonic() > late]:
            _end(started[handle][1], poll, started, handle)
    for handle in list(started):
        _end(started[handle][1], poll, started, handle)
    return said


def _asked(one: str, names: list[str]) -> subprocess.Popen[bytes] | None:
    """A client that asks; None where the environment's own configuration does not say how."""
    password = _password(f"{SITES}/{one}/shared/wp-config.php")
    if password is None:
        return None
    name = _database(one)
    argv = [*DATABASE, f"--user={name}", f"--connect-timeout={int(DATABASE_S)}", name]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "MYSQL_PWD": password}
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=nothing, env=environment, cwd="/")
    except OSError:
        return None
    try:
        with process.stdin as feed:  # type: ignore[union-attr]
            feed.write(_question(names).encode())
    except BrokenPipeError:
        pass  # It ended already; its status says so.
    return process


def _end(process: subprocess.Popen[bytes], poll: Any, started: dict[int, Any], handle: int) -> None:
    poll.unregister(handle)
    del started[handle]
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]


def _password(path: str) -> str | None:
    """The database password in a wp-config.php that is root's alone to write."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            return None
        found = re.search(rb"^define\( 'DB_PASSWORD', '([A-Za-z0-9_-]{1,200})' \);$", file.read(LONGEST_CONFIG), re.M)
    return found.group(1).decode() if found else None


def _unhexed(text: str) -> str:
    return bytes.fromhex(text).decode("utf-8", "replace")


# Certificates


def _domains(one: str, applied: Found) -> dict[str, Found]:
    """What nginx serves for each name that is to have a certificate, and why it may have none."""
    declared = applied.get("variables", {}).get("domains") or ()
    names = [domain["hostname"] for domain in declared if domain.get("tls", True)]
    failures = json.loads(_read(f"{CERTIFICATES}/{one}.json") or b"{}") if names else {}
    return {name: {"served": _served(name), "failure": failures.get(name)} for name in names}


def _preview() -> Found | None:
    """The certificate of preview URLs that was put here, and whether its files are there still."""
    try:
        put = json.loads(_read(PREVIEW) or b"null")
        return put and {**put, "found": {path: _digest(path) for path in put["files"]}}
    except (ValueError, KeyError, TypeError):
        return None


def _served(name: str) -> Found | None:
    """The certificate that a browser would get, as this node itself is asked for it."""
    # Most nodes' answer needs none of it, and it takes as long to import as ten environments to look at.
    import ssl

    shown = _shaken_hands(name)
    if shown is None:
        return None
    found = _decoded(ssl.DER_cert_to_PEM_cert(shown))
    moments = [ssl.cert_time_to_seconds(found[key]) for key in ("notBefore", "notAfter")]
    issuer = {key: value for part in found["issuer"] for key, value in part}
    alternatives = {value.lower() for kind, value in found.get("subjectAltName", ()) if kind == "DNS"}
    kept = _text(f"{LINEAGES}/{name}/fullchain.pem").partition("-----END CERTIFICATE-----")
    return {
        "issuer": issuer.get("organizationName") or issuer.get("commonName") or "unknown",
        "not_before": datetime.fromtimestamp(moments[0], timezone.utc).isoformat(),  # noqa: UP017
        "not_after": datetime.fromtimestamp(moments[1], timezone.utc).isoformat(),  # noqa: UP017
        "names_match": name in alternatives or f"*.{name.partition('.')[2]}" in alternatives,
        "is_kept": bool(kept[1]) and ssl.PEM_cert_to_DER_cert("".join(kept[:2])) == shown,
    }


def _shaken_hands(name: str) -> bytes | None:
    """In DER, whatever is wrong with it; None where none is shown, or nobody listens in time."""
    import socket
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection(("127.0.0.1", 443), timeout=HANDSHAKE_S)
        with plain, context.wrap_socket(plain, server_hostname=name) as secure:
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None


def _decoded(pem: str) -> Found:
    """A certificate's fields. The library reads them from a file alone, unless it has checked the certificate."""
    import ssl

    handle = os.memfd_create("certificate")
    try:
        os.write(handle, pem.encode())
        return ssl._ssl._test_decode_cert(f"/proc/self/fd/{handle}")  # type: ignore[attr-defined,no-any-return]
    finally:
        os.close(handle)


def _wordpress_version(tree: str) -> str | None:
    text = _read(f"{tree}/wp-includes/version.php") or b""
    found = re.search(rb"^\$wp_version = '([^']+)';", text, re.MULTILINE)
    return found.group(1).decode("utf-8", "replace") if found else None


def _read(path: str, flags: int = 0) -> bytes | None:
    """A regular file's bytes; None of anything else, and of more than any file that is read whole has."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags)
    except OSError:
        return None
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_READ:
            return None
        return file.read(MOST_READ)


def _state(path: str, attributes: str | None) -> str | None:
    """The digest of a file or directory as it was applied; another one where its owner or mode are others."""
    digest = _digest(path)
    if digest is None or attributes is None:
        return digest
    try:
        found = os.lstat(path)
    except OSError:
        return None
    mode = "*" if attributes.startswith("*") else f"{stat.S_IMODE(found.st_mode):04o}"
    now = f"{mode} {found.st_uid} {found.st_gid}"
    return digest if now == attributes else hashlib.sha256(f"{digest} {now}".encode()).hexdigest()


def _digest(path: str) -> str | None:
    """sha256 of a file; of ``path#id``, of those of its lines that end in ``# trueup id``. A link is no file.

    A directory has no bytes to compare; it stands for itself.
    """
    name, _, section = path.partition("#")
    if not section and os.path.isdir(name) and not os.path.islink(name):
        return hashlib.sha256(b"directory").hexdigest()
    data = _read(name, os.O_NOFOLLOW)
    if data is None:
        return None
    if section:
        mark = f"# trueup {section}".encode()
        data = b"".join(line for line in data.splitlines(keepends=True) if line.rstrip().endswith(mark))
        if not data:
            return None
    return hashlib.sha256(data).hexdigest()


def _target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _services_of(subject: Found) -> list[str]:
    return [str(unit) for unit in (subject["applied"] or {}).get("services", ())]


def _service_states(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """ActiveState and UnitFileState of all units. `systemctl show` would take five times as long as all the rest."""
    names = list(dict.fromkeys(units))
    active = _active_states(names) if names else {}
    wished = _wished_units()
    return {name: {"active": active.get(name, "unknown"), "enabled": _enabled(name, wished)} for name in names}


def _active_states(names: list[str]) -> dict[str, str]:
    """One question to systemd for all of them; empty when it does not answer."""
    argv = ["busctl", "--json=short", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    argv += ["org.freedesktop.systemd1.Manager", "ListUnitsByNames", "as", str(len(names)), *names]
    try:
        answer = json.loads(subprocess.run(argv, capture_output=True, timeout=20, check=False).stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    return {name: row[3] for name, row in zip(names, answer["data"][0])}  # noqa: B905 - not in Python 3.9


def _wished_units() -> set[str]:
    """Units that some target wants or requires by a link of the administrator's."""
    wished: set[str] = set()
    for name in os.listdir(UNITS) if os.path.isdir(UNITS) else ():
        if name.endswith((".wants", ".requires")):
            wished.update(os.listdir(f"{UNITS}/{name}"))
    return wished


def _enabled(unit: str, wished: set[str]) -> str:
    if _target(f"{UNITS}/{unit}") == "/dev/null" or _target(f"/run/systemd/system/{unit}") == "/dev/null":
        return "masked"
    if unit in wished:
        return "enabled"
    places = (UNITS, "/usr/lib/systemd/system", "/lib/systemd/system")
    return "disabled" if any(os.path.exists(f"{place}/{unit}") for place in places) else ""


# The machine


def _machine() -> Found:
    release = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', _text("/etc/os-release"), re.MULTILINE))
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    disk = os.statvfs("/var/www" if os.path.isdir("/var/www") else "/")
    return {
        "observed_at": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - nodes may have Python 3.9
        "hostname": os.uname().nodename,
        "os_id": release.get("ID", ""),
        "os_version": release.get("VERSION_ID", ""),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else 0,
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "disk_size_bytes": disk.f_blocks * disk.f_frsize,
        "versions": {**_package_versions(), **_wp_cli_version(), "probe": VERSION},
        "artifacts": {"wordpress": _core_versions()},
        "hold": _text(HOLD).strip() or ("no reason given" if os.path.exists(HOLD) else None),
    }


def _logins(since: float | None) -> list[Found]:
    """Whom sshd let in. Only root's lines count: any user may write into the journal under any name."""
    if since is None:
        return []
    argv = ["journalctl", "-q", "--no-pager", "-o", "json", "--output-fields=MESSAGE", f"--since=@{since:.0f}"]
    argv += ["-t", "sshd", "-t", "sshd-session", "_UID=0", "-g", "^Accepted "]
    try:
        lines = subprocess.run(argv, capture_output=True, timeout=10, check=False).stdout.splitlines()
        return [found for line in lines[-MOST_LOGINS:] if (found := _login(json.loads(line)))]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return []


def _login(entry: Found) -> Found | None:
    accepted = ACCEPTED.match(str(entry.get("MESSAGE")))
    if accepted is None:
        return None
    at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, timezone.utc)  # noqa: UP017
    return {"at": at.isoformat(), "user": accepted[1], "address": accepted[2], "key": accepted[3]}


def _text(path: str) -> str:
    return (_read(path) or b"").decode("utf-8", "replace")


def _package_versions() -> dict[str, str]:
    """From dpkg's own file: a process for each package would cost more than all the rest."""
    status = _text("/var/lib/dpkg/status")
    versions = {}
    for name, pattern in PACKAGES.items():
        for found in re.finditer(rf"^Package: (?:{pattern})\n", status, re.MULTILINE):
            paragraph = status[found.start() : status.find("\n\n", found.start())]
            version = re.search(r"^Version: (?:\d+:)?(\S+)$", paragraph, re.MULTILINE)
            if version and "\nStatus: install ok installed\n" in paragraph:
                versions[name] = version.group(1)
    return versions


def _wp_cli_version() -> dict[str, str]:
    """From the phar's own table of contents (https://www.php.net/manual/en/phar.fileformat.manifestfile.php)."""
    try:
        with open(WP_CLI, "rb") as phar:
            head = phar.read(8 << 20)
    except OSError:
        return {}
    start = head.find(b"__HALT_COMPILER(); ?>")
    start = head.find(b"\n", start) + 1
    try:
        length, count = struct.unpack_from("<II", head, start)
        position, content = start + 14, start + 4 + length
        position += 4 + struct.unpack_from("<I", head, position)[0]
        position += 4 + struct.unpack_from("<I", head, position)[0]
        for _ in range(count):
            (size,) = struct.unpack_from("<I", head, position)
            name = head[position + 4 : position + 4 + size]
            _, _, stored, _, _, extra = struct.unpack_from("<IIIIII", head, position + 4 + size)
            position += 4 + size + 24 + extra
            if name.endswith(b"vendor/wp-cli/wp-cli/VERSION"):
                return {"wp_cli": head[content : content + stored].decode("ascii", "replace").strip()}
            content += stored
    except struct.error:
        pass
    return {}


def _core_versions() -> list[str]:
    try:
        return sorted(name for name in os.listdir(STORE) if os.path.isdir(f"{STORE}/{name}") and name[0] != ".")
    except FileNotFoundError:
        return []


# Code, file by file (deep)


class Spent(Exception):
    """One environment has taken all that a look at it may cost."""


class Look:
    """What a look at the files of one environment may still cost; nothing in them is followed, waited for or believed.

    A walk goes from descriptor to descriptor and never through a link. Only regular files are opened.
    """

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.entries = MOST_ENTRIES
        self.bytes = MOST_BYTES
        self.too_deep: list[str] = []
        """Directories that the last walk did not go into."""

    def walk(
        self, top: int, enter: Callable[[str], bool] = lambda _: True, prefix: str = "", depth: int = 0
    ) -> Iterator[tuple[str, str, int, bool]]:
        """``(path, name, its directory's descriptor, whether it is a directory)``, directories before what is in them.

        ``enter`` says whether to go into a directory.
        """
        with os.scandir(top) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in self._counted(found))
        for name, is_directory in entries:
            path = f"{prefix}{name}"
            yield path, name, top, is_directory
            if not (is_directory and enter(path)):
                continue
            if depth >= DEEPEST:
                self.too_deep.append(path)
                continue
            handle = _opened(name, top, os.O_DIRECTORY)
            if handle is not None:
                try:
                    yield from self.walk(handle, enter, f"{path}/", depth + 1)
                finally:
                    os.close(handle)

    def _counted(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            self.entries -= 1
            if self.entries < 0 or time.monotonic() > self.until:
                raise Spent
            yield entry

    def digest(self, name: str, directory: int) -> str | None:
        """sha256 of a regular file; None of anything else."""
        handle = _opened(name, directory)
        if handle is None:
            return None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                return None
            digest = hashlib.sha256()
            left = found.st_size
            while left > 0 and (block := os.read(handle, min(1 << 20, left))):
                left -= len(block)
                self.bytes -= len(block)
                if self.bytes < 0 or time.monotonic() > self.until:
                    raise Spent
                digest.update(block)
            return digest.hexdigest()
        finally:
            os.close(handle)

    def head(self, name: str, directory: int, most: int) -> bytes | None:
        """The bytes of a regular file of fewer than ``most``; None of anything else."""
        handle = _opened(name, directory)
        if handle is None:
            return None
        try:
            found = os.fstat(handle)
            return os.read(handle, most) if stat.S_ISREG(found.st_mode) and found.st_size < most else None
        finally:
            os.close(handle)


def _opened(name: str, directory: int | None = None, flags: int = 0) -> int | None:
    """A descriptor, for which nothing waits; None of a link, and where nothing is."""
    flags |= os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except OSError:
        return None


class Stores:
    """What in the store of pristine trees is not as it was unpacked, by version, each read once."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}

    def changed(self, version: str) -> dict[str, str]:
        """Path to ``modified``, ``missing`` or ``unknown``."""
        if version not in self.known:
            wanted = _pristine(f"{STORE}/{version}.sha256")
            found = _compare(f"{STORE}/{version}", wanted, set(), Look(DEEP_S), ())
            self.known[version] = dict(found)
        return self.known[version]


def _used(tops: Iterable[str], look: Look) -> int | None:
    """Bytes of disk below directories, each inode once; None where there is more than a look counts."""
    sizes: dict[tuple[int, int], int] = {}
    for top in tops:
        handle = _opened(top, None, os.O_DIRECTORY)
        if handle is None:
            continue
        try:
            for _, name, directory, _ in look.walk(handle):
                with contextlib.suppress(FileNotFoundError):  # it was there a moment ago
                    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
        except Spent:
            return None
        finally:
            os.close(handle)
    return sum(sizes.values())


def _differences(one: str, environment: Found, stores: Stores, seconds: float) -> list[dict[str, str]]:
    """Where the release differs from the pristine core, and scripts among the uploads."""
    site = f"{SITES}/{one}"
    applied = environment["applied"] or {}
    version = str(applied.get("variables", {}).get("wordpress_version"))
    release = os.path.realpath(f"{site}/current")
    ours = {os.path.relpath(path, release) for path in (*applied.get("files", {}), *applied.get("links", {}))}
    wanted = _pristine(f"{STORE}/{version}.sha256")
    made_of = f"{site}/releases/{os.path.basename(release)}.sha256"
    if os.path.exists(made_of):
        # Made of more than core: its own list says what belongs into wp-content.
        wanted = {p: d for p, d in wanted.items() if not p.startswith("wp-content/")} | _pristine(made_of)
    # What is managed is held against what was written, whatever the release was made of had in its place.
    wanted = {path: digest for path, digest in wanted.items() if path not in ours}
    look = Look(seconds)
    # What the next release will be made of, and, by the link, what most of this one is.
    found = {path: kind for path, kind in stores.changed(version).items() if _area(path) == "core"}
    if _target(f"{release}/{LINKED}") == f"{STORE}/{version}/{LINKED}":
        wanted = {path: digest for path, digest in wanted.items() if not path.startswith(f"{LINKED}/")}
        ours.add(LINKED)
    changed = (one for one in _compare(release, wanted, ours, look, UNWATCHED) if one[0] not in found)
    told = ((path, kind, _area(path)) for path, kind in chain(found.items(), changed))
    uploads = ((path, "unknown", "uploads") for path in _scripts(f"{site}/shared", look))
    return [{"path": path, "kind": kind, "area": area} for path, kind, area in _bounded(chain(told, uploads))]


def _bounded(told: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """As many as an answer has room for, in characters that any reader has; then the directory of the next one."""
    left = MOST_TOLD
    for path, kind, area in told:
        shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        left -= len(json.dumps(shown))
        if left < 0:
            yield f"{os.path.dirname(shown.rstrip('/'))[:1000] or '.'}/", "unknown", area
            return
        yield shown, kind, area


def _pristine(manifest: str) -> dict[str, str]:
    lines = [line.split("  ", 1) for line in _text(manifest).splitlines()]
    return {line[1]: line[0] for line in lines if len(line) == 2}


def _compare(
    root: str, wanted: dict[str, str], ours: set[str], look: Look, unwatched: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """``(path, kind)`` of what differs; a directory in which everything is unknown stands for all of it.

    Where a look has to end early, the directory at which it did is told as unknown: nobody vouches for it.
    """
    top = _opened(root, None, os.O_DIRECTORY)
    if top is None:
        yield from ((path, "missing") for path in wanted)
        return
    directories = {parent for path in (*wanted, *ours) for parent in _parents(path)}.difference(unwatched)
    missing, here = dict.fromkeys(wanted), ""
    try:
        for here, name, directory, is_directory in look.walk(top, directories.__contains__):
            if here in missing and not is_directory:
                del missing[here]
                if not _is_as_wanted(look, name, directory, here, top, wanted[here]):
                    yield here, "modified"
            elif here in directories or here in ours or here in unwatched:
                continue
            elif not is_directory:
                yield here, "unknown"
            elif not _hollow(look, name, directory):
                yield f"{here}/", "unknown"
        yield from ((path, "missing") for path in missing)
    except Spent:
        yield f"{os.path.dirname(here) or '.'}/", "unknown"
    finally:
        os.close(top)


def _is_as_wanted(look: Look, name: str, directory: int, path: str, top: int, wanted: str) -> bool:
    """A link counts as the file of the release's own that it leads to, or as where it leads."""
    try:
        target = os.readlink(name, dir_fd=directory)
    except OSError:
        return look.digest(name, directory) == wanted
    if hashlib.sha256(f"-> {target}".encode("utf-8", "surrogateescape")).hexdigest() == wanted:
        return True
    behind = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return not os.path.isabs(target) and not behind.startswith("..") and _digest_beneath(look, top, behind) == wanted


def _digest_beneath(look: Look, top: int, path: str) -> str | None:
    """The digest of a file whose way there has no further link."""
    handles = [top]
    try:
        *above, name = path.split("/")
        for part in above:
            handle = _opened(part, handles[-1], os.O_DIRECTORY)
            if handle is None:
                return None
            handles.append(handle)
        return look.digest(name, handles[-1])
    finally:
        for handle in handles[1:]:
            os.close(handle)


def _parents(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path


def _hollow(look: Look, name: str, directory: int) -> bool:
    """Whether there is no file anywhere below."""
    handle = _opened(name, directory, os.O_DIRECTORY)
    if handle is None:
        return True
    look.too_deep = []
    try:
        return all(is_directory for _, _, _, is_directory in look.walk(handle)) and not look.too_deep
    finally:
        os.close(handle)


def _area(path: str) -> str:
    return "release" if path.startswith("wp-content/") else "core"


def _scripts(shared: str, look: Look) -> Iterator[str]:
    """Whatever is called like a script among the uploads, but for the empty ones that plugins put there."""
    top = _opened(f"{shared}/uploads", None, os.O_DIRECTORY)
    if top is None:
        return
    here = ""
    look.too_deep = []
    try:
        for here, name, directory, is_directory in look.walk(top):
            if not is_directory and SCRIPT.search(name):
                head = look.head(name, directory, 500)
                if head is None or not SILENCE.fullmatch(head):
                    yield f"uploads/{here}"
        yield from (f"uploads/{path}/" for path in look.too_deep)
    except Spent:
        yield f"uploads/{os.path.dirname(here)}".rstrip("/") + "/"
    finally:
        os.close(top)


if __name__ == "__main__":
    answer = main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    sys.stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
