"""The certificate of preview URLs: asked for when it is due, and brought to every node, beside the ticks.

Whatever fails leaves what is served as it was; it is told in the log and in ``trueup status``, and tried again later.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import structlog

from reconciler.certificates.errors import NotIssued
from reconciler.certificates.giving import TAKEN_BACK, drift, is_to_be_given, to_be_taken_from
from reconciler.certificates.issuing import obtain
from reconciler.certificates.kept import Delivery, Kept, Wildcard
from reconciler.certificates.zone import Zone
from reconciler.core.entries import NodeEntry
from reconciler.core.errors import TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import PlatformSpec
from reconciler.core.status import NodeStatus
from reconciler.core.tls import PreviewTls
from reconciler.loop.tools import Tools
from reconciler.records.observations import Observation
from reconciler.storage.secret_store import Secrets

log = structlog.get_logger()

PLATFORM = "platform.yaml"
PLAYBOOK = "preview_certificate.yml"
TIMEOUT_S = 120.0
STOP_S = 15.0


class WildcardKeeper:
    """Keeps the wildcard of the platform document. ``begin`` returns at once; of several begun, one is at work."""

    def __init__(self, tools: Tools, clock: Callable[[], datetime]) -> None:
        self._tools = tools
        self._clock = clock
        self._kept = Kept(tools.settings.preview)
        self._secrets = Secrets(tools.settings.secrets)
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._guarded, name="wildcard", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._cancel.set()
        if self._thread is not None:
            self._thread.join(timeout=STOP_S)

    def _guarded(self) -> None:
        try:
            self.work()
        except (TrueupError, OSError) as error:
            log.error("preview certificate not looked after", error=str(error))

    def work(self) -> None:
        """Ask for what is due, then give each node what it lacks."""
        fleet = self._tools.state.fleet()
        spec = fleet.platform.spec
        if any(stalled.path == PLATFORM for stalled in fleet.stalled):
            return  # what it says cannot be read: nothing follows from that
        self._take_back(fleet, wanted=spec.preview_tls is not None)
        if spec.preview_tls is None:
            if not self._kept.notes().holders:
                self._kept.forget()
            return
        self._renew(spec, spec.preview_tls)
        wildcard = self._kept.wildcard()
        if wildcard is not None and wildcard.domain == spec.preview_domain:
            self._deliver(wildcard, fleet)

    def _renew(self, spec: PlatformSpec, settings: PreviewTls) -> None:
        domain, now, notes = str(spec.preview_domain), self._clock(), self._kept.notes()
        found = self._kept.wildcard()
        is_wanted = found is not None and (found.domain, found.directory) == (domain, spec.tls.directory)
        if is_wanted and found is not None and not found.is_due(now):
            return
        asked = self._asked(spec, settings)
        if notes.failure and notes.failure.holds_back(asked, now):
            return
        try:
            wildcard = obtain(domain, spec.tls, self._zone(settings), self._wait(settings), self._kept)
        except (NotIssued, TrueupError) as error:
            self._kept.note(notes.failed(str(error), asked, now))
            log.error("preview certificate not issued", domain=domain, error=str(error))
            return
        self._kept.keep(wildcard)
        self._kept.note(replace(notes, failure=None))
        log.info("preview certificate issued", domain=domain, ends=wildcard.ends_at.isoformat())

    def _asked(self, spec: PlatformSpec, settings: PreviewTls) -> str:
        """A digest of all that an attempt depends on, the secret too: what is set right is tried at once."""
        try:
            secret = self._secrets.get(settings.secret)
        except TrueupError:
            secret = {}
        parts = [spec.preview_domain, spec.tls.model_dump_json(), settings.model_dump_json(), sorted(secret.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _wait(self, settings: PreviewTls) -> Callable[[], None]:
        def wait() -> None:
            if self._cancel.wait(settings.propagation_s):
                raise NotIssued("Trueup is being stopped. The certificate is asked for again when it is started.")

        return wait

    def _zone(self, settings: PreviewTls) -> Zone:
        value = self._secrets.get(settings.secret)
        if "key" not in value:
            raise NotIssued(f"Secret {settings.secret} has no `key`. Set it: `trueup secret set {settings.secret}`.")
        return Zone(settings, value["key"])

    def _deliver(self, wildcard: Wildcard, fleet: Fleet) -> None:
        current = self._tools.state.current()
        for node in fleet.nodes.values():
            if self._cancel.is_set():
                return
            notes, observation = self._kept.notes(), current.observations.get(node.id)
            is_active = not node.stalled and current.node_status(node.id) is NodeStatus.ACTIVE
            if is_active and is_to_be_given(node, wildcard, notes, observation, self._clock()):
                self._tell_drift(node, notes.delivered.get(str(node.id)), observation)
                self._give(node, fleet, wildcard)

    def _tell_drift(self, node: NodeEntry, given: Delivery | None, observation: Observation | None) -> None:
        if given is not None and (found := drift(given, observation)):
            log.warning("preview certificate drifted", node=node.slug, found=found)

    def _forget_others(self, fleet: Fleet) -> None:
        """Nodes that are declared no more: nothing is known by which they could be reached."""
        notes = self._kept.notes()
        gone = {node for node in (*notes.delivered, *notes.refused) if UUID(node) not in fleet.nodes}
        for node in gone:
            notes = notes.without(node)
        if gone:
            self._kept.note(notes)

    def _give(self, node: NodeEntry, fleet: Fleet, wildcard: Wildcard) -> None:
        given = {"domain": wildcard.domain, "chain": wildcard.chain, "key": wildcard.key}
        message, now = self._run(node, fleet, given), self._clock()
        notes = self._kept.notes()
        if message is None:
            delivery = Delivery(wildcard.fingerprint, node.manifest.spec.ssh.host_key, now)
            self._kept.note(notes.given(str(node.id), delivery))
            log.info("preview certificate delivered", node=node.slug)
        else:
            self._kept.note(notes.not_given(str(node.id), message, wildcard.fingerprint, now))
            log.error("preview certificate not delivered", node=node.slug, error=message)

    def _take_back(self, fleet: Fleet, *, wanted: bool) -> None:
        """From decommissioned nodes; from all that may have it, after the platform document has ceased to want it."""
        self._forget_others(fleet)
        for node_id in to_be_taken_from(fleet, self._kept.notes(), self._clock(), wanted=wanted):
            if self._cancel.is_set():
                return
            node = fleet.nodes[UUID(node_id)]
            message, notes = self._run(node, fleet, {}), self._kept.notes()
            if message is None:
                self._kept.note(notes.without(node_id))
                log.info("preview certificate taken back", node=node.slug)
            else:
                self._kept.note(notes.not_given(node_id, message, TAKEN_BACK, self._clock()))
                log.error("preview certificate not taken back", node=node.slug, error=message)

    def _run(self, node: NodeEntry, fleet: Fleet, given: Mapping[str, str]) -> str | None:
        """Why the playbook did not do it; None when it did."""
        result = self._tools.play(
            PLAYBOOK,
            fleet,
            node,
            job=f"preview-{node.id}",
            timeout_s=TIMEOUT_S,
            extra_vars={"node": node.slug, "trueup_preview": dict(given)},
            secrets=(given["key"],) if given else (),
            cancel=self._cancel,
        )
        return None if result.status == "succeeded" else result.message
