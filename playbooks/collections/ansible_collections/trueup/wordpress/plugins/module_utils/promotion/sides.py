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
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.threeway import advanced, compare


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
        """Digests of all rows of every table that the preset protects."""
        normal, database = self.normal(layered=layered), self.layout.database
        return baselines.database(
            database, normal, lambda table: not presets.is_written(table, preset), layered=layered
        )


class Sides:
    """A source, its target, and the baseline of the newest of the source's contents that has one."""

    def __init__(self, run, source_id, target_id, preset, declared=None):
        """``declared``: the options that the target's document sets; None: those that were applied."""
        self.source = Side(run, source_id)
        self.target = Side(run, target_id)
        self.declared = self.target.ledger.declared_options if declared is None else declared
        self.preset = preset or presets.DEFAULT
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
        found = compared(*self._tables(), self.rows, self.declared)
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

    def _tables(self):
        return [side.tables(self.preset, layered=self.layered) for side in (self.source, self.target)]

    def code(self):
        """The Comparison of the files of plugins, themes and the like."""
        return compare(self.files, baselines.files(self.source.content), baselines.files(self.target.content))

    def protected(self):
        """``{table: {source, target}}``: how many rows of protected tables each side changed since the baseline."""
        found = {}
        for name, side in (("source", self.source), ("target", self.target)):
            for table, rows in side.protected(self.preset, layered=self.layered).items():
                was = self.rows.get(table, {})
                changed = sum(1 for key in {*rows, *was} if rows.get(key) != was.get(key))
                found.setdefault(table, {"source": 0, "target": 0})[name] = changed
        return {table: counts for table, counts in found.items() if any(counts.values())}

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
