"""The mirror of WordPress's update API that the platform document names: what it offers, and the packages themselves.

Asked by the control plane as a WordPress would ask; nodes ask nobody. Its own host may be internal, because an operator
has named it; the hosts of the packages are held to the rules of every download.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from reconciler.core.errors import SourceRefused, SourceUnavailable
from reconciler.core.manifests import Platform
from reconciler.core.updates import (
    CoreAnswer,
    Extension,
    Installed,
    Kind,
    Offer,
    PluginAnswer,
    ThemeAnswer,
    extensions_of,
    own_way,
)
from reconciler.sources.downloads import download

_A = TypeVar("_A", bound=BaseModel)
ANSWER_BYTES = 16 << 20
ANSWER_S = 30.0
PACKAGE_S = 600.0
LOCALE = "en_US"


class Mirror:
    def __init__(self, platform: Platform, most_bytes: int, cancel: threading.Event | None = None) -> None:
        self.url = platform.spec.updates.mirror
        self.own_hosts = _named(platform)
        self._allowed = frozenset(platform.spec.imports.allowed_hosts) | self.own_hosts
        self._most_bytes = most_bytes
        self._cancel = cancel

    def core(self, installed: Installed, php: str) -> CoreAnswer:
        """What it offers in place of this core.

        Raises:
            SourceUnavailable: it does not answer, or nonsense. So do all the others.
            SourceRefused: it leads on to a host that may not be asked.
        """
        asked = {"version": installed.wordpress_version, "php": php, "locale": LOCALE, "local_package": ""}
        return self._understood(CoreAnswer, f"/core/version-check/1.7/?{urlencode(asked)}", installed, None)

    def extensions(self, kind: Kind, installed: Installed) -> Mapping[str, Offer]:
        """Other versions of the plugins or themes that are there, by the same keys; those of no other are heard."""
        known = {key: one for key, one in extensions_of(installed, kind).items() if not own_way(key, kind, one)}
        if not known:
            return {}
        if kind == "plugins":
            asked = {"plugins": _headers(known), "active": []}
            form = {"plugins": json.dumps(asked), "translations": "[]", "locale": f'["{LOCALE}"]', "all": "true"}
            found = self._understood(PluginAnswer, "/plugins/update-check/1.1/", installed, form).plugins
        else:
            asked = {"themes": _headers(known), "active": next(iter(known))}
            form = {"themes": json.dumps(asked), "translations": "[]", "locale": f'["{LOCALE}"]'}
            found = self._understood(ThemeAnswer, "/themes/update-check/1.1/", installed, form).themes
        return {key: offer for key, offer in found.items() if key in known}

    def checksums(self, version: str, installed: Installed) -> Mapping[str, str]:
        """MD5 of every file of a core version, by path."""
        path = f"/core/checksums/1.0/?{urlencode({'version': version, 'locale': LOCALE})}"
        return self._understood(_Checksums, path, installed, None).checksums

    def fetch(self, url: str, target: Path) -> None:
        """A package as a file.

        Raises:
            SourceRefused: over plain http from a mirror with https, or from a host that may not be asked; too large.
        """
        if urlsplit(self.url).scheme == "https" and urlsplit(url).scheme != "https":
            raise SourceRefused(f"The mirror's package {url} is not https, though the mirror is. Nothing was fetched.")
        download(
            url,
            target,
            allowed=self._allowed,
            most_bytes=self._most_bytes,
            timeout_s=PACKAGE_S,
            cancel=self._cancel,
        )

    def _understood(self, shape: type[_A], path: str, installed: Installed, form: Mapping[str, str] | None) -> _A:
        with tempfile.TemporaryDirectory(prefix="trueup-mirror-") as work:
            answer = Path(work, "answer")
            download(
                self.url + path,
                answer,
                allowed=self._allowed,
                most_bytes=ANSWER_BYTES,
                timeout_s=ANSWER_S,
                form=form,
                agent=f"WordPress/{installed.wordpress_version}; Trueup",
            )
            try:
                return shape.model_validate_json(answer.read_bytes())
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"]) or "all of it"
                raise SourceUnavailable(
                    f"{self.url}{path.partition('?')[0]} gives an answer that cannot be understood: {where}: "
                    f"{first['msg']}. Look at the mirror that platform.yaml names."
                ) from error


def _named(platform: Platform) -> frozenset[str]:
    """The mirror's own host, where a document names one; the default is public anyway."""
    if "updates" not in platform.spec.model_fields_set:
        return frozenset()
    return frozenset({(urlsplit(platform.spec.updates.mirror).hostname or "").lower()})


class _Checksums(BaseModel):
    checksums: Mapping[str, str]


def _headers(extensions: Mapping[str, Extension]) -> dict[str, Any]:
    return {key: dict(one.headers) for key, one in extensions.items()}
