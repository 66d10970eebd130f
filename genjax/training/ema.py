"""Averages of weights: the exponential one, and those by power functions, from which others are made afterwards."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import nearest, require, section
from genjax.families.base import Params

WIDEST = 12**-0.5  # the width of the plain mean of a run, where gamma = 0


@dataclasses.dataclass(frozen=True)
class PostHoc:
    """Averages by power functions, saved during training, from which one of any width can be made afterwards.

    Karras et al. 2024 (EDM2), section 3.1 and appendix C: after t steps the weights of step s count in proportion to
    `s^gamma`. The width is the standard deviation of that profile as a share of the run so far (sigma_rel), so that it
    stays what it is however long the run becomes. `genjax.training.posthoc` saves the averages and combines them.

    Attributes:
        snapshot_every: steps between the snapshots of the averages; the last step has one too. The paper takes some
            hundred a run; each costs the disk one float32 copy of the weights a width. The more, the narrower the
            averages that can be made afterwards.
        widths: the widths that are tracked, each at the cost of one float32 copy of the weights in memory. Those of
            the default are the paper's.
    """

    snapshot_every: int
    widths: tuple[float, ...] = (0.05, 0.10)

    def __post_init__(self) -> None:
        require(self.snapshot_every >= 1, f"snapshot_every = {self.snapshot_every}: must be at least 1")
        require(len(self.widths) > 0, "widths = (): must be one width at least")
        for width in self.widths:
            require_width("widths", width)
        require(len(set(map(label, self.widths))) == len(self.widths), f"widths = {self.widths}: one is given twice")

    def due(self, step: int, steps: int) -> bool:
        """Whether a run of `steps` steps has a snapshot after `step` of them."""
        return step > 0 and (step % self.snapshot_every == 0 or step == steps)


def require_width(name: str, width: float) -> None:
    """Raises ValueError where no power function that rises has this width."""
    require(0 < width <= WIDEST, f"{name}: {width:g} is no width; must be above 0 and at most {WIDEST:.4f}")


def label(width: float) -> str:
    """Returns how a width is called in states, files and tables."""
    return f"{width:g}"


def gamma(width: float) -> float:
    """Returns the exponent of the power function of a width.

    The largest root of `gamma^3 + 7 gamma^2 + (16 - w^-2) gamma + 12 - w^-2`, Karras et al. 2024, eq. 126, algorithm 2.

    Args:
        width: sigma_rel, above 0 and at most `WIDEST`.
    """
    return float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max())


@dataclasses.dataclass(frozen=True)
class EMA:
    """Averages the weights of the trained roles: `ema += (1 - d) (params - ema)`, once a step, in float32.

    With warm-up the decay of the update after which `n + 1` steps are done is `d = min(decay, (1 + n) / (10 + n))`, the
    rule of TensorFlow's `ExponentialMovingAverage(num_updates=n)`: the initial weights, which know nothing, are
    forgotten within tens of steps however close to 1 the decay is.

    Attributes:
        decay: one number for every trained role, or a mapping from roles to numbers; a role that the mapping lacks
            has no average. 0 is a copy of the weights.
        warmup: whether the decay starts low.
        posthoc: averages of the same roles to make others from after the training, or None.
    """

    decay: float | Mapping[str, float] = 0.9999
    warmup: bool = True
    posthoc: PostHoc | None = section(PostHoc, None)

    def __post_init__(self) -> None:
        for role, decay in self._decays([""]).items():
            name = f"decay.{role}" if role else "decay"
            require(isinstance(decay, int | float) and 0 <= decay < 1, f"{name} = {decay!r}: must be in [0, 1)")

    def check(self, roles: tuple[str, ...]) -> None:
        """Raises ValueError where a decay is given for a role that is not trained."""
        for role in self._decays(roles):
            require(role in roles, f"decay: the family trains no {role!r}{nearest(role, roles)}")
        require(self.posthoc is None or len(self._decays(roles)) > 0, "posthoc: decay names no role to average")

    def init(self, params: dict[str, Params]) -> dict[str, Params]:
        """Returns the averages before the first step: float32 copies of the weights of the roles that have one."""
        averaged = {role: tree for role, tree in params.items() if role in self._decays(params)}
        return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), averaged)

    def update(self, ema: dict[str, Params], params: dict[str, Params], step: Array) -> dict[str, Params]:
        """Returns the averages after a step.

        Args:
            ema: the averages before it.
            params: the weights after it.
            step: the number of steps done before it, int32 [].
        """

        def role(average: Params, tree: Params, decay: float) -> Params:
            n = step.astype(jnp.float32)
            d = jnp.minimum(decay, (1 + n) / (10 + n)) if self.warmup else jnp.float32(decay)
            return jax.tree.map(lambda e, p: e + (1 - d) * (p.astype(jnp.float32) - e), average, tree)

        return {name: role(average, params[name], self._decays(ema)[name]) for name, average in ema.items()}

    def init_posthoc(self, params: dict[str, Params]) -> dict[str, dict[str, Params]]:
        """Returns what `update_posthoc` starts from, by the width's label and by role; {} where it is off."""
        widths = () if self.posthoc is None else self.posthoc.widths
        return {label(width): self.init(params) for width in widths}

    def update_posthoc(
        self, posthoc: dict[str, dict[str, Params]], params: dict[str, Params], step: Array
    ) -> dict[str, dict[str, Params]]:
        """Returns the averages by power functions after a step.

        With t steps taken, `average = beta average + (1 - beta) params`, `beta = (1 - 1 / t)^(gamma + 1)` (Karras et
        al. 2024, eq. 127). The weights of step s then count `(s / t)^(gamma + 1) - ((s - 1) / t)^(gamma + 1)`: the
        integral of the power function over the step. The initial weights do not count.

        Args:
            posthoc: the averages before it.
            params: the weights after it.
            step: the number of steps done before it, int32 [].
        """
        # 1 - beta is some 1 / t, of which 1 - 1 / t in float32 would keep few digits.
        log = jnp.log1p(-1 / (step + 1).astype(jnp.float32))

        def tree(average: Params, tree: Params, share: Array) -> Params:
            return jax.tree.map(lambda e, p: e + share * (p.astype(jnp.float32) - e), average, tree)

        widths = () if self.posthoc is None else self.posthoc.widths
        shares = {label(width): -jnp.expm1((gamma(width) + 1) * log) for width in widths}
        return {
            name: {role: tree(average, params[role], shares[name]) for role, average in roles.items()}
            for name, roles in posthoc.items()
        }

    def _decays(self, roles: Iterable[str]) -> Mapping[str, float]:
        return self.decay if isinstance(self.decay, Mapping) else dict.fromkeys(roles, self.decay)
