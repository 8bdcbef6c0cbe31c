"""``spec.reports``: when drift reports are made, and who is sent them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import EmailStr, Field, StringConstraints, model_validator

from reconciler.core.fields import Certificates, Cron, HttpUrl, Slug, Strict


class WebhookTarget(Strict):
    """A web server that is sent reports as JSON."""

    type: Literal["webhook"]
    url: HttpUrl | None = Field(default=None, description="Left out: the `url` of the secret.")
    secret: Slug | None = Field(
        default=None, description="Name of the secret with `key`, which signs what is sent, and perhaps `url`."
    )

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.url is None and self.secret is None:
            raise ValueError("a webhook needs a url, or a secret that holds one")
        return self


class EmailTarget(Strict):
    """People who are sent reports."""

    type: Literal["email"]
    to: tuple[EmailStr, ...] = Field(min_length=1, max_length=20, description="Each gets a mail of their own.")


class Smtp(Strict):
    """The mail server that takes reports."""

    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    port: int = Field(default=587, ge=1, le=65535)
    sender: EmailStr = Field(description="Whom the mails are from.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`starttls` and `tls`: nothing is sent to a server without a valid certificate."
    )
    credentials: Slug | None = Field(default=None, description="Name of the secret with `username` and `password`.")
    ca_bundle: Certificates | None = Field(
        default=None, description="Certificates that a mail server of one's own is trusted by; PEM."
    )


ReportTarget = Annotated[WebhookTarget | EmailTarget, Field(discriminator="type")]


class Reports(Strict):
    """When drift reports are made, and who is sent what changed."""

    schedule: Cron | None = Field(default="0 6 * * *", description="When (UTC); null: only when somebody asks.")
    targets: tuple[ReportTarget, ...] = Field(default=(), max_length=20)
    smtp: Smtp | None = Field(default=None, description="Left out: no mails.")

    @model_validator(mode="after")
    def _can_send_mail(self) -> Self:
        if self.smtp is None and any(isinstance(target, EmailTarget) for target in self.targets):
            raise ValueError("a target of type email needs smtp")
        if self.smtp and self.smtp.credentials and self.smtp.security == "none":
            raise ValueError("smtp.credentials would be sent in the clear; set smtp.security to starttls or tls")
        return self
