"""The forge that the platform document declares, with the token that the secrets hold."""

from __future__ import annotations

from reconciler.core.errors import Invalid
from reconciler.core.forge import Forge as Declared
from reconciler.core.forge import ForgeKind
from reconciler.forges.gitea import Gitea
from reconciler.forges.github import GitHub
from reconciler.forges.gitlab import GitLab
from reconciler.forges.model import Forge
from reconciler.storage.secret_store import Secrets


def forge_of(declared: Declared, secrets: Secrets) -> Forge:
    """Its client.

    Raises:
        NotFound: there is no such secret.
        Invalid: it cannot be opened, or holds no token that can be sent.
    """
    token = secrets.get(declared.credentials).get("token", "")
    if not token or not token.isascii() or any(one.isspace() or not one.isprintable() for one in token):
        raise Invalid(
            f"Secret {declared.credentials} has no `token` that can be sent. Set it: "
            f"`trueup secret set {declared.credentials}`."
        )
    match declared.kind:
        case ForgeKind.GITHUB:
            return GitHub(declared, token)
        case ForgeKind.GITLAB:
            return GitLab(declared, token)
        case ForgeKind.GITEA:
            return Gitea(declared, token)
