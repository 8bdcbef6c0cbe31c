"""A document declares content that the environment had and left: whether and how it goes back to it.

An id of content is applied once. What comes of declaring a spent one is never that its operation runs again: it is
the backup that has that content as it was left, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from reconciler.core.actions import KeptContent, ReturnContent, moment
from reconciler.core.observed import Applied
from reconciler.core.variables import EnvironmentVariables

Kept = Callable[[UUID, UUID], KeptContent | None]
"""By environment and content: the backup that has it."""
Confirmed = Callable[[UUID, UUID], bool]
"""By environment and content: whether somebody said that it shall go back, whatever was written since."""


def is_left(variables: EnvironmentVariables, applied: Applied) -> bool:
    """Whether the declared content was here, and was left for another one."""
    return variables.content.id in applied.contents and variables.content.id != applied.contents[-1]


def refusal(variables: EnvironmentVariables, applied: Applied, kept: KeptContent | None) -> str | None:
    """Why the environment cannot go back to this content."""
    content, release = variables.content.id, variables.release.id
    if kept is None:
        return (
            f"Content {content} was left for {applied.contents[-1]}, and no full backup has it any more. "
            "Restore another backup (`trueup backup list`), or declare again what is there."
        )
    if release not in applied.releases:
        return (
            f"The node does not have release {release} any more, the code of the content to go back to. "
            f"Restore backup {kept.backup_id} instead: `trueup backup restore {variables.site}/{variables.slug} "
            f"{kept.backup_id}`."
        )
    return None


def want_of_confirmation(action: ReturnContent) -> str:
    """What is lost without somebody's word, and how to give it."""
    return (
        f"What was written since the backup of {moment(action.kept.taken_at)} would be served no longer. Confirm it: "
        f"`trueup apply {action.target} --confirm`, or a commit with the trailer `Trueup-Confirm: {action.target}`."
    )


def another_version(variables: EnvironmentVariables, applied: Applied) -> str | None:
    """A release is immutable: another version of WordPress is another release."""
    release = variables.release.id
    if applied.release_id == release:
        if applied.wordpress_version != variables.wordpress_version:
            return "Another WordPress version is another release: give spec.release.id a new id."
        return None
    made_with = applied.made_with(release)
    if release in applied.releases and made_with not in {None, variables.wordpress_version}:
        return (
            f"Release {release} stands on WordPress {made_with}, and the document says {variables.wordpress_version}. "
            f"Set spec.wordpress.version to {made_with}: what an update resulted in is in a commit of its own, which "
            "has to be reverted, too."
        )
    return None
