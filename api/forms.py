"""The forms that text of a request has to have, and what is said of text that has another."""

from __future__ import annotations

from reconciler.core.fields import HOSTNAME_PATTERN, SLUG_PATTERN

EMAIL = r"^[^@ \t\r\n]+@[^@ \t\r\n]+$"
SOURCE_REF = r"^(?:(?:https?|ssh|git|s3)://|[A-Za-z0-9_][A-Za-z0-9._-]*@)[A-Za-z0-9\[][!-~]*$|^upload:[0-9a-f-]{36}$"
"""Where code may come from, by its form alone; the source itself says whether it is there."""
ARCHIVE_URL = r"^https?://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(?:[/?#][!-~]*)?$"
"""No users and passwords in it: the store would keep them for ever."""
FORMS = {
    EMAIL: "must be an e-mail address",
    HOSTNAME_PATTERN: "must be a host name in lower case, such as shop.example.com",
    SLUG_PATTERN: "must be lower-case letters, digits and inner hyphens, at most 63",
    SOURCE_REF: "must be a repository as URL#ref, or an archive as s3://bucket/key, an https URL or upload:ID",
    ARCHIVE_URL: "must be an http or https address without a user or password",
}
"""What a pattern asks for, in words."""
