"""Settings of the api's processes: environment variables that start with FDA_, or secret files."""

from pydantic import Field, SecretStr

from fda_core.processes.settings import ProcessSettings


class Settings(ProcessSettings):
    """What the api and the controller are told. The api answers Prometheus at /metrics."""

    database_url: str = Field(
        default="sqlite:///fda.db", description="SQLAlchemy address: sqlite:/// or postgresql://."
    )
    secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs addresses of files in local folders; at least 32 characters.",
    )
    public_url: str = Field(default="", description="How people reach this; for links.")
    host: str = "127.0.0.1"
    port: int = 8080
    device: str = Field(
        default="auto",
        description="Queue of layers: cpu, gpu, gpu-large; auto: gpu if a worker serves it.",
    )
    gpu_memory_bytes: int = Field(
        default=70 * 10**9, description="Units that need more go to gpu-large."
    )
    max_active_jobs_per_team: int = Field(default=1000, ge=1)
    artifact_url_seconds: int = Field(default=3600, ge=1, le=7 * 24 * 3600)
    idempotency_hours: int = Field(default=24, ge=1)
    anchor_days: int = Field(
        default=0, ge=0, description="Delete cached anchors unused for so long; 0 keeps them."
    )
    webhook_allow_private: bool = Field(
        default=False, description="Let webhooks go to private addresses and plain http."
    )
