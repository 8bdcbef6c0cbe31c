"""The WordPress of new sites is on a node before the first site asks for it."""

from pathlib import Path

import pytest

from reconciler.artifacts.pins import Archive, fetch_wordpress
from tests.lab import Lab, Node
from tests.lab.paths import cache_directory
from tests.playbooks.nodes import host_variables, run_playbook

VERSION = "7.1.1"


@pytest.mark.long
@pytest.mark.lab
def test_the_core_of_new_sites_is_sent_once(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path
) -> None:
    wordpress = fetch_wordpress(VERSION, cache_directory().parent / "artifacts")
    host = host_variables(lab, provisioned_node, wp_cli)
    host["trueup_artifacts"]["wordpress"] = {VERSION: {"path": str(wordpress.path), "sha256": wordpress.sha256}}
    hosts = {provisioned_node.name: host}
    tree = f"/opt/trueup/wordpress/{VERSION}"

    run_playbook("node", hosts, run_directory, "--check").raise_if_failed()
    assert provisioned_node.ssh(["test", "-e", tree], check=False).returncode == 1

    run_playbook("node", hosts, run_directory).raise_if_failed()
    found = provisioned_node.ssh(["sh", "-c", f"grep -c . {tree}.sha256; stat -c %U:%G {tree}/wp-load.php"]).stdout
    assert found.split() == ["3782", "root:root"]
    assert run_playbook("node", hosts, run_directory).raise_if_failed().changed == 0
    assert run_playbook("node", hosts, run_directory, "--check").raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.lab
def test_an_archive_that_is_not_its_pin_is_not_sent(
    lab: Lab, provisioned_node: Node, wp_cli: Archive, run_directory: Path, tmp_path: Path
) -> None:
    fake = tmp_path / "wordpress.tar.gz"
    fake.write_bytes(b"not WordPress")
    host = host_variables(lab, provisioned_node, wp_cli)
    host["trueup_artifacts"]["wordpress"] = {VERSION: {"path": str(fake), "sha256": "0" * 64}}
    run = run_playbook("node", {provisioned_node.name: host}, run_directory)
    assert run.status == 2
    assert "but its pin says" in run.output
    assert provisioned_node.ssh(["test", "-e", f"/opt/trueup/wordpress/{VERSION}"], check=False).returncode == 1
