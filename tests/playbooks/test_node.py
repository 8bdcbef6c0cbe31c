"""Provisioning a node: the baseline as seen from outside, and what happens when somebody or something interferes."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.artifacts.pins import Archive
from reconciler.core.observed import Applied
from reconciler.core.variables import Job, NodeVariables
from reconciler.paths import collection, share
from tests.lab import Lab, Node
from tests.lab.fixtures import unique_name
from tests.playbooks.nodes import Run, host_variables, node_variables, provision, run_playbook

STORE_MOUNT = "opt-trueup-wordpress.mount"
SERVICES = ("nginx", "mariadb", "fail2ban", "nftables")


@dataclass(frozen=True)
class Provisioned:
    node: Node
    before: str
    check: Run
    after_check: str
    first: Run
    second: Run


@pytest.fixture(scope="module")
def provisioned(lab: Lab, wp_cli: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provisioned]:
    """A fresh node and what each run on it said, in this order: check, apply, apply.

    A package is put there first that a check can say no more without.
    """
    node = lab.up(unique_name("fresh"))
    directory = tmp_path_factory.mktemp("runs")
    node.ssh("apt-get -qq update && apt-get -qq install python3-pymysql")
    before = fingerprint(node)
    check = provision(lab, node, directory, wp_cli, "--check", "--diff")
    after_check = fingerprint(node)
    first, second = (provision(lab, node, directory, wp_cli) for _ in range(2))
    yield Provisioned(node, before, check, after_check, first, second)
    node.down()


def fingerprint(node: Node) -> str:
    """Everything that a check run must leave alone: files below these, and what is running."""
    command = (
        "find /etc /opt /usr/local /var/www /var/lib/trueup -xdev -printf '%p %m %u %g %s %T@ %l\\n' | sort;"
        " systemctl list-units --no-legend --plain --type=service --state=running | cut -d' ' -f1;"
        " systemctl show --property=MainPID nginx mariadb redis-server; nft list ruleset"
    )
    return node.ssh(command, check=False).stdout


@pytest.mark.lab
@pytest.mark.long
def test_a_check_run_names_the_packages_that_are_missing(lab: Lab, wp_cli: Archive, run_directory: Path) -> None:
    node = lab.up(unique_name("lacking"))
    try:
        run = provision(lab, node, run_directory, wp_cli, "--check")
    finally:
        node.down()
    assert "Would install python3-pymysql." in run.raise_if_failed().output


@pytest.mark.lab
def test_a_check_run_on_a_fresh_node_succeeds_and_changes_nothing(provisioned: Provisioned) -> None:
    provisioned.check.raise_if_failed()
    assert provisioned.check.changed > 10
    assert "+ssl_reject_handshake" in provisioned.check.output.replace(" ", "")
    assert provisioned.after_check == provisioned.before


@pytest.mark.lab
def test_the_first_run_succeeds(provisioned: Provisioned) -> None:
    assert provisioned.first.raise_if_failed().changed > 10


@pytest.mark.lab
def test_the_second_run_changes_nothing(provisioned: Provisioned) -> None:
    assert provisioned.second.raise_if_failed().changed == 0, provisioned.second.output


@pytest.mark.lab
@pytest.mark.long
def test_a_check_run_after_that_changes_nothing(
    lab: Lab, provisioned: Provisioned, wp_cli: Archive, run_directory: Path
) -> None:
    run = provision(lab, provisioned.node, run_directory, wp_cli, "--check", "--diff")
    assert run.raise_if_failed().changed == 0, run.output


@pytest.mark.lab
def test_services_run_and_start_at_boot(provisioned: Provisioned) -> None:
    assert states(provisioned.node) == dict.fromkeys(SERVICES, ("active", "enabled"))
    assert provisioned.node.ssh("systemctl is-enabled php8.2-fpm", check=False).stdout.strip() == "disabled"
    assert provisioned.node.ssh("systemctl is-active php8.2-fpm", check=False).stdout.strip() == "inactive"
    assert provisioned.node.ssh("systemctl --failed --no-legend").stdout == ""


def states(node: Node, names: Sequence[str] = SERVICES) -> dict[str, tuple[str, str]]:
    shown = node.ssh(["systemctl", "show", "--property=ActiveState,UnitFileState", *names]).stdout
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    return {name: (block["ActiveState"], block["UnitFileState"]) for name, block in zip(names, blocks, strict=True)}


@pytest.mark.lab
def test_only_ssh_and_web_answer_from_outside(provisioned: Provisioned) -> None:
    node = provisioned.node
    node.ssh("systemd-run --quiet --unit=listener python3 -m http.server 9999")
    curl = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9999/"
    assert wait_for(lambda: node.ssh(curl, check=False).stdout == "200")
    assert [port for port in (22, 80, 443) if not answers(node.address, port, 60)] == []
    assert [port for port in (21, 25, 3306, 6379, 8080, 9999) if answers(node.address, port)] == []
    node.ssh("systemctl stop listener")


def answers(address: str, port: int, seconds: float = 0.5) -> bool:
    try:
        socket.create_connection((address, port), seconds).close()
    except OSError:
        return False
    return True


@pytest.mark.lab
@pytest.mark.parametrize(
    "request_text",
    [
        "GET / HTTP/1.1\r\nHost: unknown.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_an_unmatched_host_gets_no_answer(provisioned: Provisioned, request_text: str) -> None:
    with socket.create_connection((provisioned.node.address, 80), timeout=60) as connection:
        connection.sendall(request_text.encode())
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


@pytest.mark.lab
def test_an_unmatched_name_gets_no_certificate(provisioned: Provisioned) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((provisioned.node.address, 443), timeout=60) as plain,
        pytest.raises(ssl.SSLError, match="unrecognized"),
    ):
        context.wrap_socket(plain, server_hostname="unknown.example.com")


OF_AN_EARLIER_VERSION: dict[str, Any] = {
    "variables": {"id": "5b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f", "redis_cache": True},
    "services": [],
}
"""What matters of the manifest of an environment that keeps its objects in the node's Redis."""
REDIS = "redis-cli -s /run/redis/redis-server.sock"
REST = ("redis-server",)


