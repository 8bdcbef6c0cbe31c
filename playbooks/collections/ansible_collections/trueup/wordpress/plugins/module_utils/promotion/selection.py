# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What of a promotion somebody chose, by group, option or plugin. Pure; it needs the standard library alone.

The more specific word wins: ``plugin:NAME`` and ``option:NAME`` over ``group:NAME``. Where something is included, all
else is left as the target has it, and so is what is excluded: it neither moves nor conflicts.
"""

from __future__ import annotations

import re

GROUPS = {
    "options": re.compile("options"),
    "links": re.compile("links"),
    "taxes": re.compile("woocommerce_tax_.*|wc_tax_.*"),
    "shipping": re.compile("woocommerce_shipping_.*"),
    "attributes": re.compile("woocommerce_attribute_.*"),
    "orders": re.compile(
        "wc_order.*|woocommerce_order.*|wc_customer_lookup|wc_product_meta_lookup|woocommerce_sessions"
        "|woocommerce_payment_token.*|wc_download_log|woocommerce_downloadable_product_permissions"
    ),
}
"""Tables by what they are about, without the prefix. ``orders`` is written under ``content-protect`` alone."""
CODE = "code"
"""The group of plugins, themes, all other code, and the version of WordPress."""
PREFIX = "wp_"
OPTIONS, PLUGINS, FILES = "wp_options", "active_plugins", "files"
OF_ALL_CODE = frozenset({PLUGINS})
OF_CODE = frozenset({"template", "stylesheet", "current_theme"})
"""Options that name code: they stay where that does, unless somebody chose them by name."""


class Selection:
    """``include``, ``exclude``: ``group:NAME``, ``option:NAME``, ``plugin:NAME``. Without both, all is chosen."""

    def __init__(self, include=(), exclude=()):
        self.include = frozenset(include or ())
        self.exclude = frozenset(exclude or ())

    @property
    def is_all(self):
        return not (self.include or self.exclude)

    @property
    def has_code(self):
        """Whether the code is the source's, but for plugins that are chosen otherwise."""
        return self._has(f"group:{CODE}")

    @property
    def has_all_code(self):
        return self.has_code and not any(one.startswith("plugin:") for one in self.exclude)

    def has_plugin(self, name):
        return self._has(f"plugin:{name}", f"group:{CODE}")

    def has_table(self, table):
        """Whether rows of it may be chosen."""
        if table == OPTIONS:
            return self._has("group:options") or any(one.startswith("option:") for one in self.include)
        bare = table[len(PREFIX) :] if table.startswith(PREFIX) else table
        group = next((name for name, names in GROUPS.items() if names.fullmatch(bare)), None)
        return self._has(f"group:{group}")

    def has_option(self, name):
        specific = f"option:{name}"
        if specific in self.include or specific in self.exclude:
            return specific in self.include
        if (name in OF_ALL_CODE and not self.has_all_code) or (name in OF_CODE and not self.has_code):
            return False
        return self._has("group:options")

    def has_file(self, path):
        """Of wp-content."""
        plugin = plugin_of(path)
        return self.has_plugin(plugin) if plugin else self.has_code

    def has(self, table, key):
        """Whether a row, or a file where the table is ``files``, is chosen."""
        if table == FILES:
            return self.has_file(key)
        return self.has_option(key) if table == OPTIONS else self.has_table(table)

    def _has(self, *words):
        """By the first of the words, from the most specific on, that was said."""
        for word in words:
            if word in self.exclude:
                return False
            if word in self.include:
                return True
        return not self.include


def plugin_of(path):
    """The plugin that a file of wp-content belongs to; None: another file."""
    first, _, rest = path.partition("/")
    return rest.partition("/")[0] if first == "plugins" and rest else None
