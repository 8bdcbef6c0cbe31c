# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Names and paths of one environment on its node, for the templates and the module alike. Stdlib only."""

from __future__ import annotations

import os
import re

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

NGINX = "nginx"
SERVER = "server"
POOL = "pool"
PHP_UNIT = "php_unit"
CRON_UNIT = "cron_unit"
CRON_TIMER = "cron_timer"
SLICE = "slice"
REDIS_UNIT = "redis_unit"
REDIS = "redis"
WP_CONFIG = "wp_config"
MU_PLUGIN = "mu_plugin"
LOGIN = "login"
PAGES = "pages"
DROP_IN = "drop_in"
COPY = "copy"
EGRESS = "egress"


class Layout:
    """Where everything of an environment is. ``id`` and ``release`` are UUIDs; anything else is refused."""

    def __init__(self, environment_id, release_id=None):
        for value in (environment_id, release_id or environment_id):
            if not UUID.fullmatch(value):
                raise ValueError(f"{value!r} is no UUID in lower case, so nothing is made under this name.")
        self.id = environment_id
        self.release_id = release_id
        self.short = environment_id.replace("-", "")[:12]
        self.user = f"wp-{self.short}"
        self.slice = f"trueup-{self.short}.slice"
        self.database = f"wp_{self.short}"
        self.redis_prefix = f"{environment_id}:"
        self.site = f"/var/www/sites/{environment_id}"
        self.shared = f"{self.site}/shared"
        self.uploads = f"{self.shared}/uploads"
        self.wp_config = f"{self.shared}/wp-config.php"
        self.login = f"{self.shared}/login.php"
        self.copy_script = f"{self.shared}/copy.php"
        self.pages = f"{self.shared}/pages.php"
        self.tmp = f"{self.site}/tmp"
        self.logs = f"{self.site}/logs"
        self.releases = f"{self.site}/releases"
        self.current = f"{self.site}/current"
        self.cache = f"/var/cache/nginx/{environment_id}"
        self.zone = f"trueup_{self.short}"
        self.redis_socket = f"/run/trueup-redis/{environment_id}/redis.sock"
        self.redis_settings = f"/etc/trueup/php/{environment_id}/redis.conf"
        self.socket = f"/run/trueup-php/{environment_id}/fpm.sock"
        self.listener = f"/run/trueup-php/{environment_id}/php.sock"
        self.bridge = f"/run/trueup-bridge-{self.short}/fpm.sock"
        self.pool = f"/etc/trueup/php/{environment_id}/php-fpm.conf"
        self.server_block = f"/etc/nginx/sites-enabled/trueup-{environment_id}.conf"
        self.php_service = f"trueup-php@{environment_id}.service"
        self.redis_service = f"trueup-redis@{environment_id}.service"
        self.cron_service = f"trueup-cron@{environment_id}.service"
        self.cron_timer = f"trueup-cron@{environment_id}.timer"
        self.manifest = f"/etc/trueup/environments/{environment_id}.json"
        self.pending = f"/etc/trueup/environments/{environment_id}.pending"
        self.egress = f"/etc/trueup/egress.d/{environment_id}.nft"
        self.listed = f"/etc/trueup/egress.d/{environment_id}.json"
        self.own_hosts = f"/var/lib/trueup/egress/{environment_id}.hosts"
        self.undo = f"/var/lib/trueup/undo-{environment_id}.sql"
        self.replaced = f"/var/lib/trueup/replaced-{environment_id}.jsonl"
        self.attempts = f"/etc/trueup/certificates/{environment_id}.json"
        self.hosts_section = f"/etc/hosts#{environment_id}"

    @property
    def served(self):
        """The same with the release that ``current`` leads to; itself where that is none."""
        release = os.path.basename(os.path.realpath(self.current))
        return Layout(self.id, release) if UUID.fullmatch(release) else self

    @property
    def release(self):
        return f"{self.releases}/{self.release_id}"

    @property
    def content(self):
        return f"{self.release}/wp-content"

    @property
    def mu_plugin(self):
        return f"{self.content}/mu-plugins/trueup.php"

    @property
    def drop_in(self):
        return f"{self.content}/object-cache.php"

    def unit_file(self, unit):
        return f"/etc/systemd/system/{unit}"

    @property
    def names(self):
        """What templates may say: every name and path, as plain text."""
        return {key: value for key, value in vars(self).items() if isinstance(value, str)}
