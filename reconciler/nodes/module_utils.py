"""Modules of the collection's ``module_utils`` that need the standard library alone: loaded by their path there, or
brought to a node to be run on it.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from reconciler.core.errors import Invalid
from reconciler.paths import collection

PYTHON = ["python3", "-I", "-S", "-"]
"""Runs what is its standard input, with the standard library alone."""
_PACKAGE = "ansible_collections.trueup.wordpress.plugins.module_utils"


@cache
def load(name: str) -> Any:
    """The module ``name``, as ``environment/layout``.

    Raises:
        Invalid: it is not where an installation has it.
    """
    path = (collection() / "plugins" / "module_utils" / name).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Invalid(f"{path} cannot be imported. Reinstall Trueup.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def carried(module: str, function: str, argument: Any, modules: tuple[str, ...] = ()) -> bytes:
    """A program for a node's `PYTHON`: it prints as one line of JSON what the function answers.

    ``module`` as ``environment.layout``; ``modules`` are all that it imports, as ``environment/layout``, or just all.
    """
    asked = [f"{_PACKAGE}.{module}", function, argument]
    return _program(modules) + f"answer(*json.loads({json.dumps(asked)!r}))\n".encode()


@cache
def _program(modules: tuple[str, ...]) -> bytes:
    """What finds the modules in its own text. The packages around them are empty."""
    utils = collection() / "plugins" / "module_utils"
    chosen = [(utils / name).with_suffix(".py") for name in modules] or list(utils.rglob("*.py"))
    sources: dict[str, str] = {}
    for path in chosen:
        name = ".".join((_PACKAGE, *path.relative_to(utils).with_suffix("").parts))
        sources |= dict.fromkeys(_packages(name), "") | {name: path.read_text(encoding="utf-8")}
    program = Path(__file__).with_name("carried.py").read_text(encoding="utf-8")
    return program.replace("= {}\n", f"= json.loads({json.dumps(sources)!r})\n", 1).encode()


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
