"""Root's work on files goes through ``module_utils/tree``: whatever takes a path instead is found here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.paths import share

PLUGINS = share() / "playbooks" / "collections" / "ansible_collections" / "trueup" / "wordpress" / "plugins"
FORBIDDEN = {
    "os": {"walk", "fwalk", "chown", "lchown", "chmod", "makedirs", "removedirs", "scandir", "link"},
    "shutil": {"rmtree", "copytree", "copy", "copy2", "copyfile", "move", "chown"},
    "glob": {"iglob"},
}
COMMANDS = {"cp", "chown", "chmod", "rm", "mv", "ln", "install", "rsync"}
WHERE_ONLY_ROOT_WRITES = {
    "action/*": "the controller",
    "plugin_utils/*": "Trueup's own code, in a directory of root's",
    "modules/files.py": "configuration of the node, below /etc",
    "modules/node_manifest.py": "the node's manifest",
    "module_utils/certificates/*": "keys and certificates, which no site reaches",
    "module_utils/digest.py": "the collection itself",
    "module_utils/environment/bridge.py": "a unit of systemd's, below /run",
    "module_utils/environment/caches.py": "pages that nginx keeps, which no site reaches",
    "module_utils/environment/core.py": "the directory of the store",
    "module_utils/environment/place.py": "the lock of /etc/hosts",
    "module_utils/environment/run.py": "the directory of manifests",
    "module_utils/environment/seed.py": "seeds, which are Trueup's own",
    "module_utils/environment/seed_install.py": "a directory below /run of root's",
    "module_utils/environment/spares.py": "trees of no site, in a directory of root's",
    "module_utils/environment/store.py": "the store, and its lock",
    "module_utils/environment/units.py": "units of systemd",
    "module_utils/fence.py": "fences, which no site reaches",
    "module_utils/listed_hosts.py": "the firewall's files and lock, and hosts files that copies read alone",
    "module_utils/pending.py": "the directory of manifests",
    "module_utils/tree/*": "the one place",
}


def _modules() -> Iterator[Path]:
    for path in sorted(PLUGINS.rglob("*.py")):
        name = path.relative_to(PLUGINS)
        if not any(name.match(pattern) for pattern in WHERE_ONLY_ROOT_WRITES):
            yield path


def work_by_path(source: str) -> list[str]:
    """What in a module works on paths, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in FORBIDDEN.get(node.value.id, ()):
                found.append(f"{node.lineno}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
            if node.elts[0].value in COMMANDS:
                found.append(f"{node.lineno}: {node.elts[0].value}")
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN:
            found.append(f"{node.lineno}: from {node.module}")
    return found


@pytest.mark.parametrize("path", list(_modules()), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_no_module_works_by_path_where_a_site_writes(path: Path) -> None:
    assert work_by_path(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    ["os.walk(top)", "shutil.rmtree(top)", 'run.command(["cp", "-a", one, other])', "from shutil import copytree"],
)
def test_it_would_be_found(line: str) -> None:
    assert len(work_by_path(f"import os\n{line}\n")) == 1


def test_each_exception_is_of_something_that_is_there() -> None:
    names = [path.relative_to(PLUGINS) for path in PLUGINS.rglob("*.py")]
    for pattern in WHERE_ONLY_ROOT_WRITES:
        assert any(name.match(pattern) for name in names), pattern
