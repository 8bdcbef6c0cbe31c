"""How this control plane runs: environment variables with the prefix ``TRUEUP_``. ``docs/operating.md`` lists them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the control plane. Desired state has none of its own here: it is in the store."""

    model_config = SettingsConfigDict(env_prefix="TRUEUP_", extra="ignore")

    home: Path = Field(default=Path("/var/lib/trueup"), description="All that the control plane keeps; mode 0700.")
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL of PostgreSQL; left out: SQLite in the home."
    )
    listen_address: str = Field(default="127.0.0.1", description="Address of the API.")
    listen_port: int = Field(default=8080, ge=0, le=65535, description="Port of the API; 0: any free one.")
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Comma-separated addresses whose X-Forwarded-Proto and X-Forwarded-For are believed.",
    )
    workers: int = Field(default=2, ge=0, le=64, description="Workers in the serving process; 0: none.")
    schedule: bool = Field(default=True, description="Whether the serving process ticks.")
    upstream: str | None = Field(
        default=None, description="Repository that the store follows, ssh or https; left out: none. See upstream.md."
    )
    upstream_branch: str = Field(default="main", description="Branch of that repository.")
    upstream_path: str | None = Field(
        default=None, description="Folder of that repository that has the documents; left out: its top."
    )
    upstream_poll: float = Field(
        default=30.0, gt=0, description="Seconds between looks at that repository, give or take a fifth."
    )
    store_poll_s: float = Field(default=2.0, gt=0, description="Seconds between looks at the store.")
    observe_interval_s: float = Field(default=60.0, gt=0, description="Seconds between observations of a node.")
    job_timeout_s: float = Field(
        default=1800.0,
        gt=0,
        validation_alias=AliasChoices("TRUEUP_JOB_TIMEOUT_S", "JOB_TIMEOUT"),
        description="Seconds after which a job is stopped; also read from JOB_TIMEOUT.",
    )
    lease_s: float = Field(default=30.0, gt=1, description="Seconds after which a silent worker loses its job.")
    job_retention_days: int = Field(default=90, ge=1, description="Days that finished jobs are kept.")
    audit_retention_days: int = Field(default=730, ge=1, description="Days that the audit log is kept.")
    upload_max_mb: int = Field(
        default=1024, ge=1, le=65536, description="Largest archive that is taken, in MiB, uploaded or downloaded."
    )
    artifact_sources: str = Field(
        default="wordpress.org,github,npm", description="Where archives come from, in this order."
    )
    warm_ansible: bool = Field(
        default=True,
        description="Whether the serving process keeps Ansible imported, in 50 MB, and forks it for each run.",
    )
    log_format: str = Field(default="console", pattern="^(console|json)$", description="Shape of log lines.")

    @property
    def store(self) -> Path:
        return self.home / "store.git"

    @property
    def ssh_key(self) -> Path:
        return self.home / "ssh" / "id_ed25519"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def wake_socket(self) -> Path:
        return self.home / "wake.sock"

    @property
    def upstream_standing(self) -> Path:
        return self.home / "upstream.json"

    @property
    def upstream_asked(self) -> Path:
        return self.home / "upstream.asked"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def preview(self) -> Path:
        return self.home / "preview"

    @property
    def run_directory(self) -> Path:
        return self.home / "run"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'trueup.db'}"

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s)
