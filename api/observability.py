"""What machines that watch want to know: readiness, and the numbers that Prometheus scrapes."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from shutil import disk_usage
from time import perf_counter

from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Message, Scope, Send

from api.dependencies import Dependencies
from api.errors import NotReady
from api.views import environment_views, node_views, site_views
from reconciler.certificates.kept import Kept
from reconciler.operations.drills import last_drills
from reconciler.reports.targets import targets_of
from reconciler.state import EPOCH
from reconciler.store import standing

_LEAST_FREE = 64 * 2**20
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


class Watch:
    """One app's registry: requests as they are answered, the fleet as it is when asked."""

    def __init__(self, dependencies: Dependencies) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.registry.register(_Fleet(dependencies))
        self.requests = Histogram(
            "trueup_http_request_seconds",
            "Time to answer, by route and status.",
            ("method", "route", "status"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )

    def timed(self, scope: Scope, send: Send) -> Send:
        """``send`` that counts the answer when it begins."""
        began = perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's template, not the path: ids would make a series each.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self.requests.labels(method, route, message["status"]).observe(perf_counter() - began)
            await send(message)

        return counting


class _Fleet(Collector):
    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies

    def describe(self) -> list[Metric]:
        """Nothing is asked before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        current = self._dependencies.state.current()
        jobs = self._dependencies.records.jobs.counts()
        yield _gauge("trueup_jobs", "Jobs that are kept.", "status", {status.value: jobs[status] for status in jobs})
        yield _gauge("trueup_nodes", "Nodes.", "status", Tally(node.status.value for node in node_views(current)))
        yield _gauge(
            "trueup_sites",
            "Sites.",
            "status",
            Tally(site.status.value for site in site_views(current, current.fleet.sites.values())),
        )
        environments = environment_views(current)
        statuses = Tally(environment.status.value for environment in environments)
        drift = Tally(environment.drift_status.value for environment in environments)
        yield _gauge("trueup_environments", "Environments.", "status", statuses)
        yield _gauge("trueup_environments_drift", "Environments by their newest drift check.", "drift", drift)
        health = Tally(str(environment.current_release_health) for environment in environments)
        yield _gauge("trueup_environments_health", "Environments by their release's health.", "health", health)
        drills = last_drills(self._dependencies.records, self._dependencies.now())
        kept = self._dependencies.records.backups.first_completed().keys() & current.fleet.environments.keys()
        tried = Tally(("passed" if drills[id_].passed else "failed") if id_ in drills else "never" for id_ in kept)
        yield _gauge("trueup_environments_drill", "Environments with backups, by the last drill.", "drill", tried)
        moments = [drills[id_].at for id_ in kept if id_ in drills and drills[id_].passed]
        if moments:
            yield GaugeMetricFamily(
                "trueup_drill_oldest_timestamp_seconds",
                "When the environment whose last drill passed longest ago was drilled.",
                min(moments).timestamp(),
            )
        declared = targets_of(current.fleet.platform.spec.reports)
        latest = self._dependencies.records.deliveries.latest()
        deliveries = Tally(str(latest[id_].status) for id_ in declared if id_ in latest)
        yield _gauge(
            "trueup_report_targets", "Targets by their newest delivery of a drift report.", "status", deliveries
        )
        yield GaugeMetricFamily(
            "trueup_documents_stalled", "Documents that nothing is decided for.", len(current.fleet.stalled)
        )
        yield from self._upstream()
        yield from _preview_certificate(Kept(self._dependencies.settings.preview))

    def _upstream(self) -> Iterator[Metric]:
        """Nothing, where no repository is followed."""
        settings, upstream = self._dependencies.settings, self._dependencies.state.repository.upstream
        if settings.upstream is None:
            return
        found = standing.read(settings.upstream_standing)
        states = {state.value: int(found is not None and found.state is state) for state in standing.State}
        yield _gauge("trueup_upstream", "How the store stands with the repository that it follows.", "state", states)
        yield GaugeMetricFamily("trueup_upstream_waiting", "Commits that wait to be pushed there.", upstream.waiting())
        yield GaugeMetricFamily(
            "trueup_upstream_dropped", "Commits that it left no room for and that are kept.", len(upstream.dropped())
        )


def _preview_certificate(kept: Kept) -> Iterator[Metric]:
    wildcard = kept.wildcard()
    if wildcard is not None:
        yield GaugeMetricFamily(
            "trueup_preview_certificate_end_timestamp_seconds",
            "When the certificate of preview URLs ends.",
            wildcard.ends_at.timestamp(),
        )
    yield GaugeMetricFamily(
        "trueup_preview_certificate_failures",
        "Whether it could not be had, and on how many nodes it could not be put.",
        kept.notes().failures,
    )


def _gauge(name: str, text: str, label: str, values: dict[str, int] | Tally[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def check_ready(dependencies: Dependencies) -> None:
    """Raises NotReady, StoreError or RecordsError when the control plane could not take work now."""
    dependencies.state.fleet()
    # Forgets nothing, and needs all that a write needs.
    dependencies.records.sessions.prune(EPOCH)
    free = disk_usage(dependencies.settings.home).free
    if free < _LEAST_FREE:
        raise NotReady(f"Not ready: {free // 2**20} MiB are free on the control plane's disk. Free some space.")
