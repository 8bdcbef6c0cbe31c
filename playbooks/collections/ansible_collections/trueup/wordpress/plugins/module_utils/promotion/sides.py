# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The two environments of a promotion as they are on this node, and what they once had in common."""

from __future__ import annotations

import os

from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.ledger import Ledger
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import baseline as baselines
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import pairs, presets, references
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.halves import Place
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.merge import (
    Tables,
    address_taken_out,
    compared,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.selection import Selection
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.threeway import Comparison, advanced, compare


class Side:
    """One environment as it is served here."""

    def __init__(self, run, environment_id):
        self.run = run
        self.layout = Layout(environment_id)
        self.ledger = Ledger(self.layout.manifest)
        if not self.ledger.url or not os.path.isdir(self.layout.current):
            raise Failure(
                f"Environment {environment_id} is not on this node, so it cannot be compared with what is.",
                trueup_code="PROMOTION_ELSEWHERE",
            )
        self.url = self.ledger.url
        self.content = f"{os.path.realpath(self.layout.current)}/wp-content"

    @property
    def place(self):
        return Place(self.layout.database, self.content)

    def normal(self, *, layered):
        return address_taken_out(self.url, self.layout.site, layered=layered)

    def tables(self, preset, *, layered):
        return Tables(self.layout.database, self.normal(layered=layered), preset)

    def protected(self, preset, *, layered):
        """``{table: Shape}`` of every table that the preset protects."""
        found = baselines.shapes(self.layout.database)
        for shape in found.values():
            shape.whole = not layered
        return {table: shape for table, shape in found.items() if not presets.is_written(table, preset)}


class Changes:
    """What both sides made of the rows of protected tables since the baseline."""

    def __init__(self, source_tables, target_tables):
        self.source_tables = frozenset(source_tables)
        self.target_tables = frozenset(target_tables)
        self.source, self.target = {}, {}
        """``{table: {key: digest}}`` of what each side changed; None: it is gone."""
        self._new = {}

    def add(self, table, was, source, target):
        """``source``, ``target``: digests of all of the table's rows there; None: there is no such table."""
        for found, rows in ((self.source, source), (self.target, target)):
            if rows is not None:
                changed = {key: digest for key, digest in rows.items() if was.get(key) != digest}
                found[table] = {**changed, **dict.fromkeys(was.keys() - rows.keys())}
        self._new[table] = {*self.source.get(table, ()), *self.target.get(table, ())} - was.keys()

    def counts(self):
        """``{table: {source, target}}``: how many rows each side changed."""
        tables = sorted({*self.source, *self.target})
        sides = (("source", self.source), ("target", self.target))
        found = {table: {name: len(side.get(table, ())) for name, side in sides} for table in tables}
        return {table: counts for table, counts in found.items() if any(counts.values())}

    def left_behind(self):
        """``{table: {key: added | changed | removed}}`` of what the source has otherwise than the target."""
        return self._told(self.source, self.target)

    def stays(self):
        """The same of what the target changed."""
        return self._told(self.target, self.source)

    def _told(self, here, there):
        found = {}
        for table, rows in here.items():
            others, new = there.get(table, {}), self._new[table]
            found[table] = {
                key: "removed" if digest is None else "added" if key in new else "changed"
                for key, digest in rows.items()
                if key not in others or others[key] != digest
            }
        return {table: rows for table, rows in found.items() if rows}


class Sides:
    """A source, its target, and the baseline of the newest of the source's contents that has one."""

    def __init__(self, run, source_id, target_id, preset, declared=None, selection=None):
        """``declared``: the options that the target's document sets; None: those that were applied.

        ``selection``: what was chosen; None: all.
        """
        self.selection = selection or Selection()
        self.source = Side(run, source_id)
        self.target = Side(run, target_id)
        self.declared = self.target.ledger.declared_options if declared is None else declared
        self.preset = preset or presets.DEFAULT
        self.unchosen = ()
        """Options that are left as they are, as nobody chose them."""
        self._trees = None
        self.held, self.paired, self.made = (), (), ()
        self.baseline_of, (self.rows, self.files, self.layered) = self._baseline()

    def _baseline(self):
        for content in reversed(self.source.ledger.contents):
            found = baselines.load(self.source.layout, content)
            if found is not None:
                return content, found
        raise Failure(
            f"Nothing says what environment {self.source.layout.id} was when it was copied, so nobody can tell what "
            "changed since. Promote from an environment that was cloned.",
            trueup_code="BASELINE_MISSING",
        )

    def written(self):
        """``{table: Comparison}`` of the write set.

        Afterwards ``held`` names the options that stay because of what they name, ``paired`` has a ``pairs.Stay`` for
        each row that stays as its other half cannot move, and ``made`` names the tables that a plugin brings along.
        """
        # What nobody chose is no half that comes.
        found = self._chosen(compared(*self._tables(), self.rows, self.declared))
        options = found.get(references.TABLE)
        if options:
            coming = (*options.moves, *options.conflicts)
            held = references.unresolved(self.source.layout.database, self.target.layout.database, coming)
            self.held = tuple(sorted(held))
            found[references.TABLE] = options.without(held)
        self.paired, self.made = pairs.settle(found, self.source.place, self.target.place)
        staying = self.staying()
        return {table: one.without(staying.get(table, ())) for table, one in found.items()}

    def staying(self):
        """``{table: keys}`` of the rows that stay though the source changed them."""
        found = {references.TABLE: [*self.held]} if self.held else {}
        for stay in self.paired:
            found.setdefault(stay.table, []).append(stay.key)
        return found

    def _chosen(self, found):
        if self.selection.is_all:
            return found
        if references.TABLE in found:
            # Also those that are the same on both sides now: what the target makes of them later is its own.
            names = {*self.rows.get(references.TABLE, ())}
            names.update(*(side.digests(references.TABLE) for side in self._tables()))
            self.unchosen = tuple(sorted(name for name in names if not self.selection.has_option(name)))
            found[references.TABLE] = found[references.TABLE].without(frozenset(self.unchosen))
        return {table: one for table, one in found.items() if self.selection.has_table(table)}

    def _tables(self):
        return [side.tables(self.preset, layered=self.layered) for side in (self.source, self.target)]

    def code(self):
        """The Comparison of the files of plugins, themes and the like."""
        found = compare(self.files, *self.trees())
        if self.selection.is_all:
            return found
        left = [path for path in (*found.moves, *found.conflicts) if not self.selection.has_file(path)]
        kept = found.without(frozenset(left))
        return Comparison(kept.moves, sorted((*kept.stays, *left)), kept.conflicts)

    def trees(self):
        """``{path: sha256}`` of the source's code and of the target's, as they were when it was asked for first."""
        if self._trees is None:
            self._trees = tuple(baselines.files(side.content) for side in (self.source, self.target))
        return self._trees

    def protected(self):
        """The Changes of the tables that the preset protects; no more than one table of both is in memory."""
        source, target = (side.protected(self.preset, layered=self.layered) for side in (self.source, self.target))
        found = Changes(source, target)
        for table in sorted({*source, *target}):
            digests = (
                baselines.rows(side.layout.database, shapes[table], side.normal(layered=self.layered))
                if table in shapes
                else None
                for side, shapes in ((self.source, source), (self.target, target))
            )
            found.add(table, self.rows.get(table, {}), *digests)
        return found

    def only_in_source(self):
        """Tables, views, triggers, routines and events that the target lacks: their plugin makes them there."""
        source, target = self.source.layout.database, self.target.layout.database
        tables = set(baselines.shapes(source)) - set(baselines.shapes(target))
        return sorted(tables) + sorted(set(stored_objects.names(source)) - set(stored_objects.names(target)))

    def advance(self):
        """Both sides have the same now in much of it: that is what they have in common from here on."""
        source, target = self._tables()
        rows = dict(self.rows)
        for table in source.shapes:
            if table in target.shapes:
                rows[table] = advanced(rows.get(table, {}), source.digests(table), target.digests(table))
        trees = (baselines.files(self.source.content), baselines.files(self.target.content))
        baselines.save(self.source.layout, self.baseline_of, rows, advanced(self.files, *trees), layered=self.layered)