@pytest.mark.lab
def test_the_nodes_own_redis_rests(provisioned: Provisioned) -> None:
    assert states(provisioned.node, REST)["redis-server"] == ("inactive", "disabled")


@pytest.mark.long
@pytest.mark.lab
def test_the_nodes_own_redis_runs_while_an_environment_uses_it(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    """A bounded cache that keeps nothing, obeys nobody and has no port; and it ends with the last that used it."""
    node = provisioned_node
    manifest = f"/etc/trueup/environments/{OF_AN_EARLIER_VERSION['variables']['id']}.json"
    node.ssh(["tee", manifest], input=json.dumps(OF_AN_EARLIER_VERSION))
    provision(lab, node, run_directory, wp_cli).raise_if_failed()
    assert states(node, REST)["redis-server"] == ("active", "enabled")
    assert "redis-server.service" in node.ssh("cat /etc/trueup/node.json").stdout
    total_mb = int(node.ssh("awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo").stdout)
    memory = node.ssh(f"{REDIS} info memory").stdout
    assert f"maxmemory:{total_mb * 10 // 100 * 1024 * 1024}" in memory
    assert "maxmemory_policy:allkeys-lru" in memory
    for command in ("config get dir", "config set maxmemory 0", "flushall", "keys *", "monitor", "save"):
        assert "NOPERM" in node.ssh(f"{REDIS} {command}").stdout
    assert "refused" in node.ssh("redis-cli ping 2>&1", check=False).stdout
    assert provision(lab, node, run_directory, wp_cli).raise_if_failed().changed == 0

    node.ssh(["rm", manifest])
    provision(lab, node, run_directory, wp_cli).raise_if_failed()
    assert states(node, REST)["redis-server"] == ("inactive", "disabled")
    assert "redis-server.service" not in node.ssh("cat /etc/trueup/node.json").stdout
    assert provision(lab, node, run_directory, wp_cli).raise_if_failed().changed == 0


@pytest.mark.lab
def test_only_root_has_a_table_of_cron(provisioned: Provisioned) -> None:
    said = provisioned.node.ssh("runuser -u www-data -- crontab -l 2>&1; crontab -l 2>&1", check=False).stdout
    assert "not allowed" in said.splitlines()[0]
    assert "no crontab for root" in said


@pytest.mark.lab
def test_mariadb_lets_in_root_through_the_socket_and_nobody_else(provisioned: Provisioned) -> None:
    node = provisioned.node
    assert node.ssh("mariadb -N -e 'SELECT CURRENT_USER()'").stdout.strip() == "root@localhost"
    for user in ("www-data", "nobody"):
        refused = node.ssh(f"runuser -u {user} -- mariadb -u '' -e 'SELECT 1'", check=False)
        assert refused.returncode != 0
        assert "Access denied" in refused.stderr
        assert node.ssh(f"runuser -u {user} -- mariadb -u root -e 'SELECT 1'", check=False).returncode != 0
    settings = node.ssh("mariadb -N -e 'SELECT @@skip_networking, @@character_set_server, @@local_infile'").stdout
    assert settings.split() == ["1", "utf8mb4", "0"]


@pytest.mark.lab
def test_sshd_takes_keys_only(provisioned: Provisioned) -> None:
    settings = provisioned.node.ssh("sshd -T").stdout.splitlines()
    assert "passwordauthentication no" in settings
    assert "kbdinteractiveauthentication no" in settings
    assert "permitrootlogin without-password" in settings


@pytest.mark.lab
def test_php_and_wp_cli(provisioned: Provisioned, wp_cli: Archive) -> None:
    node = provisioned.node
    told = node.ssh('php -r \'echo PHP_VERSION_ID >= 80200 ? "new" : "old", ini_get("expose_php") ?: "off";\'')
    assert told.stdout == "newoff"
    assert "redis" in node.ssh("php -m").stdout.split()
    fpm = node.ssh("$(ls /usr/sbin/php-fpm8*) -i 2>&1").stdout
    assert "syntax error" not in fpm
    assert "session.cookie_samesite => Lax => Lax" in fpm
    assert "realpath_cache_size => 4096k => 4096k" in fpm
    assert "opcache.optimization_level => 0x7FFE1F1F" in fpm
    assert node.ssh("sha256sum /usr/local/bin/wp").stdout.split()[0] == wp_cli.sha256
    assert node.ssh("wp --allow-root --version").stdout.strip() == f"WP-CLI {wp_cli.version}"


@pytest.mark.lab
def test_a_ban_reaches_the_firewall(provisioned: Provisioned) -> None:
    """Failed logins in the log that nginx writes, until the address is in nftables; a firewall's reload keeps it."""
    node = provisioned.node
    jails = node.ssh("fail2ban-client status").stdout
    for jail in ("sshd", "trueup-wp-login", "trueup-xmlrpc", "trueup-http-auth", "trueup-scanners"):
        assert jail in jails
    stamp = node.ssh("date '+%d/%b/%Y:%H:%M:%S %z'").stdout.strip()
    line = f'203.0.113.7 - - [{stamp}] "POST /wp-login.php HTTP/1.1" 200 99 "-" "x" "-" "a.example" 0.1 - wp-login -\n'
    node.ssh("cat >>/var/log/nginx/access.log", input=line * 8)
    assert wait_for(lambda: "203.0.113.7" in node.ssh("nft list ruleset").stdout)
    node.ssh("systemctl reload nftables")
    ruleset = node.ssh("nft list ruleset").stdout
    assert "203.0.113.7" in ruleset
    assert "policy drop" in ruleset
    node.ssh("fail2ban-client set sshd banip 203.0.113.8")
    assert wait_for(lambda: "203.0.113.8" in node.ssh("nft list ruleset").stdout)
    assert answers(node.address, 22, 60)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.lab
def test_the_manifest_says_what_was_applied(provisioned: Provisioned) -> None:
    node = provisioned.node
    applied = Applied.model_validate_json(node.ssh("cat /etc/trueup/node.json").stdout)
    assert applied.variables == node_variables(node)
    assert applied.digest == NodeVariables.model_validate(node_variables(node)).digest()
    timers = {f"trueup-{name}.timer" for name in ("renew", "statements", "egress")}
    others = {*timers, "trueup-purge.socket", "trueup-egress.path", STORE_MOUNT}
    assert set(applied.services) == {*(f"{name}.service" for name in SERVICES), *others}
    found = node.ssh(["sha256sum", *applied.files]).stdout.splitlines()
    assert {line.split()[1]: line.split()[0] for line in found} == applied.files
    assert "/etc/nginx/nginx.conf" in applied.files
    assert "/etc/nginx/trueup/exclusions.conf" not in applied.files
    assert node.ssh("test -e /etc/trueup/node.pending", check=False).returncode == 1


@pytest.mark.lab
def test_directories_have_their_modes(provisioned: Provisioned) -> None:
    modes = {
        "/etc/trueup/environments": "755",
        "/var/www/sites": "711",
        "/var/lib/trueup/fences": "700",
        "/run/trueup/locks": "700",
        "/opt/trueup/wordpress": "755",
    }
    found = provisioned.node.ssh(["stat", "--format=%n %a %U:%G", *modes]).stdout.splitlines()
    assert found == [f"{path} {mode} root:root" for path, mode in modes.items()]


@pytest.mark.lab
def test_log_rotation_is_valid(provisioned: Provisioned) -> None:
    done = provisioned.node.ssh("logrotate --debug /etc/logrotate.conf")
    assert "error:" not in done.stderr
    assert "/var/log/nginx/access.log" in done.stderr


# Tests that change a node: each gets one of its own, provisioned already.


@pytest.mark.long
@pytest.mark.lab
def test_a_rerun_puts_drift_right(lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path) -> None:
    node = provisioned_node
    before = node.ssh("sha256sum /etc/nginx/nginx.conf /etc/nftables.conf /usr/local/bin/wp").stdout
    node.ssh("sed -i 's/server_tokens off/server_tokens on/' /etc/nginx/nginx.conf && systemctl reload nginx")
    node.ssh("rm /etc/nftables.conf && nft flush ruleset")
    node.ssh("chmod 777 /etc/ssh/sshd_config.d/10-trueup.conf && echo '# mine' >>/etc/nginx/trueup/exclusions.conf")
    node.ssh("truncate -s 100 /usr/local/bin/wp && ln -s ../sites-available/default /etc/nginx/sites-enabled/")
    node.ssh("mariadb -e \"CREATE USER ''@'localhost'; CREATE USER 'root'@'%'; CREATE DATABASE test\"")

    run = provision(lab, node, run_directory, wp_cli, "--diff").raise_if_failed()

    assert node.ssh("mariadb -N -e \"SELECT User, Host FROM mysql.user WHERE User IN ('', 'root')\"").stdout == (
        "root\tlocalhost\n"
    )
    assert node.ssh("mariadb -N -e \"SHOW DATABASES LIKE 'test'\"").stdout == ""
    assert "-    server_tokens on;" in run.output
    assert node.ssh("sha256sum /etc/nginx/nginx.conf /etc/nftables.conf /usr/local/bin/wp").stdout == before
    assert node.ssh("stat --format=%a /etc/ssh/sshd_config.d/10-trueup.conf").stdout.strip() == "600"
    assert "# mine" in node.ssh("cat /etc/nginx/trueup/exclusions.conf").stdout
    assert "policy drop" in node.ssh("nft list ruleset").stdout
    assert node.ssh("ls /etc/nginx/sites-enabled").stdout == ""
    assert provision(lab, node, run_directory, wp_cli).raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.lab
def test_how_php_compiles_is_no_reason_to_reload_it(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    """As on a node of a former version: what is compiled already stays in use."""
    provision(lab, provisioned_node, run_directory, wp_cli).raise_if_failed()
    provisioned_node.ssh("rm /etc/php/*/fpm/conf.d/99-trueup-compiler.ini")
    run = provision(lab, provisioned_node, run_directory, wp_cli).raise_if_failed()
    assert run.changed == 1, "the file"
    assert "Reload PHP-FPM" not in run.output
    assert provision(lab, provisioned_node, run_directory, wp_cli).raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.lab
def test_a_run_that_was_cut_off_is_finished_by_the_next(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    """The new file is in place but nobody reloaded: only the pending note tells."""
    node = provisioned_node
    path = "/etc/mysql/mariadb.conf.d/99-trueup.cnf"
    config = node.ssh(["cat", path]).stdout
    asked = "mariadb -BN -e 'SELECT @@max_connections'"
    before = node.ssh(asked).stdout
    node.ssh(f"sed -i 's/^max_connections.*/max_connections = 77/' {path} && systemctl restart mariadb")
    node.ssh(f"cat >{path} && echo job >/etc/trueup/node.pending", input=config)
    assert node.ssh(asked).stdout == "77\n"

    provision(lab, node, run_directory, wp_cli).raise_if_failed()

    assert node.ssh(asked).stdout == before
    assert node.ssh("test -e /etc/trueup/node.pending", check=False).returncode == 1


@pytest.mark.long
@pytest.mark.lab
def test_a_run_that_ended_before_it_changed_anything_makes_the_next_reload_nothing(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    """It had restarted MariaDB and Redis under the visitors of every site."""
    node = provisioned_node
    show = "systemctl show mariadb redis-server nginx ssh -p MainPID -p StateChangeTimestampMonotonic"
    before = node.ssh(show).stdout
    nowhere = ["-e", json.dumps({"node_supported": ["no system"]})]
    assert provision(lab, node, run_directory, wp_cli, *nowhere).status == 2
    assert node.ssh("test -e /etc/trueup/node.pending", check=False).returncode == 1
    provision(lab, node, run_directory, wp_cli).raise_if_failed()
    assert node.ssh(show).stdout == before


@pytest.mark.long
@pytest.mark.lab
def test_everything_is_back_after_a_reboot(provisioned_node: Node) -> None:
    node = provisioned_node
    node.reboot()
    assert node.failed_units == ()
    assert states(node) == dict.fromkeys(SERVICES, ("active", "enabled"))
    assert [port for port in (22, 80, 443) if not answers(node.address, port, 60)] == []
    assert [port for port in (3306, 6379) if answers(node.address, port)] == []
    assert "policy drop" in node.ssh("nft list ruleset").stdout
    assert node.ssh("stat --format=%a /run/trueup/locks").stdout.strip() == "700"


@pytest.mark.long
@pytest.mark.lab
def test_files_that_nginx_refuses_are_put_back(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    node = provisioned_node
    node.ssh("echo 'nonsense;' >/etc/nginx/sites-enabled/mine.conf")
    node.ssh("sed -i 's/worker_connections 4096/worker_connections 99/' /etc/nginx/nginx.conf")
    run = provision(lab, node, run_directory, wp_cli)
    assert run.status == 2
    assert 'unknown directive "nonsense"' in run.output
    assert "put back as they were" in run.output
    assert "worker_connections 99" in node.ssh("cat /etc/nginx/nginx.conf").stdout
    assert node.ssh("test -e /etc/trueup/node.pending", check=False).returncode == 0


@pytest.mark.long
@pytest.mark.lab
def test_late_jobs_and_held_nodes_are_refused(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    node = provisioned_node
    assert provision(lab, node, run_directory, wp_cli, job=Job(id="a", fence=7)).status == 0
    manifest = json.loads(node.ssh("cat /etc/trueup/node.json").stdout)
    assert manifest["applied_by"] == {"job": "a", "fence": 7, "operator": None}
    late = provision(lab, node, run_directory, wp_cli, job=Job(id="b", fence=6))
    assert late.status == 2
    assert "Job b has fence 6, but fence 7 was" in late.output
    node.ssh("echo 'moving disks' >/etc/trueup/hold")
    held = provision(lab, node, run_directory, wp_cli, job=Job(id="c", fence=8))
    assert held.status == 2
    assert "moving disks" in held.output
    assert provision(lab, node, run_directory, wp_cli, "--check").status == 0


PACKAGE = r"""
set -eu
mkdir -p /root/repository/unzip/DEBIAN && cd /root/repository
printf 'Package: unzip\nVersion: 99\nArchitecture: all\nMaintainer: Lab <lab@example.com>\nDescription: a stand-in\n' \
    >unzip/DEBIAN/control
dpkg-deb --build --root-owner-group unzip unzip.deb >/dev/null
{ cat unzip/DEBIAN/control; printf 'Filename: ./unzip.deb\nSize: %s\nSHA256: %s\n' \
    "$(stat --format=%s unzip.deb)" "$(sha256sum unzip.deb | cut -d' ' -f1)"; } >Packages
chmod 755 /root
echo 'deb [trusted=yes] file:/root/repository ./' >/etc/apt/sources.list
dpkg --purge --force-depends unzip >/dev/null
"""


@pytest.mark.long
@pytest.mark.lab
def test_missing_packages_are_installed(lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path) -> None:
    node = provisioned_node
    node.ssh(PACKAGE)
    check = provision(lab, node, run_directory, wp_cli, "--check").raise_if_failed()
    assert "Would install unzip." in check.output
    assert node.ssh("dpkg-query --show unzip", check=False).returncode != 0
    provision(lab, node, run_directory, wp_cli).raise_if_failed()
    assert node.ssh(["dpkg-query", "--show", "--showformat=${Version}", "unzip"]).stdout == "99"


@pytest.mark.long
@pytest.mark.lab
def test_an_archive_that_is_not_what_its_pin_says_never_leaves(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    node = provisioned_node
    forged = run_directory / "wp-cli.phar"
    forged.parent.mkdir()
    forged.write_text("<?php evil();")
    archive = Archive(forged, wp_cli.version, wp_cli.sha256, "")
    run = provision(lab, node, run_directory, archive)
    assert run.status == 2
    assert "but its pin says" in run.output
    assert node.ssh("sha256sum /usr/local/bin/wp").stdout.split()[0] == wp_cli.sha256


@pytest.mark.long
@pytest.mark.lab
def test_template_code_in_a_variable_is_inert(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    """The inventory marks strings from outside as unsafe; the role then never evaluates them."""
    marker = run_directory / "ran"
    name = {"__ansible_unsafe": f"{{{{ lookup('pipe', 'touch {marker}') }}}} $(touch /root/ran) '\";"}
    hosts = {provisioned_node.name: host_variables(lab, provisioned_node, wp_cli)}
    hosts[provisioned_node.name]["trueup_node"]["name"] = name
    run_playbook("node", hosts, run_directory).raise_if_failed()
    assert not marker.exists()
    manifest = json.loads(provisioned_node.ssh("cat /etc/trueup/node.json").stdout)
    assert manifest["variables"]["name"] == name["__ansible_unsafe"]
    assert provisioned_node.ssh("test -e /root/ran", check=False).returncode == 1


# What can be seen without a node.


def test_argument_specs_and_variables_are_the_same() -> None:
    text = (collection() / "roles/node/meta/argument_specs.yml").read_text()
    options = yaml.safe_load(text)["argument_specs"]["main"]["options"]["trueup_node"]["options"]
    fields = NodeVariables.model_fields
    assert set(options) == set(fields)
    assert {name for name, option in options.items() if option["required"]} == {
        name for name, field in fields.items() if field.is_required()
    }
    types = {str: "str", int: "int"}
    assert {n: options[n]["type"] for n in fields if n != "job"} == {
        n: types[f.annotation] for n, f in fields.items() if n != "job"
    }
    assert set(options["job"]["options"]) == set(Job.model_fields)


@pytest.mark.long
def test_playbooks_pass_ansible_lint() -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-lint")),
            "--offline",
            "-q",
            "playbooks/node.yml",
            str(collection() / "roles/node"),
        ],
        cwd=share(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
