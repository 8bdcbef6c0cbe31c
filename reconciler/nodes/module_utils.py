"""Modules of the collection's ``module_utils`` that need the standard library alone, loaded by their path there."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

from reconciler.core.errors import Invalid
from reconciler.paths import collection


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
