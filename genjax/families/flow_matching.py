"""Flow matching: the velocity of the straight path from data to noise."""

import dataclasses
from typing import ClassVar

from genjax.config import component, require
from genjax.families.diffusion import Diffusion
from genjax.parameterizations import Parameterization, Velocity
from genjax.processes import Process, RectifiedFlow
from genjax.registry import register


@register("family", "flow_matching")
@dataclasses.dataclass(frozen=True)
class FlowMatching(Diffusion):
    """Conditional flow matching on the straight path (Lipman et al. 2023, eq. 23; Liu et al. 2023, eq. 1).

    It is diffusion with the process `rectified_flow` and the network's output as the velocity; both are fixed here.
    Attributes are those of `Diffusion`.
    """

    process: Process = component("process", RectifiedFlow())
    parameterization: Parameterization = component("parameterization", Velocity())
    reference: ClassVar[str] = "lipman2023flow"

    def __post_init__(self) -> None:
        require(
            isinstance(self.process, RectifiedFlow) and isinstance(self.parameterization, Velocity),
            "flow matching learns the velocity of the process rectified_flow; for others take the family 'diffusion'",
        )
        super().__post_init__()
