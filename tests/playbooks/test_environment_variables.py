"""Role `environment` asks for exactly what the reconciler gives."""

from typing import Any

import yaml
from pydantic import BaseModel

from reconciler.core.variables import EnvironmentVariables
from reconciler.paths import collection


def test_the_argument_specs_are_the_model() -> None:
    text = (collection() / "roles/environment/meta/argument_specs.yml").read_text()
    spec = yaml.safe_load(text)["argument_specs"]["main"]["options"]["trueup_environment"]
    assert _of_spec(spec["options"]) == _of_model(EnvironmentVariables)


def _of_spec(options: dict[str, Any]) -> dict[str, Any]:
    return {name: _of_spec(one["options"]) if "options" in one else None for name, one in options.items()}


def _of_model(model: type[BaseModel]) -> dict[str, Any]:
    return {name: _nested(field.annotation) for name, field in model.model_fields.items()}


def _nested(annotation: Any) -> dict[str, Any] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    found = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
    return _of_model(found[0]) if found else None
