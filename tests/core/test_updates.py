"""What is chosen of what a mirror offers."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.updates import (
    CoreAnswer,
    Extension,
    Installed,
    Offer,
    PluginAnswer,
    by_slug,
    choose_core,
    is_newer,
    listed,
    select,
)

THERE = Installed(
    release="r",
    wordpress_version="6.5.5",
    plugins={
        "free/free.php": Extension(name="Free", version="1.0"),
        "bought/bought.php": Extension(name="Bought", version="2.0"),
        "elsewhere/e.php": Extension(name="Elsewhere", version="1.0", update_uri="https://example.com/e"),
        "official/o.php": Extension(name="Official", version="1.0", update_uri="https://wordpress.org/plugins/o/"),
        "worked-on/w.php": Extension(name="Worked on", version="1.0", checkout=True),
        "hello.php": Extension(name="Hello", version="1.7"),
    },
    themes={"plain": Extension(name="Plain", version="1.0"), "nameless": Extension(name="Nameless")},
)


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("6.5.1", "6.5"),
        ("6.5", "6.5-RC1"),
        ("6.5-RC2", "6.5-RC1"),
        ("6.5-RC1", "6.5-beta3"),
        ("6.5-beta1", "6.5-alpha2"),
        ("6.10", "6.9"),
        ("1.0.1", "1.0"),
        ("1.0pl1", "1.0"),
        ("2", "1.9.9"),
        ("1.0", ""),
        ("5.3.4.1", "5.3.4"),
    ],
)
def test_versions_are_compared_as_php_does(newer: str, older: str) -> None:
    assert is_newer(newer, older)
    assert not is_newer(older, newer)
    assert not is_newer(newer, newer)


def _core(*versions: str, **more: Any) -> CoreAnswer:
    offers = [
        {"response": "upgrade", "version": one, "packages": {"full": "https://m/x.zip"}, **more} for one in versions
    ]
    return CoreAnswer.model_validate({"offers": offers})


def test_the_newest_stable_core_that_php_runs() -> None:
    found = choose_core(THERE, _core("6.5.6", "7.1.1", "7.2-RC1", "6.5.5"), "8.2.29-1~deb12u1")
    assert found is not None
    assert found.version == "7.1.1"
    assert choose_core(THERE, _core("6.4", "6.5.5"), "8.2") is None
    assert choose_core(THERE, _core("7.1.1", php_version="9.0"), "8.2") is None
    assert choose_core(THERE, _core("7.1.1", packages={"full": False}), "8.2") is None


def _offers(**versions: str) -> dict[str, Offer]:
    names = {one.partition("/")[0]: one for one in (*THERE.plugins, *THERE.themes)}
    return {
        names[key.replace("_", "-")]: Offer(new_version=version, package="https://m/p.zip")
        for key, version in versions.items()
    }


def test_what_the_mirror_knows_is_updated_and_the_rest_is_told() -> None:
    plugins = _offers(free="1.1", official="3.0", elsewhere="9.9", worked_on="9.9")
    found = select(THERE, None, {"plugins": plugins, "themes": _offers(plain="2.0", nameless="0.1")}, "8.2")
    assert listed(found.packages) == [
        "plugins/free 1.0 → 1.1",
        "plugins/official 1.0 → 3.0",
        "themes/nameless  → 0.1",
        "themes/plain 1.0 → 2.0",
    ]
    assert found.notes == (
        "Plugin elsewhere stays at 1.0: its Update URI names another source.",
        "Plugin hello.php stays at 1.7: it is a single file.",
        "Plugin worked-on stays at 1.0: it is a checkout of a repository.",
    )
    assert found.wordpress_version == "6.5.5"


def test_an_offer_that_does_not_fit_is_told() -> None:
    plugins = {
        "free/free.php": Offer(new_version="2.0", package="https://m/p", requires="7.0"),
        "bought/bought.php": Offer(new_version="3.0", package=""),
        "official/o.php": Offer(new_version="2.0", package="https://m/p", requires_php="8.4"),
    }
    found = select(THERE, None, {"plugins": plugins}, "8.2.1")
    assert found.is_empty
    assert "Plugin free stays at 1.0: 2.0 needs WordPress 7.0." in found.notes
    assert "Plugin bought stays at 2.0: 3.0 has no package to download, as of what is paid for." in found.notes
    assert "Plugin official stays at 1.0: 2.0 needs PHP 8.4." in found.notes
    # With the core that comes along it fits.
    core = choose_core(THERE, _core("7.1.1"), "8.2")
    assert [one.key for one in select(THERE, core, {"plugins": plugins}, "8.2").packages] == ["free/free.php"]


def test_answers_as_php_writes_them() -> None:
    assert PluginAnswer.model_validate_json('{"plugins": [], "no_update": []}').plugins == {}
    told = {
        "new_version": "1.1",
        "package": "https://m/p.zip",
        "requires": False,
        "requires_php": None,
        "tested": "7.1",
    }
    assert PluginAnswer.model_validate({"plugins": {"a/a.php": told}}).plugins["a/a.php"].requires == ""
    for wrong in ("[]", '{"plugins": {"a": {"new_version": "../x", "package": ""}}}', '{"plugins": {"a": 1}}', "{}"):
        with pytest.raises(ValueError, match="validation error"):
            PluginAnswer.model_validate_json(wrong)
    with pytest.raises(ValueError, match="package"):
        Offer(new_version="1.0", package="file:///etc/passwd")


def test_versions_are_recorded_by_slug() -> None:
    assert by_slug(THERE.plugins) == {
        "bought": "2.0", "elsewhere": "1.0", "free": "1.0", "hello": "1.7", "official": "1.0", "worked-on": "1.0",
    }  # fmt: skip
    assert by_slug(THERE.themes) == {"plain": "1.0"}
