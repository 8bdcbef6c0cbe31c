"""Runs modules of the collection's ``module_utils`` on a node that has none of them: they come along, as text.

Sent to ``python3 -I -S -`` with ``SOURCES`` filled in and a call of ``answer`` at its end, where Ansible would bring a
file first: one round trip.
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


def answer(module: str, function: str, argument: object) -> None:
    """Print what the function answers, as one line of JSON."""
    sys.meta_path.insert(0, Carried())
    found = getattr(importlib.import_module(module), function)(argument)
    sys.stdout.write(json.dumps(found) + "\n")
