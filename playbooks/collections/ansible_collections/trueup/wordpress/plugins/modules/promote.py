#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Brings what changed in another environment beside what is served here: code as a release, settings row by row."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: promote
short_description: Bring another environment's changes, ready to be put in
description:
  - Code becomes a release, in which files that only this environment changed stay. The source's settings lie ready in
    a draft database; role C(environment) puts in those that moved, in one transaction.
  - Nothing that is served is touched. What both sides changed is refused.
  - It can be killed anywhere and run again; what is there already is not brought again.
options:
  variables: {description: The variable of role C(environment)., type: dict, required: true}
  state:
    description: C(prepared) before the role, C(settled) after it, when both sides have something in common again.
    type: str
    choices: [prepared, settled]
    default: prepared
author: Trueup
"""

EXAMPLES = r"""
- name: Bring what changed
  trueup.wordpress.promote:
    variables: "{{ trueup_environment }}"
"""

RETURN = r"""
moved: {description: How many rows by table, and files, are to move., type: dict, returned: changed}
kept: {description: How many rows by table, and files, only this environment changed., type: dict, returned: changed}
preview: {description: "What moves, stays or is left, by name, and why.", type: dict, returned: in check mode}
made: {description: Tables that come along with a plugin that becomes active., type: list, returned: changed}
only_in_source: {description: "Tables, views, triggers, routines that it lacks.", type: list, returned: changed}
"""

import contextlib

from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import address_of
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Staging
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import account
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import presets
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.merge import (
    OPTIONS,
    checksum_of,
    conflicts,
    refuse_conflicts,
    refuse_without_room,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.preview import preview
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.selection import Selection, plugin_of
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.sides import Sides
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths


class Promotion:
    def __init__(self, run, variables):
        self.run = run
        self.variables = variables
        self.layout = Layout(variables["id"], variables["release"]["id"])
        self.staging = Staging(run, self.layout, variables["content"]["id"])
        self.url = address_of(variables)
        self.declared = variables.get("options") or {}

    def sides(self):
        content = self.variables["content"]
        chosen = Selection(content.get("include"), content.get("exclude"))
        preset = content.get("preset")
        return Sides(self.run, content["source_environment"], self.layout.id, preset, self.declared, chosen)

    def bring(self):
        if self.staging.is_ready() and releases.is_there(self.layout):
            return {}
        sides = self.sides()
        written, code = sides.written(), sides.code()
        refuse_conflicts(conflicts(written) + [f"wp-content/{path}" for path in code.conflicts])
        self.run.notes += [
            f"Option {name[:80]} stays: the posts or terms that it names are not the same here."
            for name in sides.held[:20]
        ]
        self.run.notes += [f"{_row(stay)[:120]} stays: {stay.why}." for stay in sides.paired[:20]]
        self.run.notes += [f"Only this environment changed wp-content/{path}; it stays." for path in code.stays[:20]]
        if not self.run.change(f"content {self.staging.content_id}", "", f"promotion of {sides.source.layout.id}"):
            found = preview(sides, written, code, sides.protected()) if self.run.check_mode else None
            return {**self._told(sides, written, code), "preview": found}
        filled, empty = self.tables(sides)
        refuse_without_room(sides.source.layout.database, filled, sides.made)
        user = account.ensure_user(self.run, self.layout)
        self.staging.open()
        self.release(sides, code, user)
        made = self.settings(sides, filled, empty)
        self.staging.seal(
            user,
            database=False,
            uploads=False,
            merge={
                "url": self.url,
                "preset": sides.preset,
                "baseline": self._known(sides),
                "layered": sides.layered,
                "declared": sorted(self.declared),
                "held": [*sides.held, *sides.unchosen],
                "staying": sides.staying(),
                "made": made,
            },
        )
        return self._told(sides, written, code)

    def release(self, sides, code, user):
        """The source's code with those files in place that only this environment changed, or that nobody chose."""
        merged = f"{self.staging.directory}/wp-content"
        whole, other = (sides.source, sides.target) if sides.selection.has_code else (sides.target, sides.source)
        self._copied(whole.content, merged)
        plugins = {plugin_of(path) for path in (*sides.trees()[0], *sides.trees()[1])} - {None}
        turned = {one for one in plugins if sides.selection.has_plugin(one) is not sides.selection.has_code}
        for path in sorted(f"plugins/{one}" for one in turned):
            self._put(other.content, merged, path)
        for path in code.stays:
            if sides.selection.has_file(path):
                self._put(sides.target.content, merged, path)
        version = self.variables["wordpress_version"]
        releases.from_content(self.run, self.layout, version, user, merged, ours=True)
        paths.remove(merged)

    def _put(self, content, merged, path):
        """What one side has at a path of wp-content, be it nothing."""
        paths.remove(f"{merged}/{path}")
        paths.room(f"{merged}/{path}")
        with contextlib.suppress(FileNotFoundError):
            self._copied(f"{content}/{path}", f"{merged}/{path}")

    def _copied(self, source, target):
        if told := paths.copy(source, target, leave_out=releases.LEFT_OUT):
            self.run.notes.append(told)

    def tables(self, sides):
        """Names of the tables that are copied, and of those that come along without their rows."""
        written = sides.source.tables(sides.preset, layered=sides.layered).shapes
        come = {table for table in sides.made if presets.comes_with_rows(table, sides.preset)}
        filled = {*(table for table in written if sides.selection.has_table(table)), *come}
        return sorted(filled), sorted({*sides.made} - filled)

    def settings(self, sides, filled, empty):
        """The source's write set in the draft database, at this environment's address.

        ``{table: checksum}`` of the tables that are made here, as a plugin comes that has them.
        """
        source = sides.source.layout.database
        session = sql.between(source, self.staging.database)
        session.say("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
        dump.refuse_large_rows(source, filled)
        for table in sorted([*filled, *empty]):
            there, here = sql.qualified(source, table), sql.qualified(self.staging.database, table)
            sql.needed_table(session, source, table)
            session.say(f"CREATE TABLE {here} LIKE {there}")
            if table in filled:
                # Also those that show in no asterisk, and none that follows from others.
                columns = ", ".join(map(sql.identifier, sql.stored_columns(source, table)))
                session.say(f"INSERT INTO {here} ({columns}) SELECT {columns} FROM {there}")
        # As the baseline was digested: what says the same on both sides must do so here, too, or it would move.
        moved = [(sides.source.layout.site, self.layout.site)] if sides.layered else []
        self.staging.rewrite([(sides.source.url, self.url)], moved, layered=sides.layered)
        self.run.notes += [
            f"Table {table[:80]} comes with its plugin, {'with its rows' if table in filled else 'without rows'}."
            for table in sides.made[:20]
        ]
        return {table: checksum_of(self.staging.database, table) for table in sides.made}

    def settle(self):
        """What was promoted is what both sides have in common now."""
        if not self.run.check_mode:
            self.sides().advance()

    def _known(self, sides):
        written = sides.source.tables(sides.preset, layered=sides.layered).shapes
        return {table: rows for table, rows in sides.rows.items() if table in written}

    def _told(self, sides, written, code):
        moved = {table: len(one.moves) for table, one in written.items() if one.moves}
        kept = {table: len(one.stays) for table, one in written.items() if one.stays}
        return {
            "moved": {**moved, "files": len(code.moves)},
            "kept": {**kept, "files": len(code.stays)},
            "made": sides.made[:50],
            "only_in_source": sides.only_in_source()[:50],
        }


def _row(stay):
    kind = "Option" if stay.table == OPTIONS else f"Row of {stay.table},"
    return f"{kind} {stay.key}"


def bring(run, params, _fence):
    promotion = Promotion(run, params["variables"])
    if params["state"] == "prepared":
        return promotion.bring()
    promotion.settle()
    return {}


def main():
    run_beside({"state": {"type": "str", "choices": ["prepared", "settled"], "default": "prepared"}}, bring)


if __name__ == "__main__":
    main()
