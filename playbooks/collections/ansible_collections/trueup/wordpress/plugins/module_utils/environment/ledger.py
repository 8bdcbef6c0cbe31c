# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What was applied, written down on the node as the last step: the probe compares the node with it."""

from __future__ import annotations

import datetime
import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils.digest import variables_digest
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import read, write_durably


class Ledger:
    """The manifest that is there (empty when none can be read), and the one that will be."""

    def __init__(self, path):
        self.path = path
        try:
            found = json.loads(read(path) or b"{}")
        except ValueError:
            found = {}
        self.former = found if isinstance(found, dict) else {}

    @property
    def releases(self):
        return tuple(self.former.get("releases", ()))

    @property
    def contents(self):
        return tuple(self.former.get("contents", ()))

    @property
    def staged(self):
        """Under which id the last content was got ready that was swapped in."""
        return self.former.get("staged")

    def served_content(self, staging):
        """The content that is served; None while another one is under way, so that nobody is sure.

        ``staging``: the ids for which there is something got ready.
        """
        applied = self.contents[-1:]
        return applied[0] if applied and not {*staging} - {*applied, self.staged} else None

    @property
    def url(self):
        """WordPress's address as it was applied; before there were domains, it was the document's."""
        return self.former.get("url") or self.former.get("variables", {}).get("url")

    @property
    def certified(self):
        """The names that were to have a certificate."""
        domains = self.former.get("variables", {}).get("domains") or ()
        return [domain["hostname"] for domain in domains if domain.get("tls", True)]

    @property
    def declared_options(self):
        """The options that were declared, by name."""
        return self.former.get("variables", {}).get("options") or {}

    @property
    def options(self):
        """Those options as WordPress stored them."""
        return self.former.get("options") or {}

    @property
    def release_details(self):
        return self.former.get("release_details", {})

    def write(
        self, run, variables, role_digest, url, files, links, services, options, releases, contents, staged, unmanaged
    ):
        """Write it unless it says the same already."""
        variables = {key: value for key, value in variables.items() if key != "job"}
        manifest = {
            "format": 1,
            "variables": variables,
            "digest": variables_digest(variables),
            "url": url,
            "role_digest": role_digest,
            "files": {path: place.digest_of(path) for path in files},
            "attributes": place.all_attributes(files),
            "links": {path: os.readlink(path) for path in links if os.path.islink(path)},
            "services": list(services),
            "options": dict(options),
            "releases": list(releases),
            "contents": list(contents),
        }
        if staged and staged != contents[-1]:
            manifest["staged"] = staged
        details = {**self.release_details, variables["release"]["id"]: _details(variables, unmanaged)}
        manifest["release_details"] = {release: details[release] for release in releases if release in details}
        before = {key: self.former.get(key) for key in {**manifest, **({"staged": 0} if self.staged else {})}}
        if before == manifest:
            return
        if run.change(self.path, _text(before) if self.former else "", _text(manifest)):
            now = datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")  # noqa: UP017
            full = {**manifest, "applied_at": now, "applied_by": _applied_by(run.job)}
            write_durably(self.path, _text(full).encode("utf-8"), 0o644)


def _details(variables, unmanaged):
    """What it takes to declare the release again, and which of its plugins and themes no source has."""
    release = {key: value for key, value in variables["release"].items() if key != "id"}
    return {**release, "wordpress_version": variables["wordpress_version"], "unmanaged": list(unmanaged)}


def added(ids, new):
    """The ids with ``new`` as the last."""
    return (*(one for one in ids if one != new), new)


def _applied_by(job):
    if not job:
        return {"job": None, "fence": None, "operator": os.environ.get("SUDO_USER") or "root"}
    return {"job": job["id"], "fence": int(job["fence"]), "operator": None}


def _text(manifest):
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
