"""What an update brings: what a node has, held against what the mirror of the update API offers.

Knows nothing of where either answer came from. Versions are compared as WordPress does, with PHP's rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from reconciler.core.fields import VERSION_PATTERN
from reconciler.core.manifests import UpdateScope
from reconciler.core.visible import visible

Kind = Literal["plugins", "themes"]
OURS = frozenset({"w.org", "wordpress.org"})
"""Hosts of an ``Update URI`` that WordPress takes for its own."""
PARTS: Mapping[UpdateScope, tuple[Literal["core"] | Kind, ...]] = {
    "core": ("core",),
    "plugins": ("plugins",),
    "themes": ("themes",),
    "all": ("core", "plugins", "themes"),
}


_Url = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2048)]
_Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]
_Loose = Annotated[str, BeforeValidator(lambda value: value or "")]
"""PHP says false where it has nothing to say."""


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


_Header = Annotated[str, StringConstraints(max_length=8_192)]
"""WordPress reads no more of a file to look for its header."""
_LONGEST = 200
_Directory = Annotated[str, StringConstraints(max_length=512)]


class Extension(_Told):
    """A plugin or theme as its own header describes it."""

    name: _Header = ""
    version: _Header = ""
    update_uri: _Header = ""
    headers: Annotated[Mapping[_Header, _Header], Field(max_length=100)] = {}
    """As WordPress would send them."""
    checkout: bool = False
    """Its directory is a Git or Subversion checkout: somebody else's to update."""


class Prepared(_Told):
    """What an update was made of that was rehearsed already."""

    wordpress_version: str


class Installed(_Told):
    """What a release on a node is made of: the answer of ``nodes/installed.py``."""

    release: _Directory
    wordpress_version: _Directory
    plugins: Annotated[Mapping[_Directory, Extension], Field(max_length=2_000)] = {}
    """By main file, relative to the plugins directory."""
    themes: Annotated[Mapping[_Directory, Extension], Field(max_length=2_000)] = {}
    """By directory."""
    prepared: Prepared | None = None


class CoreOffer(_Told):
    response: str
    version: _Version
    packages: Mapping[str, Any] = {}
    php_version: _Loose = ""

    @property
    def url(self) -> str | None:
        """Of the full package."""
        found = self.packages.get("full")
        return found if isinstance(found, str) and found.startswith(("http://", "https://")) else None


class Offer(_Told):
    """Another version of a plugin or theme."""

    new_version: _Version
    package: _Url | Literal[""] | None = None
    requires: _Loose = ""
    requires_php: _Loose = ""


class CoreAnswer(_Told):
    offers: tuple[CoreOffer, ...] = Field(max_length=100)


_Offers = Annotated[Mapping[str, Offer], BeforeValidator(lambda value: {} if value == [] else value)]
"""PHP writes an empty map as an empty list."""


class PluginAnswer(_Told):
    plugins: _Offers


class ThemeAnswer(_Told):
    themes: _Offers


class Package(_Told):
    """A plugin or theme to be put in place of what is there."""

    kind: Kind
    key: str
    """Main file of a plugin, directory of a theme."""
    former: str
    version: str
    url: str

    @property
    def directory(self) -> str:
        return self.key.partition("/")[0]


