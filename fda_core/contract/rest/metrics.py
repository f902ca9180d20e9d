"""What a merge measured, thinned for drawing."""

from typing import Literal

from pydantic import Field

from fda_core.contract.artifacts import (
    AdaptMetrics,
    ConstructMetrics,
    TaskVectorMetrics,
    UnitSummary,
)
from fda_core.contract.rest.base import Resource


class JobMetrics(Resource):
    """Curves and figures of a job: of all of it once it has succeeded, else of what is done."""

    job: str
    method: str
    experts: list[str]
    source: Literal["output", "journal"] = Field(
        description="merge_metrics.json of the output, or the records of finished units."
    )
    construction: list[ConstructMetrics] = Field(description="Per layer and expert.")
    adaptation: list[AdaptMetrics] = Field(description="Per layer.")
    task_vectors: list[TaskVectorMetrics] = Field(
        description="Per layer; layer null is what lies in no layer."
    )
    units: list[UnitSummary]
