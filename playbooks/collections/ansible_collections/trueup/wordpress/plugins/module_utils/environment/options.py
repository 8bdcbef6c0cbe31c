# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""WordPress's options that are declared: WordPress itself sets them, and what it made of them is written down.

It cleans a value before it stores it (``Tom & Jerry`` becomes ``Tom &amp; Jerry``), so what is stored is compared with
what was stored before, and never with what was declared.
"""

from __future__ import annotations

import json

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import sandbox, wordpress
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal

TABLE = "wp_options"
LONGEST = 1 << 16
"""Characters of a value that are looked at: none that is declared has as many."""

# WordPress answers a value that it does not take by the one that is there; so a mark is put there, to be known again.
# What a filter shows instead of the stored value is not what is to be changed, and neither is what the object cache has
# kept since before somebody changed the table: WordPress writes nothing that it takes for being there. The rules of
# permalinks are emptied: the next visit makes them with all plugins at work, which are not loaded here.
SCRIPT = r"""
$options = json_decode( stream_get_contents( STDIN ), true );
$mark = "\x01trueup\x01";
$marked = static fn() => $mark;
$refused = array();
foreach ( array( 'alloptions', 'notoptions', ...array_map( 'strval', array_keys( $options ) ) ) as $kept ) {
    wp_cache_delete( $kept, 'options' );
}
foreach ( $options as $name => $value ) {
    $name = (string) $name;
    remove_all_filters( "pre_option_$name" );
    remove_all_filters( "option_$name" );
    add_filter( "pre_option_$name", $marked );
    if ( sanitize_option( $name, $value ) === $mark ) {
        $refused[] = $name;
    }
    remove_filter( "pre_option_$name", $marked );
}
if ( ! $refused ) {
    foreach ( $options as $name => $value ) {
        update_option( (string) $name, $value );
    }
    if ( array_intersect( array( 'permalink_structure', 'category_base', 'tag_base' ), array_keys( $options ) ) ) {
        update_option( 'rewrite_rules', '' );
    }
}
echo "\n", json_encode( $refused );
"""


class Options:
    """The declared options of one environment. ``held``: names that are left as they are, whatever they are."""

    def __init__(self, run, layout, variables, ledger, held):
        self.run = run
        self.layout = layout
        self.declared = variables.get("options") or {}
        self.held = frozenset(held or ())
        self.former = ledger.options
        self.former_declared = ledger.declared_options
        self.stored = {}

    def ensure(self, database, user, undo):
        """Have WordPress take what is declared and not there; whether anything had to change."""
        if not self.declared:
            return False
        found = self._found(database)
        wanted = {name: value for name, value in self.declared.items() if not self._is_right(name, found.get(name))}
        for name, value in sorted(wanted.items()):
            self.run.change(f"option {name}", found.get(name) or "", value)
        if wanted and not self.run.check_mode:
            undo.append(lambda: self._back(database, {name: found.get(name) for name in wanted}))
            self._set(wanted)
            found = self._found(database)
            if lost := sorted(name for name in wanted if found.get(name) is None):
                raise Failure(
                    f"WordPress did not keep these options: {', '.join(lost)}. Take them out of spec.options."
                )
        kept = {name: value for name, value in self.former.items() if name in self.held and name in self.declared}
        self.stored = {name: found[name] for name in self.declared if found.get(name) is not None} | kept
        return bool(wanted)

    def _is_right(self, name, found):
        if name in self.held:
            return True
        declared = self.declared[name]
        as_it_was_left = found == self.former.get(name) and declared == self.former_declared.get(name)
        return found is not None and (found == declared or as_it_was_left)

    def _set(self, wanted):
        said = sandbox.ask(
            self.run,
            self.layout,
            wordpress.command(self.layout, "eval", SCRIPT),
            text=json.dumps(wanted),
            environment=wordpress.environment(self.layout),
            hint="WordPress did not set its options",
        )
        refused = json.loads(said.strip().rpartition("\n")[2])
        if refused:
            raise Failure(
                f"WordPress does not take the declared value of {', '.join(refused)}, so no option was set. "
                "Correct spec.options.",
                trueup_code="OPTION_REFUSED",
            )

    def _back(self, database, former):
        """As they were before this run."""
        session, table = sql.within(database.name), sql.qualified(database.name, TABLE)
        sql.needed_table(session, database.name, TABLE)
        for name, value in former.items():
            if value is None:
                session.say(f"DELETE FROM {table} WHERE option_name = {literal(name)}")
            else:
                session.say(f"UPDATE {table} SET option_value = {literal(value)} WHERE option_name = {literal(name)}")

    def _found(self, database):
        """The declared options that there are, as they are stored."""
        if self.run.check_mode and not database.found["database"]:
            return {}
        session = sql.within(database.name)
        if not sql.base_table(session, database.name, TABLE):
            if self.run.check_mode:
                return {}
            sql.needed_table(session, database.name, TABLE)
        rows = session.raw(
            f"SELECT option_name, LEFT(option_value, {LONGEST}) FROM {sql.qualified(database.name, TABLE)} "
            f"WHERE option_name IN ({sql.literals(sorted(self.declared))}) LIMIT {4 * len(self.declared)}"
        )
        found = {_text(name).lower(): _text(value) for name, value in rows}
        # WordPress, too, finds an option whatever the case of its name.
        return {name: found[name.lower()] for name in self.declared if name.lower() in found}


def _text(value):
    return (value or b"").decode("utf-8", "replace")
