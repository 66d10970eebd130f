"""Flow matching: the velocity of a path from data to noise."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from genjax.config import component, require
from genjax.families.base import DataSpec, Params
from genjax.families.denoising import MODEL
from genjax.families.diffusion import Diffusion
from genjax.families.teacher import Teacher, check_teacher
from genjax.parameterizations import Parameterization, Velocity
from genjax.processes import Process, RectifiedFlow
from genjax.registry import register


@register("family", "flow_matching")
@dataclasses.dataclass(frozen=True)
class FlowMatching(Diffusion):
    """Conditional flow matching (Lipman et al. 2023, eq. 9; Liu et al. 2023, eq. 1).

    It is diffusion whose network gives the velocity dx_t/dt. The process is the path: `rectified_flow`, the straight
    one, which with `sigma_min` is Lipman's (eq. 22); `linear_vp`, the paper's diffusion path (eq. 19); `cosine_vp`, the
    trigonometric one, also called GVP; or any other. Its time is the velocity's, so `shift` of `rectified_flow` scales
    the velocity too: to train at other noise levels take the time sampler `shifted`.

    Together with `coupling`: `minibatch_ot` is OT-CFM (Tong et al. 2024), and `paired` on the data `pairs` is reflow,
    which begins with the weights of the run that made the pairs.

    Attributes beside those of `Diffusion`:
        teacher: a run, or a model, whose weights training begins with; it has the same network. None begins at random.
    """

    process: Process = component("process", RectifiedFlow())
    parameterization: Parameterization = component("parameterization", Velocity())
    teacher: Teacher | None = component("teacher", None, implied="run")
    reference: ClassVar[str] = "lipman2023flow"

    def __post_init__(self) -> None:
        require(
            isinstance(self.parameterization, Velocity),
            "flow matching learns the velocity; for other parameterizations take the family 'diffusion'",
        )
        super().__post_init__()

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data or the teacher do not fit the model; compiles nothing."""
        super().check(spec)
        if self.teacher is not None:
            check_teacher(self.teacher, self.image_shape, self.condition)

    def pretrained(self) -> Mapping[str, Params]:
        """Reads the weights that the model begins with, where there is a teacher."""
        return {} if self.teacher is None else {MODEL: self.teacher.load()[MODEL]}
