"""Runs modules of the collection's ``module_utils`` on a node that has none of them: they come along, as text.

Sent to ``python3 -I -S -`` with ``SOURCES`` filled in, where Ansible would bring a file first: one round trip.
``argv[1]`` is a JSON list of environment ids; what is printed is one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec

SOURCES: dict[str, str] = {}


class Carried(MetaPathFinder, InspectLoader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=self.is_package(name)) if name in SOURCES else None

    def is_package(self, fullname: str) -> bool:
        return not SOURCES[fullname]

    def get_source(self, fullname: str) -> str:
        return SOURCES[fullname]


if __name__ == "__main__":
    sys.meta_path.insert(0, Carried())
    health = importlib.import_module("ansible_collections.trueup.wordpress.plugins.module_utils.health")
    sys.stdout.write(json.dumps(health.look(json.loads(sys.argv[1]))) + "\n")
