"""The contract as the API serves it: the hand-written document, and pages for people without any other host."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from ruamel.yaml import YAML

from reconciler.core.errors import NotFound
from reconciler.paths import share

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Trueup API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "/api/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


@cache
def document() -> bytes:
    """``contracts/openapi.yaml`` as JSON."""
    yaml = YAML(typ="safe")
    text = (share() / "contracts" / "openapi.yaml").read_text(encoding="utf-8")
    return json.dumps(yaml.load(text), ensure_ascii=False).encode()


@cache
def _asset(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()


@router.get("/api/openapi.json")
async def get_openapi() -> Response:
    return Response(document(), media_type="application/json")


@router.get("/docs")
async def docs() -> Response:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{name}")
async def docs_file(name: str) -> Response:
    if name == "start.js":
        return Response(_START, media_type="text/javascript")
    if name not in _ASSETS:
        raise NotFound(f"There is no /docs/{name}. See /docs.")
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(_asset(name), media_type=_ASSETS[name], headers=headers)
