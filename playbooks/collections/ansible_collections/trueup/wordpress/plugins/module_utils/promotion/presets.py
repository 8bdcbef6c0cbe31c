# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What a promotion may write, and what it never does. Pure: names in, answers out.

A table is protected by its preset, or because no list knows it; all else is the write set. Within the write set some
options belong to the environment that they are in, and others WordPress changes by itself; neither ever moves.
"""

from __future__ import annotations

import re

CONTENT = ("posts", "postmeta", "terms", "term_taxonomy", "term_relationships", "termmeta")
CONTENT += ("comments", "commentmeta", "users", "usermeta")
"""Protected by both presets."""

COMMERCE = (
    r"wc_orders.*",
    r"wc_order_.*",
    r"woocommerce_order.*",
    r"wc_customer_lookup",
    r"wc_product_meta_lookup",
    r"woocommerce_sessions",
    r"woocommerce_payment_token.*",
    r"wc_download_log",
    r"woocommerce_downloadable_product_permissions",
)
"""Protected by ``commerce-protect`` besides. Scheduled actions are in no list: those of a copy wait, or are its own."""

SETTINGS = (
    "options",
    "links",
    "woocommerce_tax_rates",
    "woocommerce_tax_rate_locations",
    "wc_tax_rate_classes",
    "woocommerce_shipping_zones",
    "woocommerce_shipping_zone_locations",
    "woocommerce_shipping_zone_methods",
    "woocommerce_attribute_taxonomies",
)
"""Known, and protected by no preset."""

OF_THE_MOMENT = r"actionscheduler_.*|wc_webhooks|wc_rate_limits|.*_ratelimits?"
OF_THE_MOMENT += r"|(?:.*_)?(?:sessions?|logs?|log_?meta|queues?|jobs?|tasks?|cache|visits?|visitors?|clicks?|hits)"
OF_THE_MOMENT += r"|(?:.*_)?(?:stats|statistics|entry|entries|entry_?meta|submissions?|subscribers?|customers?)"
OF_THE_MOMENT += r"|(?:.*_)?(?:orders?|order_?items?|order_?meta|bookings?|appointments?|payments?|transactions?)"
OF_THE_MOMENT += r"|(?:.*_)?donations?"
"""What visitors leave, and what waits to be done: of a copy no such row is anybody's setting, nor to be acted on."""

PRESETS = ("content-protect", "commerce-protect")
DEFAULT = "commerce-protect"

OWN = r"siteurl|home|blog_public|upload_path|upload_url_path"
OWN += r"|trueup_.*|(?:.*_)?db_version|db_upgraded|(?:.*_)?schema_version|schema-.*|woocommerce_version|wc_.*_version"
"""An environment's own address and visibility, and the shape of its own tables, which code brings about by itself."""

OF_CONTENT = r"sticky_posts|.*_children"
"""Which posts are on top, and each taxonomy's tree, by ids of content: content never moves, so these don't."""

CHURN = r"cron|_transient_.*|_site_transient_.*|.*\.lock|_edit_lock|rewrite_rules|recovery_keys|recovery_mode_.*"
CHURN += r"|.*_paused_extensions|user_count|fresh_site|theme_switched(?:_via_customizer)?|recently_(?:activated|edited)"
CHURN += r"|wp_calendar_block_has_published_posts|using_application_passwords|session_tokens|finished_.*|adminhash"
CHURN += r"|auto_core_update_(?:notified|failed)|auto_plugin_theme_update_emails|dismissed_update_core|_split_terms"
CHURN += r"|can_compress_scripts|admin_email_lifespan|delete_blog_hash|https_(?:detection_errors|migration_required)"
CHURN += r"|_wp_suggested_policy_text_has_changed|(?:auth|secure_auth|logged_in)_(?:key|salt)|secret_key|nonce_.*"
CHURN += r"|action_scheduler_.*|wc_.*_cron_.*|wc_pending_batch_processes|jetpack_offline_mode"
"""What WordPress, or a request, changes without anybody having decided it."""

_COMMERCE = re.compile("|".join(COMMERCE))
_OF_THE_MOMENT = re.compile(OF_THE_MOMENT)
_IGNORED = re.compile(f"{OWN}|{OF_CONTENT}|{CHURN}")


def bare(table, prefix="wp_"):
    """The table's name without the prefix; None: another application's, or ours."""
    name = table[len(prefix) :] if table.startswith(prefix) else None
    return name or None


def is_written(table, preset, prefix="wp_"):
    """Whether a promotion under ``preset`` may change rows of the table."""
    if preset not in PRESETS:
        raise ValueError(f"{preset!r} is no preset. Choose one of {', '.join(PRESETS)}.")
    name = bare(table, prefix)
    if name is None or name in CONTENT:
        return False
    if _COMMERCE.fullmatch(name):
        return preset == "content-protect"
    return name in SETTINGS


def is_of_commerce(table, prefix="wp_"):
    """Whether the table is one of those of orders, customers and payments."""
    return _COMMERCE.fullmatch(bare(table, prefix) or "") is not None


def comes_with_rows(table, preset, prefix="wp_"):
    """Whether a table that a promotion makes for a plugin gets the source's rows: the target has none to lose."""
    if is_written(table, preset, prefix):
        return True
    name = bare(table, prefix)
    known = name is None or name in CONTENT or _COMMERCE.fullmatch(name)
    return not (known or _OF_THE_MOMENT.fullmatch(name))


def is_ignored(table, key, declared=(), prefix="wp_"):
    """Whether the row never moves and is no difference; ``key`` is an option's name.

    ``declared``: the options that the target's document sets.
    """
    return bare(table, prefix) == "options" and (key in declared or _IGNORED.fullmatch(key) is not None)
