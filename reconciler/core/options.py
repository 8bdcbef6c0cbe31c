"""WordPress's options that Git is the source of: which may be, what their values are, which a look found changed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from reconciler.core.observed import Applied

OPTION_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,190}"
FIELD = "options."
"""A difference of an option is told under this and its name."""
VISIBILITY = "blog_public"
LONGEST = 2000
_MOST = 100
_SHOWN = 200

_OWNED = (
    (r"siteurl|home", "Trueup sets WordPress's address; declare spec.domains instead"),
    (
        r"(?:active|uninstall|recently_activated)_plugins|active_sitewide_plugins|recently_activated"
        r"|template|stylesheet|template_root|stylesheet_root|current_theme|theme_switched(?:_via_customizer)?",
        "which plugins and which theme run goes with the code, and WordPress notes it",
    ),
    (
        r"(?:initial_|.*_)?db_version|db_upgraded|(?:.*_)?schema_version|schema-.*|woocommerce_version",
        "the code brings it about when it is updated",
    ),
    (
        r"cron|rewrite_rules|_transient_.*|_site_transient_.*|.*\.lock|_edit_lock|recovery_keys|recovery_mode_.*"
        r"|.*_paused_extensions|user_count|fresh_site|using_application_passwords"
        r"|https_(?:detection_errors|migration_required)|auto_core_update_(?:notified|failed)"
        r"|auto_plugin_theme_update_emails|dismissed_update_core|can_compress_scripts|_split_terms|finished_.*"
        r"|adminhash|admin_email_lifespan|delete_blog_hash|_wp_suggested_policy_text_has_changed|recently_edited"
        r"|session_tokens|action_scheduler_.*|wc_.*_cron_.*|wp_calendar_block_has_published_posts",
        "WordPress changes it by itself",
    ),
    (r".*user_roles", "roles and their rights are a structure that plugins write"),
    (r"upload_path|upload_url_path|trueup_.*", "Trueup decides it"),
    (
        r"(?:auth|secure_auth|logged_in|nonce)_(?:key|salt)|nonce_.*|mailserver_(?:login|pass)"
        r"|.*(?:passwor[dt]|passwd|passphrase|secret|token|credential|api[_-]?key|private[_-]?key|licen[cs]e[_-]?key).*"
        r"|.*[_-]pass",
        "it is a secret, or is named like one, and Git keeps what it is told for ever",
    ),
)
_SERIALIZED = re.compile(r'(?:N;|b:[01];|i:-?\d+;|d:[^;]*;|s:\d+:".*";|[aOCE]:\d+:.*[;}])', re.DOTALL)


def _refuse_owned(name: str) -> str:
    # MariaDB compares names without regard to case, so WordPress finds `home` by `HOME`, too.
    for pattern, why in _OWNED:
        if re.fullmatch(pattern, name, re.IGNORECASE):
            raise ValueError(f"{name} cannot be declared: {why}. Remove it")
    return name


def _as_stored(value: object) -> object:
    """As WordPress's own installation stores switches and numbers: as text."""
    match value:
        case bool():
            return "1" if value else "0"
        case int():
            return str(value)
        case str():
            return value
    raise ValueError(
        "must be text, a whole number, true or false; what WordPress keeps as a structure cannot be declared"
    )


def _scalar(text: str) -> str:
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, and has {len(text)}")
    if any(unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t" for character in text):
        raise ValueError("must not contain control characters")
    if _SERIALIZED.fullmatch(text.strip()):
        raise ValueError("is what PHP makes of a structure; only single values can be declared")
    return text


def _each_once(options: dict[str, str]) -> dict[str, str]:
    names = [name.casefold() for name in options]
    if twice := [name for name in options if names.count(name.casefold()) > 1]:
        raise ValueError(f"{twice[0]} is named twice, because WordPress reads names without regard to case; remove one")
    return options


OptionName = Annotated[str, StringConstraints(pattern=f"^{OPTION_PATTERN}$"), AfterValidator(_refuse_owned)]
OptionValue = Annotated[
    str,
    BeforeValidator(_as_stored),
    AfterValidator(_scalar),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": LONGEST}, {"type": "integer"}, {"type": "boolean"}]}),
]
Options = Annotated[dict[OptionName, OptionValue], Field(max_length=_MOST), AfterValidator(_each_once)]


def hidden_copy(environment_type: str, options: Mapping[str, str]) -> str | None:
    """The option that would have search engines find what is no production; None: all is well."""
    if environment_type == "production":
        return None
    return next((name for name, value in options.items() if name.casefold() == VISIBILITY and value != "0"), None)


def of_applied(applied: Applied) -> Mapping[str, str]:
    """The options that were declared when the environment was applied last."""
    found = applied.variables.get("options")
    if not isinstance(found, Mapping):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def shown(value: str | None) -> str:
    """A value for a person: on one line, not longer than a line or two, with nothing that moves a cursor."""
    if value is None:
        return "nothing"
    text = "".join(character if character.isprintable() else " " for character in value)
    return f"{text[:_SHOWN]}… ({len(value)} characters)" if len(text) > _SHOWN else text


def with_values(difference: Mapping[str, Any], observed: Mapping[str, str | None]) -> dict[str, Any]:
    """A difference as a drift check keeps it: an option's with its whole value, for whoever adopts it."""
    field = str(difference["field"])
    name = field.removeprefix(FIELD)
    return {**difference, "value": observed[name]} if field.startswith(FIELD) and name in observed else {**difference}


def changed_options(differences: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    """Options that a drift check found changed in WordPress, with what it found; None: it is gone there."""
    return {
        str(one["field"]).removeprefix(FIELD): one["value"]
        for one in differences
        if str(one.get("field")).startswith(FIELD) and one.get("cause") == "changed on the node" and "value" in one
    }
