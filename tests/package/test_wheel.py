"""What the wheel carries, and that it works where there is no checkout."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
from pathlib import Path

import pytest

from reconciler import __version__
from tests.package.conftest import TOP, Installed, build
from tests.proof import sampled

SHARE = "reconciler/share"
COLLECTION = f"{SHARE}/playbooks/collections/ansible_collections/trueup/wordpress"
SHARED = ("playbooks", "inventory", "contracts", "desired-state", "ansible.cfg")
PLAYBOOKS = ("environment.yml", "node.yml", "purge.yml", "observe.yml")


def files_of(where: Path, name: str) -> dict[str, Path]:
    """Every file under ``name``, by its path in the checkout; links to directories are gone into."""
    top = where / name
    found = [top] if top.is_file() else [file for file in _walk(top) if file.is_file()]
    return {file.relative_to(where).as_posix(): file for file in found if "__pycache__" not in file.parts}


def _walk(directory: Path) -> list[Path]:
    return [found for entry in sorted(directory.iterdir()) for found in (_walk(entry) if entry.is_dir() else [entry])]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_carries_what_the_checkout_has_and_nothing_else(wheel: Path) -> None:
    packages = {path: file for name in ("reconciler", "api") for path, file in files_of(TOP, name).items()}
    shared = {f"{SHARE}/{path}": file for name in SHARED for path, file in files_of(TOP, name).items()}
    assert contents(wheel) == {path: file.read_bytes() for path, file in (packages | shared).items()}


@pytest.mark.parametrize(
    "path",
    [
        "reconciler/nodes/probe.py",
        "reconciler/artifacts/pins.yaml",
        "reconciler/records/migrations/env.py",
        "reconciler/records/migrations/script.py.mako",
        "reconciler/records/migrations/versions/0001_first_tables.py",
        f"{SHARE}/ansible.cfg",
        f"{SHARE}/inventory/desired_state.py",
        f"{SHARE}/contracts/openapi.yaml",
        f"{SHARE}/contracts/schemas/error.json",
        f"{SHARE}/desired-state/sites/acme/environments/production.yaml",
        f"{SHARE}/desired-state/schemas/environment.json",
        f"{COLLECTION}/galaxy.yml",
        f"{COLLECTION}/plugins/modules/environment.py",
        f"{COLLECTION}/plugins/action/environment.py",
        f"{COLLECTION}/plugins/module_utils/fence.py",
        f"{COLLECTION}/plugins/module_utils/environment/layout.py",
        f"{COLLECTION}/roles/environment/meta/argument_specs.yml",
        f"{COLLECTION}/roles/environment/templates/nginx.conf.j2",
        f"{COLLECTION}/roles/node/handlers/main.yml",
        *(f"{SHARE}/playbooks/{name}" for name in PLAYBOOKS),
    ],
)
def test_carries(wheel: Path, path: str) -> None:
    assert path in contents(wheel)


def test_tells_its_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition(".dist-info/")[2] for name in archive.namelist()}
    assert {"licenses/LICENSE", "licenses/LICENSES/GPL-3.0-or-later.txt"} <= names


def test_a_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    assert contents(build("sdist", tmp_path)) == contents(wheel)


def test_imports_nothing_of_the_checkout(installed: Installed) -> None:
    done = installed.run("python", "-c", "import api, reconciler; print(api.__file__, reconciler.__file__)")
    assert [Path(path).is_relative_to(installed.environment) for path in done.stdout.split()] == [True, True]


def test_says_its_version(installed: Installed) -> None:
    done = installed.run("trueup", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_makes_a_home_twice(installed: Installed) -> None:
    first, second = installed.run("trueup", "init"), installed.run("trueup", "init")
    assert first.returncode == 0, first.stderr
    assert (second.returncode, second.stdout) == (0, first.stdout)
    home = installed.workplace / "home"
    assert home.stat().st_mode & 0o777 == 0o700
    # The migrations ran, although nobody has alembic's configuration file here.
    with sqlite3.connect(home / "trueup.db") as database:
        newest = max((TOP / "reconciler" / "records" / "migrations" / "versions").glob("[0-9]*.py")).name[:4]
        assert database.execute("select version_num from alembic_version").fetchall() == [(newest,)]
    report = json.loads(installed.run("trueup", "status", "-o", "json").stdout)
    assert (report["environments"], report["stalled"]) == ([], [])


def test_a_new_store_is_valid_and_has_the_schemas_for_editors(installed: Installed) -> None:
    assert installed.run("trueup", "init").returncode == 0
    clone = installed.workplace / "clone"
    installed.run("/usr/bin/git", "clone", "-q", installed.workplace / "home" / "store.git", clone)
    assert installed.run("trueup", "validate", clone).returncode == 0
    schemas = {path.name: path.read_bytes() for path in (clone / "schemas").iterdir()}
    packaged = {path.name: path.read_bytes() for path in (installed.share / "contracts" / "schemas").iterdir()}
    assert schemas == {name: content for name, content in packaged.items() if name != "error.json"}


def test_validates_the_example_store(installed: Installed) -> None:
    done = installed.run("trueup", "validate", installed.share / "desired-state")
    assert done.returncode == 0, done.stdout + done.stderr


def test_tells_file_and_line_of_what_is_wrong(installed: Installed) -> None:
    broken = installed.workplace / "broken"
    shutil.copytree(installed.share / "desired-state", broken)
    path = "sites/acme/environments/production.yaml"
    text = (broken / path).read_text()
    line = text[: text.index("max_children")].count("\n") + 1
    (broken / path).write_text(text.replace("max_children: 8", "max_children: many"))
    done = installed.run("trueup", "validate", broken)
    assert done.returncode == 1
    assert f"{path}:{line}:5: spec.php.max_children" in done.stdout


def _ansible(installed: Installed) -> dict[str, str]:
    share = installed.share
    return {"ANSIBLE_CONFIG": str(share / "ansible.cfg"), "TRUEUP_STORE": str(share / "desired-state")}


def test_lists_the_inventory(installed: Installed) -> None:
    done = installed.run(
        "ansible-inventory", "-i", installed.share / "inventory", "--list", settings=_ansible(installed)
    )
    assert done.returncode == 0, done.stderr
    inventory = json.loads(done.stdout)
    assert inventory["environment_acme__production"]["hosts"] == ["web-1"]
    assert "acme/production" in inventory["_meta"]["hostvars"]["web-1"]["trueup_environments"]


def test_lists_the_inventory_where_its_bytecode_was_compiled(installed: Installed) -> None:
    """As pip leaves it: with a directory ``__pycache__`` beside the script. Each is a copy of its own here."""
    share = installed.workplace / "share"
    shutil.copytree(installed.share, share)
    assert installed.run("python", "-m", "compileall", "-q", share / "inventory").returncode == 0
    settings = _ansible(installed) | {"ANSIBLE_CONFIG": str(share / "ansible.cfg")}
    path = {"PATH": f"{installed.environment / 'bin'}:/usr/bin:/bin"}
    done = installed.run("ansible-inventory", "-i", share / "inventory", "--list", settings=settings | path)
    assert done.returncode == 0, done.stderr


def test_the_inventory_finds_its_environment_without_help(installed: Installed) -> None:
    script = installed.share / "inventory" / "desired_state.py"
    path = {"PATH": "/usr/bin:/bin"}
    done = installed.run(script, "--list", settings=_ansible(installed) | path)
    assert done.returncode == 0, done.stderr
    assert "web-1" in json.loads(done.stdout)["_meta"]["hostvars"]


@pytest.mark.parametrize("playbook", sampled(PLAYBOOKS))
def test_lists_the_tasks_of_a_playbook(installed: Installed, playbook: str) -> None:
    argv = ("ansible-playbook", "-i", installed.share / "inventory", installed.share / "playbooks" / playbook)
    extra = ("-e", "environment=acme/production", "-e", "node=web-1")
    checked = installed.run(*argv, *extra, "--syntax-check", settings=_ansible(installed))
    assert checked.returncode == 0, checked.stderr
    listed = installed.run(*argv, *extra, "--list-tasks", "--list-hosts", settings=_ansible(installed))
    assert listed.returncode == 0, listed.stderr
    assert "web-1" in listed.stdout
