"""What is done to a site that has some weight, on a lab node, beside a shell script that does the same there."""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reconciler.storage.secret_store import Secrets
from tests.bench.measure import Line, seconds
from tests.bench.place import put, served
from tests.controlplane import ControlPlane
from tests.lab.acme import Acme, acme_server
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.mirror import Mirror, plugin, update_mirror
from tests.lab.node import Node
from tests.lab.s3 import BUCKET, S3, s3_server
from tests.lab.web_server import WebServer, web_server
from tests.place import Place

LOGINS = 21
DEPLOYS, PURGES = 3, 5
ACTIVE = 'a:1:{i:0;s:21:"greeting/greeting.php";}'
SCRIPT = Path(__file__).with_name("operations.sh")
POSTS, UPLOADS, UPLOAD_KIB = 5000, 200, 256
FILL = f"""
INSERT INTO wp_posts (post_title, post_content, post_name, post_excerpt, to_ping, pinged, post_content_filtered)
SELECT CONCAT('Post ', seq), REPEAT(CONCAT('Words of post ', seq, '. '), 40), CONCAT('post-', seq), '', '', '', ''
FROM seq_1_to_{POSTS};
INSERT INTO wp_postmeta (post_id, meta_key, meta_value)
SELECT seq, 'place', CONCAT('a:1:{{s:3:"url";s:3:"', seq % 10, 'xx";}}') FROM seq_1_to_{POSTS};
INSERT INTO wp_options (option_name, option_value, autoload) VALUES ('counter', '0', 'no');
"""
WRITER = """
import json, select, subprocess, sys, time
client = subprocess.Popen(["mariadb", "-BN", "--unbuffered", sys.argv[1]], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1)
longest = count = 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    began = time.monotonic()
    count += 1
    client.stdin.write("UPDATE wp_options SET option_value = '%d' WHERE option_name = 'counter'; SELECT 1;\\n" % count)
    client.stdin.flush()
    client.stdout.readline()
    longest = max(longest, time.monotonic() - began)
print(json.dumps([longest, count]))
"""


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with served(say) as (plane, node), ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp")))
        for name in ("s3", "git", "acme"):
            (top / name).mkdir()
        storage = stack.enter_context(s3_server(top / "s3", node.network.gateway))
        code = stack.enter_context(git_daemon(top / "git", node.network.gateway))
        acme = stack.enter_context(acme_server(top / "acme", node.network.gateway))
        mirror = stack.enter_context(update_mirror(node.network.gateway))
        web = stack.enter_context(web_server(node.network.gateway))
        Secrets(plane.home / "secrets").put("backups", storage.credentials)
        allowed = f"  imports: {{allowed_hosts: ['{node.network.gateway}']}}\n"
        platform = storage.platform() + allowed + acme.platform() + mirror.platform()
        plane.clone.push({"platform.yaml": platform}, "Name the storage, the ACME server and the mirror")
        put(node, SCRIPT, "/var/tmp/operations.sh")
        bench = Bench(plane, node, storage, code, acme, mirror, web)
        say("Making a site with some weight")
        bench.fill()
        for name, lines in (
            ("Magic logins", bench.logins),
            ("Deploys", bench.deploys),
            ("A clone", bench.clone),
            ("A backup and its restore", bench.backup_and_restore),
            ("A promotion", bench.promotion),
            ("Purges", bench.purges),
            ("An update", bench.update),
            ("An import", bench.bring),
            ("Domains", bench.domains),
            ("A removal", bench.removal),
        ):
            say(name)
            yield from lines()


