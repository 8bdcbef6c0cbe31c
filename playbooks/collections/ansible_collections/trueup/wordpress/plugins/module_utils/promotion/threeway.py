# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The three-way comparison: what two sides made of what they once had in common. Pure.

Each side is ``{key: digest}``; a key that is missing is a row or file that isn't there. What only the source changed
moves, what only the target changed stays, what both changed in the same way is agreed, and what both changed
differently is a conflict, which nobody but a person can decide.
"""

from __future__ import annotations


class Comparison:
    """Sorted keys of one table or tree."""

    def __init__(self, moves, stays, conflicts):
        self.moves = tuple(moves)
        self.stays = tuple(stays)
        self.conflicts = tuple(conflicts)

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None

    def without(self, keys):
        """The same but for some keys."""
        return Comparison(*([key for key in found if key not in keys] for found in vars(self).values()))

    def counts(self):
        return {name: len(keys) for name, keys in vars(self).items()}


def compare(baseline, source, target, ignored=lambda _key: False):
    """Which keys move, stay or conflict."""
    moves, stays, conflicts = [], [], []
    for key in sorted({*baseline, *source, *target}):
        was, theirs, ours = baseline.get(key), source.get(key), target.get(key)
        if theirs == ours or ignored(key):
            continue
        if theirs == was:
            stays.append(key)
        elif ours == was:
            moves.append(key)
        else:
            conflicts.append(key)
    return Comparison(moves, stays, conflicts)


def merged(comparison, source, target):
    """The target after what moves has moved."""
    result = dict(target)
    for key in comparison.moves:
        if key in source:
            result[key] = source[key]
        else:
            result.pop(key, None)
    return result


def advanced(baseline, source, target):
    """The baseline after source and target agreed: where both have the same, that is what they have in common."""
    result = dict(baseline)
    for key in {*baseline, *source, *target}:
        if source.get(key) == target.get(key):
            if key in source:
                result[key] = source[key]
            else:
                result.pop(key, None)
    return result
