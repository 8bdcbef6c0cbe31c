"""The inventory as Ansible itself reads it, from a bare repository and from plain files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.variables import EnvironmentVariables, NodeVariables
from reconciler.inventory import group_of, inventory_of, unsafe
from reconciler.paths import share
from reconciler.reading import read_fleet
from reconciler.store.repository import Author, Repository

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtQUDZWhs8k/cZcykMkaoX7ZE7DXld8TP79HyddRVgS"
BIN = Path(sys.executable).parent


def node(address: str, **spec: Any) -> dict[str, Any]:
    return document("Node", **{"address": address, "ssh": {"host_key": HOST_KEY}, **spec})


def document(kind: str, *, metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "trueup/v1", "kind": kind, "metadata": metadata or {}, "spec": spec}


@pytest.fixture
def evil() -> str:
    """Where it is run, it leaves a file in the directory that it is run in."""
    return "{{ lookup('pipe', 'touch pwned') }}"


@pytest.fixture
def files(evil: str) -> dict[str, bytes]:
    documents = {
        "nodes/web-1.yaml": node("192.0.2.1"),
        "nodes/web-2.yaml": node("192.0.2.2", ssh={"host_key": HOST_KEY, "port": 2222, "user": "deploy"}),
        "nodes/old.yaml": node("192.0.2.3", state="decommissioned"),
        "sites/acme/site.yaml": document("Site", metadata={"name": evil}),
        "sites/acme/environments/production.yaml": document("Environment", type="production", node="web-1"),
        "sites/acme/environments/pre-view.yaml": document("Environment", type="staging", node="web-2"),
    }
    return {path: json.dumps(content).encode() for path, content in documents.items()}


@pytest.fixture
def store(tmp_path: Path, files: dict[str, bytes]) -> Path:
    Repository.init(tmp_path / "home/store.git", files, Author("A", "a@example.com")).close()
    return tmp_path / "home/store.git"


def ansible(
    *argv: str, home: Path, store: Path | None = None, program: str = "ansible-inventory"
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",  # nobody's environment is active
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANSIBLE_CONFIG": str(share() / "ansible.cfg"),
        "TRUEUP_HOME": str(home),
    }
    if store:
        environment["TRUEUP_STORE"] = str(store)
    return subprocess.run(
        [str(BIN / program), "-i", str(share() / "inventory"), *argv],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_ansible_reads_the_store_without_any_process_of_ours(store: Path, evil: str) -> None:
    done = ansible("--list", home=store.parent)
    assert done.returncode == 0, done.stderr
    listing = json.loads(done.stdout)
    assert listing["nodes"]["hosts"] == ["web-1", "web-2"]
    assert listing["environment_acme__production"]["hosts"] == ["web-1"]
    assert listing["environment_acme__pre_view"]["hosts"] == ["web-2"]
    second = listing["_meta"]["hostvars"]["web-2"]
    assert (plain(second["ansible_host"]), second["ansible_port"], plain(second["ansible_user"])) == (
        "192.0.2.2",
        2222,
        "deploy",
    )
    first = plain(listing["_meta"]["hostvars"]["web-1"])
    assert first["trueup_environments"]["acme/production"]["content"]["title"] == evil
    NodeVariables.model_validate(first["trueup_node"])
    EnvironmentVariables.model_validate(first["trueup_environments"]["acme/production"])
    assert first["trueup_artifacts"] == {"wordpress": {}}


def plain(value: Any) -> Any:
    """Without the tags."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe", {key: plain(item) for key, item in value.items()})
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_a_template_in_a_site_s_name_is_only_a_name(store: Path, tmp_path: Path, evil: str) -> None:
    """On a real run, on which Ansible would evaluate it if it could."""
    playbook = tmp_path / "playbook.yml"
    title = "trueup_environments['acme/production'].content.title"
    tasks = [
        {"ansible.builtin.debug": {"msg": f"{{{{ {title} }}}}"}},
        {"ansible.builtin.command": {"argv": ["echo", f"{{{{ {title} }}}}"]}, "register": "said"},
        {"ansible.builtin.copy": {"content": "{{ said.stdout }}", "dest": str(tmp_path / "said"), "mode": "0600"}},
    ]
    play = {"hosts": "environment_acme__production", "connection": "local", "tasks": tasks}
    playbook.write_text(json.dumps([play]))
    done = ansible(str(playbook), home=store.parent, program="ansible-playbook")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "said").read_text() == evil
    assert not list(tmp_path.rglob("pwned"))


