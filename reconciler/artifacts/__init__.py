"""Pinned archives of WordPress and WP-CLI, fetched once and checked; versions that a mirror brought."""
