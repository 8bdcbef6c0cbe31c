"""The application: routes, errors, and what every request passes."""

from __future__ import annotations

from fastapi import FastAPI

from api import contract, errors
from api.clients import parse_networks
from api.dependencies import Dependencies
from api.gate import Gate
from api.observability import Watch
from api.routes import (
    auth,
    backups,
    domains,
    drift_reports,
    environments,
    health,
    hooks,
    jobs,
    metrics,
    nodes,
    sites,
    snapshot,
    uploads,
)
from api.streams import Ending


def create_app(dependencies: Dependencies) -> FastAPI:
    """The API over this control plane. Serve it without the server's own handling of proxy headers."""
    # The hand-written contract is served, not the generated one; redirects would lose a request's body.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.dependencies = dependencies
    app.state.ending = Ending()
    app.state.watch = Watch(dependencies)
    errors.install(app)
    for module in (auth, sites, environments, backups, domains, drift_reports, jobs, metrics, nodes, uploads):
        app.include_router(module.router)
    for module in (snapshot, hooks, health, contract):
        app.include_router(module.router)
    app.add_middleware(Gate, trusted=parse_networks(dependencies.settings.trusted_proxies), watch=app.state.watch)
    return app
