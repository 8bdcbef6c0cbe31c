"""Runs on a node, as root, from standard input: what is there outside of a hacked site, and what got into it.

Follows no link, opens nothing that is no regular file, and reads no more of one than a bound. Standard library only.
"""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys

MOST_BYTES = 64 << 20
PREFIX = b"TUCANARY-"
DEEPEST = 60
TABLES = r"""
[$database, $user, $password, $pattern] = array_slice($argv, 1);
mysqli_report(MYSQLI_REPORT_OFF);
$m = @new mysqli('localhost', $user, $password, $database);
if ($m->connect_errno) { exit; }
$tables = $m->query("SELECT table_name FROM information_schema.tables WHERE table_schema = '$database'
    AND table_type = 'BASE TABLE'");
foreach ($tables->fetch_all() as [$table]) {
    $rows = $m->query('SELECT * FROM `' . str_replace('`', '``', $table) . '`', MYSQLI_USE_RESULT);
    if (!is_object($rows)) { continue; }
    while ($row = $rows->fetch_row()) {
        foreach ($row as $value) {
            if ($value !== null && preg_match_all($pattern, $value, $found)) {
                foreach ($found[0] as $one) { echo json_encode([$one, "table $table of $database"]), "\n"; }
            }
        }
    }
}
"""


def main(asked):
    print(json.dumps({"files": fingerprint(asked), "found": search(asked), "marks": marks()}))


def fingerprint(asked):
    """Path to [mode, uid, gid, what is in it] of all below the roots but what a pattern leaves out."""
    left_out = re.compile("|".join(asked["left_out"]))
    seen, found = {}, {}
    for root in asked["roots"]:
        for path, status in walk(root):
            if not left_out.search(path):
                found[path] = [oct(status.st_mode), status.st_uid, status.st_gid, content(path, status, seen)]
    return found


def walk(root):
    pending = [os.fsencode(root)]
    while pending:
        directory = pending.pop()
        try:
            entries = list(os.scandir(directory))
            yield shown(directory), os.lstat(directory)
        except OSError:
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)
            else:
                yield shown(entry.path), status


def shown(path):
    return path.decode("utf-8", "backslashreplace")


def content(path, status, seen):
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return ""
    inode = status.st_dev, status.st_ino
    if inode not in seen:
        seen[inode] = hashlib.sha256(read(os.fsencode(path))).hexdigest()
    return seen[inode]


def read(path, directory=None):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return b""
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_blocks * 512 > MOST_BYTES:
            return b""
        return file.read(min(status.st_size, MOST_BYTES))


def search(asked):
    """[canary, where] of each that lies in the trees or the tables of these environments."""
    words = [re.escape(one.encode()) for one in asked["words"]]
    pattern = re.compile(b"|".join([PREFIX + b"[a-z0-9-]+", *words]))
    found = []
    for id_ in asked["environments"]:
        top = "/var/www/sites/" + id_
        if not os.path.isdir(top):
            continue
        for directory, below, names, handle in os.fwalk(top):
            if directory.count("/") > DEEPEST:
                below.clear()
            for name in names:
                for word in set(pattern.findall(read(name, handle))):
                    found.append([word.decode(), os.path.join(directory, name).encode("utf-8", "replace").decode()])
        found += tables(id_, pattern.pattern.decode())
    return found


def tables(id_, pattern):
    """Asked by the site's own users, of the system and of the database: what it named and defined is not trusted."""
    short = id_.replace("-", "")[:12]
    configuration = read(b"/var/www/sites/" + id_.encode() + b"/shared/wp-config.php").decode("utf-8", "replace")
    password = re.search(r"'DB_PASSWORD', '([^']*)'", configuration)
    if not password:
        return []
    user = ["setpriv", "--reuid=wp-" + short, "--regid=wp-" + short, "--clear-groups"]
    database = "wp_" + short
    argv = [*user, "php", "-r", TABLES, "--", database, database, password[1], "/" + pattern.replace("/", r"\/") + "/"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"[")]


def marks():
    """What commands of a hacked site's would leave if they ran outside of it."""
    return sorted(name for top in ("/root", "/run", "/") for name in os.listdir(top) if name.startswith("tupwned"))


main(json.loads(sys.argv[1]))