class Bench:
    def __init__(
        self,
        plane: ControlPlane,
        node: Node,
        storage: S3,
        code: GitServer,
        acme: Acme,
        mirror: Mirror,
        web: WebServer,
    ) -> None:
        self.mirror, self.web = mirror, web
        self.place = Place(plane, {"web-1": node})
        self.http, self.node, self.storage, self.code, self.acme = plane.http, node, storage, code, acme
        self.site = self.place.make_site("weighty")
        self.copy: dict[str, Any] = {}

    def fill(self) -> None:
        self.place.sql(self.site, FILL)
        directory = f"/var/www/sites/{self.site['id']}/shared/uploads/bench"
        make = f"for n in $(seq {UPLOADS}); do head -c {UPLOAD_KIB}K /dev/urandom > $n.bin; done"
        self.node.ssh(f"mkdir -p {directory} && cd {directory} && {make}")

    def job(self, path: str, **body: Any) -> dict[str, Any]:
        job = self.place.run(self.http.post(f"/api{path}", json=body))
        assert job["status"] == "succeeded", job
        return job

    def shell(self, *arguments: str) -> None:
        """The plain way: a function of the script, on the node."""
        self.node.ssh(["sh", "/var/tmp/operations.sh", *arguments])

    def on(self, path: str) -> str:
        return f"/environments/{self.site['id']}{path}"

    def logins(self) -> Iterator[Line]:
        def ours() -> None:
            answer = self.http.post(f"/api{self.on('/magic-login')}")
            assert answer.status_code == 200, answer.text

        ours()
        taken = [seconds(ours) * 1000 for _ in range(LOGINS)]
        plain = seconds(lambda: self.shell("login", self.site["id"]), 5) * 1000
        what = "POST …/magic-login, p50"
        yield Line(what, statistics.median(taken), "ms", "≤ 400 ms", plain, "ssh and wp-cli: a user's meta")

    def deploys(self) -> Iterator[Line]:
        ours, plain = [], []
        for number in range(DEPLOYS + 1):
            word = f"<?php add_action('wp_footer', function () {{ echo '<i>n{number}</i>'; }});"
            self.code.commit("shop", {"wp-content/mu-plugins/ours.php": word})
            url = self.code.url("shop")
            ours.append(seconds(lambda url=url: self.job(self.on("/deploy"), source_type="git", source_ref=url)))
            plain.append(seconds(lambda url=url, n=number: self.shell("deploy", self.site["id"], url, str(n))))
        what = "deploy of a commit to the switched release"
        shown = statistics.median(ours[1:]), "s", "", statistics.median(plain[1:])
        yield Line(what, *shown, "git clone, cp -a, ln -sfn, no check, no way back")

    def clone(self) -> Iterator[Line]:
        ours = seconds(self._clone)
        plain = seconds(lambda: self.shell("clone", self.site["id"], self.site["preview_url"]))
        yield Line("clone on the same node", ours, "s", "", plain, "mariadb-dump, cp -a, wp search-replace")

    def _clone(self) -> None:
        body = {"name": "Copy", "slug": "copy", "type": "staging", "promotion_preset": "commerce-protect"}
        job = self.job(f"/sites/{self.site['site_id']}/environments", **body)
        self.copy = self.http.get(f"/api/environments/{job['environment_id']}").json()

    def backup_and_restore(self) -> Iterator[Line]:
        urls = [self._presigned(method, name) for method in ("put", "get") for name in ("database", "files")]
        ours = seconds(lambda: self.job(self.on("/backups"), backup_scope="full"))
        plain = seconds(lambda: self.shell("backup", self.site["id"], *urls[:2]))
        yield Line("full backup to storage", ours, "s", "", plain, "mariadb-dump, tar, zstd, curl")
        backup = self.http.get(f"/api{self.on('/backups')}").json()[0]
        ours = seconds(lambda: self.job(self.on("/restore"), backup_id=backup["id"]))
        plain = seconds(lambda: self.shell("restore", self.site["id"], *urls[2:]))
        said = "curl, zstd, mariadb, tar: no backup before, no check"
        yield Line("restore, with a backup of what was there", ours, "s", "", plain, said)

    def _presigned(self, method: str, name: str) -> str:
        asked = {"Bucket": BUCKET, "Key": f"plain/{name}.zst"}
        return str(self.storage.client.generate_presigned_url(f"{method}_object", Params=asked, ExpiresIn=3600))

    def promotion(self) -> Iterator[Line]:
        self.place.sql(self.copy, "UPDATE wp_options SET option_value = 'New' WHERE option_name = 'blogdescription'")
        self.job(f"/environments/{self.copy['id']}/drift-check")
        self.job(self.on("/backups"), backup_scope="full")
        with self._writer() as longest:
            target = self.site["id"]
            whole = seconds(lambda: self.job(f"/environments/{self.copy['id']}/promote", target_environment_id=target))
        addresses = self.copy["preview_url"], self.site["preview_url"]
        plain = seconds(lambda: self.shell("promote", self.copy["id"], self.site["id"], *addresses))
        said = "maintenance mode around mariadb-dump, search-replace, rsync"
        yield Line("promote: longest wait of a write meanwhile", longest[0], "s", "≤ 5 s", plain, said)
        yield Line("promote, whole", whole, "s", "", plain, said)

    def purges(self) -> Iterator[Line]:
        def ours() -> None:
            assert self.place.run(self.http.post(f"/api{self.on('/cache/purge')}"))["status"] == "succeeded"

        plain = seconds(lambda: self.shell("purge", self.site["id"]), PURGES)
        yield Line("purge of both caches", seconds(ours, PURGES), "s", "", plain, "rm, redis-cli flushdb")

    def update(self) -> Iterator[Line]:
        directory = f"/var/www/sites/{self.site['id']}/current/wp-content/plugins/greeting"
        self.node.ssh(["mkdir", "-p", directory])
        self.node.ssh(["tee", f"{directory}/greeting.php"], input=plugin("greeting", "1.0", ""))
        self.place.sql(
            self.site, f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins'"
        )
        self.shell("purge", self.site["id"])
        self.mirror.publish_plugin("greeting", "1.1", "")
        ours = seconds(lambda: self.job(self.on("/updates"), scope="plugins"))
        assert "Version: 1.1" in self.node.ssh(["cat", f"{directory}/greeting.php"]).stdout
        url = f"{self.mirror.url}/plugins/greeting.1.1.zip"
        plain = seconds(lambda: self.shell("update", self.site["id"], url))
        said = "cp -a, curl, unzip, ln -sfn: no rehearsal, no backup"
        yield Line("update of a plugin, rehearsed and backed up", ours, "s", "", plain, said)

    def bring(self) -> Iterator[Line]:
        url = self.web.serve("/export.tar.gz", self.place.export(self.site))
        ours = seconds(lambda: self.job(f"/sites/{self.site['site_id']}/import", archive_url=url))
        plain = seconds(lambda: self.shell("bring", self.site["id"], url, self.site["preview_url"]))
        said = "curl, tar, mariadb, search-replace: nothing judged"
        yield Line("import of an export, judged, with a backup before", ours, "s", "", plain, said)

    def domains(self) -> Iterator[Line]:
        names = [f"{name}.example.com" for name in ("warm", "ours", "plain")]
        for name in names:
            self.acme.point(name, self.node.address)
        self.job(self.on("/domains"), hostname=names[0])
        ours = seconds(lambda: self.job(self.on("/domains"), hostname=names[1]))
        plain = seconds(lambda: self.shell("domain", self.site["id"], names[2], self.acme.directory))
        yield Line("domain, from nothing to https", ours, "s", "", plain, "nginx, certbot --webroot")

    def removal(self) -> Iterator[Line]:
        def ours() -> None:
            job = self.place.run(self.http.delete(f"/api/environments/{self.copy['id']}"))
            assert job["status"] == "succeeded", job

        taken = seconds(ours)
        plain = seconds(lambda: self.shell("remove"))
        said = "DROP DATABASE, rm -rf: no backup"
        yield Line("removal of the copy, with a last backup", taken, "s", "", plain, said)

    @contextmanager
    def _writer(self) -> Iterator[list[float]]:
        """Writes an option again and again meanwhile; afterwards, how long the longest write took."""
        database, longest = "wp_" + self.site["id"].replace("-", "")[:12], [0.0]
        argv = [*self.node.ssh_command(), shlex.join(["python3", "-c", WRITER, database])]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        yield longest
        told, _ = process.communicate("stop\n", timeout=60)
        longest[0], count = json.loads(told)
        assert count > 10, f"{count} writes in {time.monotonic() - began:.1f} s"
