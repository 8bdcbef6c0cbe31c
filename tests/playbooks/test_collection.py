"""The collection as Ansible's own commands see it."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from reconciler.paths import collection, share

MODULES = sorted(path.stem for path in (collection() / "plugins" / "modules").glob("*.py"))


def ansible(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name(program)), *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(share() / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_every_module_has_documentation() -> None:
    assert len(MODULES) > 15
    done = ansible("ansible-doc", "--json", *(f"trueup.wordpress.{name}" for name in MODULES))
    assert done.returncode == 0, done.stderr
    for name in MODULES:
        assert f'"trueup.wordpress.{name}"' in done.stdout
    assert "WARNING" not in done.stderr, done.stderr


def test_each_module_has_its_half_on_the_controller() -> None:
    assert sorted(path.stem for path in (collection() / "plugins" / "action").glob("*.py")) == MODULES


def test_it_builds_with_all_that_a_play_needs(tmp_path: Path) -> None:
    done = ansible("ansible-galaxy", "collection", "build", str(collection()), "--output-path", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (built,) = tmp_path.glob("trueup-wordpress-*.tar.gz")
    with tarfile.open(built) as archive:
        names = set(archive.getnames())
    assert {f"plugins/modules/{name}.py" for name in MODULES} <= names
    assert "roles/environment/templates/nginx-server.conf.j2" in names
    assert not [name for name in names if name.endswith(".pyc")]
