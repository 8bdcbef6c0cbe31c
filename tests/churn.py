"""Options of a WordPress but for what its own events and visits write, so that two looks at one site compare."""

_BY_ITSELF = ("cron", "rewrite_rules", "recovery_keys", "user_count", "theme_switched", "can_compress_scripts")
_LIKE = ("%transient%", "%.lock", "auto_core_update%")


def options(columns: str = "option_name, option_value") -> str:
    """The query, without double quotes, ordered by name: WordPress may run its due events between two looks."""
    names = ", ".join(f"'{name}'" for name in _BY_ITSELF)
    where = " AND ".join((f"option_name NOT IN ({names})", *(f"option_name NOT LIKE '{one}'" for one in _LIKE)))
    return f"SELECT {columns} FROM wp_options WHERE {where} ORDER BY option_name"
