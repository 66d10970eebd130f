"""What is compared: teachers, their solvers, and the methods that need few steps."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from genjax import solvers

BUDGETS = (1, 2, 4, 8)  # network evaluations a sample
REFERENCE = 20  # those of the teacher that a method is held to
# At 2 evaluations: at most so many times the teacher's distance at `REFERENCE`, at least so many times below its at 2.
CLOSE, FAR = 1.5, 3.0


@dataclasses.dataclass(frozen=True)
class Method:
    """A method that needs few steps; its config has the method's name.

    Attributes:
        teacher: the config whose model it is held to. One that the config itself names, as a run folder, comes first.
        budgets: the numbers of evaluations that it is made for.
        changes: of its config's section `family`, so that it is unguided as the others are.
    """

    teacher: str
    budgets: tuple[int, ...] = BUDGETS
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


SOLVERS: dict[str, Any] = {
    "ddim": solvers.DDIM(),
    "heun": solvers.Heun(),
    "dpmpp_2m": solvers.DPMpp2M(),
    "dpmpp_3m": solvers.DPMpp3M(),
    "unipc": solvers.UniPC(),
    "deis": solvers.DEIS(),
}
METHODS = {
    "progressive_distillation": Method("edm"),
    "dmd": Method("edm", budgets=(1, 2)),
    "consistency_distillation": Method("edm"),
    "consistency_training": Method("edm"),
    "ict": Method("edm"),
    "ect": Method("edm"),
    "scm": Method("edm"),
    "lcm": Method("edm", changes={"guidance": 1.0}),
    "reflow": Method("flow_matching"),
    "shortcut": Method("flow_matching"),
    "meanflow": Method("flow_matching"),
}