def test_a_plain_directory_is_a_store_too(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, content in {**files, ".git/config.yaml": b"x", "docs/notes.yaml": b"[", "README.md": b"x"}.items():
        path = tmp_path / "plain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = ansible("--list", home=tmp_path, store=tmp_path / "plain")
    assert json.loads(done.stdout)["nodes"]["hosts"] == ["web-1", "web-2"]


def test_stalled_documents_are_left_out_with_a_word_and_the_rest_goes_on(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    broken = {
        **files,
        "nodes/web-2.yaml": b"kind: Node\n  bad: [",
        "sites/acme/environments/typo.yaml": json.dumps(document("Environment", type="clone", nod="web-1")).encode(),
    }
    Repository.init(tmp_path / "store.git", broken, Author("A", "a@example.com")).close()
    done = subprocess.run(
        [sys.executable, str(share() / "inventory/desired_state.py"), "--list"],
        env={**os.environ, "TRUEUP_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listing = json.loads(done.stdout)
    assert listing["nodes"]["hosts"] == ["web-1"]
    assert list(listing["_meta"]["hostvars"]["web-1"]["trueup_environments"]) == ["acme/production"]
    left_out = done.stderr.splitlines()
    assert len(left_out) == 3  # the broken node, its environment, the typo
    assert any(line.startswith("Left out: nodes/web-2.yaml:2:") for line in left_out)
    assert any(line.startswith("Left out: sites/acme/environments/typo.yaml:") for line in left_out)


def test_without_a_store_the_message_says_what_to_do(tmp_path: Path) -> None:
    done = ansible("--list", home=tmp_path)
    assert f"There is no store at {tmp_path}/store.git." in done.stderr
    assert "Set TRUEUP_STORE or TRUEUP_HOME" in done.stderr
    assert "web-1" not in done.stdout


def test_the_control_plane_s_key_and_archives_are_given_when_they_are_there(store: Path, tmp_path: Path) -> None:
    (store.parent / "ssh").mkdir()
    (store.parent / "ssh/id_ed25519").write_text("key")
    listing = json.loads(ansible("--list", home=store.parent).stdout)
    host = plain(listing["_meta"]["hostvars"]["web-1"])
    assert host["ansible_ssh_private_key_file"] == f"{tmp_path}/home/ssh/id_ed25519"
    assert "IdentitiesOnly=yes" in host["ansible_ssh_common_args"]


def test_a_run_s_inventory_holds_its_host_and_environment_alone(store: Path) -> None:
    fleet = read_fleet(store)
    production = fleet.environments_by_key["acme/production"]
    host = fleet.nodes_by_slug["web-1"]
    inventory = inventory_of(fleet, key_file=None, artifacts={}, node_id=host.id, environment_id=production.id)
    assert list(inventory.hosts) == ["web-1"]
    assert inventory.groups == {"nodes": ("web-1",), "environment_acme__production": ("web-1",)}
    assert list(inventory.hosts["web-1"]["trueup_environments"]) == ["acme/production"]


def test_a_run_may_be_told_another_whole_than_the_document_s(store: Path) -> None:
    """What is held stays as it was applied."""
    fleet = read_fleet(store)
    production, host = fleet.environments_by_key["acme/production"], fleet.nodes_by_slug["web-1"]
    declared = fleet.environment_variables(production.id)
    other = declared.model_copy(update={"fastcgi_cache": not declared.fastcgi_cache})
    given = inventory_of(fleet, key_file=None, artifacts={}, node_id=host.id, instead=other).hosts["web-1"]
    assert given["trueup_environments"]["acme/production"] == other.model_dump(mode="json", exclude={"job"})
    assert given["trueup_node"] == fleet.node_variables(host.id).model_dump(mode="json", exclude={"job"})
    changed = fleet.node_variables(host.id).model_copy(update={"redis_memory_percent": 33})
    given = inventory_of(fleet, key_file=None, artifacts={}, node_id=host.id, instead=changed).hosts["web-1"]
    assert given["trueup_node"]["redis_memory_percent"] == 33
    assert given["trueup_environments"]["acme/production"] == declared.model_dump(mode="json", exclude={"job"})


def test_two_environments_whose_groups_meet_keep_both_hosts(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert group_of("a--b/c") == group_of("a/b--c")
    both = {
        "sites/a--b/site.yaml": document("Site"),
        "sites/a--b/environments/c.yaml": document("Environment", type="production", node="web-1"),
        "sites/a/site.yaml": document("Site"),
        "sites/a/environments/b--c.yaml": document("Environment", type="production", node="web-2"),
    }
    contents = {**files, **{path: json.dumps(content).encode() for path, content in both.items()}}
    Repository.init(tmp_path / "store.git", contents, Author("A", "a@example.com")).close()
    groups = inventory_of(read_fleet(tmp_path / "store.git"), key_file=None, artifacts={}).groups
    assert groups["environment_a__b__c"] == ("web-1", "web-2")


def test_every_string_is_tagged_however_deep() -> None:
    assert unsafe({"a": [1, None, True, "x", {"b": ("y",)}]}) == {
        "a": [1, None, True, {"__ansible_unsafe": "x"}, {"b": [{"__ansible_unsafe": "y"}]}]
    }