class Selection(_Told):
    """What is updated, and what is told of the rest."""

    wordpress_version: str
    """In force afterwards."""
    core_url: str | None = None
    """Of the full package; None: core stays."""
    packages: tuple[Package, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.core_url is None and not self.packages


def choose_core(installed: Installed, answer: CoreAnswer, php: str) -> CoreOffer | None:
    """The newest stable version that this PHP runs; None where that is not newer than what is there."""
    fit = [
        offer
        for offer in answer.offers
        if offer.url
        and re.fullmatch(VERSION_PATTERN, offer.version)
        and is_newer(offer.version, installed.wordpress_version)
        and not is_newer(offer.php_version, php)
    ]
    return max(fit, key=lambda offer: _parts(offer.version), default=None)


def select(
    installed: Installed,
    core: CoreOffer | None,
    offers: Mapping[Kind, Mapping[str, Offer]],
    php: str,
) -> Selection:
    """What is brought of the offers, and a note about each plugin and theme that has to stay as it is."""
    version = core.version if core else installed.wordpress_version
    packages: list[Package] = []
    notes: list[str] = []
    for kind, found in offers.items():
        for key, extension in sorted(extensions_of(installed, kind).items()):
            offer = found.get(key)
            noun = f"{kind[:-1].capitalize()} {key.partition('/')[0]}"
            if why := own_way(key, kind, extension):
                notes.append(f"{noun} stays at {extension.version or 'its version'}: {why}.")
            elif offer and is_newer(offer.new_version, extension.version):
                if why := _unfit(offer, version, php):
                    notes.append(f"{noun} stays at {extension.version}: {offer.new_version} {why}.")
                    continue
                packages.append(
                    Package(
                        kind=kind,
                        key=key,
                        former=extension.version,
                        version=offer.new_version,
                        url=offer.package or "",
                    )
                )
    return Selection(
        wordpress_version=version,
        core_url=core.url if core else None,
        packages=tuple(packages),
        notes=tuple(notes),
    )


def extensions_of(installed: Installed, kind: Kind) -> Mapping[str, Extension]:
    return installed.plugins if kind == "plugins" else installed.themes


def own_way(key: str, kind: Kind, extension: Extension) -> str | None:
    """Why the mirror is not asked for it; None where it is."""
    if extension.update_uri and re.sub(r"^https?://|/.*$", "", extension.update_uri).lower() not in OURS:
        return "its Update URI names another source"
    if kind == "plugins" and "/" not in key:
        return "it is a single file"
    return "it is a checkout of a repository" if extension.checkout else None


def _unfit(offer: Offer, wordpress: str, php: str) -> str | None:
    if not offer.package:
        return "has no package to download, as of what is paid for"
    if is_newer(offer.requires, wordpress):
        return f"needs WordPress {offer.requires}"
    if is_newer(offer.requires_php, php):
        return f"needs PHP {offer.requires_php}"
    return None


def by_slug(extensions: Mapping[str, Extension]) -> dict[str, str]:
    """Versions as a document records them: by directory, or by the name of a single file. A site wrote both."""
    return {
        visible(re.sub(r"\.php$", "", key.partition("/")[0]), _LONGEST): visible(extension.version, _LONGEST)
        for key, extension in sorted(extensions.items())
        if extension.version
    }


# Versions


def is_newer(one: str, other: str) -> bool:
    """Whether ``one`` is a later version than ``other``, as PHP's ``version_compare`` says. Nothing is the oldest."""
    return _compare(list(_parts(one)), list(_parts(other))) > 0


_WORDS = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "RC": 3, "rc": 3, "#": 4, "pl": 5, "p": 5}


def _parts(version: str) -> tuple[tuple[int, int], ...]:
    """Of ``6.5-RC1`` the parts 6, 5, RC, 1, each with its rank among words: numbers are of rank 4, above RC."""
    return tuple(_part(word) for word in _split(version))


def _split(version: str) -> Iterator[str]:
    yield from re.findall(r"[0-9]+|[A-Za-z]+", version)


def _part(word: str) -> tuple[int, int]:
    return (4, int(word)) if word.isdigit() else (_WORDS.get(word, -1), 0)


def _compare(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> int:
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return 1 if mine > theirs else -1
    if len(one) == len(other):
        return 0
    longer, sign = (one[len(other) :], 1) if len(one) > len(other) else (other[len(one) :], -1)
    # 6.5.1 is later than 6.5, 6.5-RC1 earlier.
    return sign if longer[0][0] >= _WORDS["#"] else -sign


def listed(packages: Iterable[Package]) -> list[str]:
    """``plugins/akismet 5.1 → 5.3``, one each."""
    return [f"{one.kind}/{one.directory} {one.former} → {one.version}" for one in packages]
