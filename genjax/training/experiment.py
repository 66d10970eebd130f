"""The experiment: a whole config, validated, with its components built."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax

from genjax.config import ConfigError, component, construct, nearest, require, section, settings
from genjax.data.base import Source
from genjax.families.base import DataSpec, Family, generates
from genjax.training import run_folder
from genjax.training.ema import EMA
from genjax.training.mesh import Mesh, check_batch_size
from genjax.training.optimizers import describe_optimizer
from genjax.training.state import trained_roles


def _require_whole(name: str, value: Any, least: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= least, f"{name} = {value!r}: must be a whole number of at least {least}")


def _require_seed(seed: Any) -> None:
    _require_whole("seed", seed, 0)
    require(seed < 2**32, f"seed = {seed}: must be below 2^32")


@dataclasses.dataclass(frozen=True)
class Training:
    """How long a run is, and how often it does what.

    Attributes:
        steps: training steps of the whole run.
        batch_size: images an update, over all devices. A step of a family that repeats a phase, such as that of a
            critic, reads a fresh batch for each repetition.
        log_every: steps between rows of metrics, each the mean since the row before.
        save_every: the most steps that a run loses when its process is killed. Checkpoints are begun twice as often,
            because one that is being written then is lost. The last step is always saved; 0 is for that one alone.
        sample_every: steps between grids of samples; 0 for none.
        sample_n: images in a grid.
        eval_every: steps between rows with the family's figures on the held-out data, as `eval/...`; 0 for none.
        eval_n: held-out examples that they are averaged over, the first ones; None for all.
        keep: how many of the latest checkpoints stay.
        keep_best: how many of those stay too that were best when `eval_every` and a checkpoint met.
        best: by which held-out figure they are.
        best_is: "min" or "max", which of it is best.
        accumulate: parts that a batch is computed in, one after another, to save memory.
        non_finite: what a step does whose loss or gradient is infinite or not a number: "stop" ends the run, "skip"
            goes on. Neither applies it; both record its batch.
        skip_limit: steps in a row that "skip" leaves out before it ends the run after all.
        prefetch: batches that are read ahead; None leaves it to the data.
        count_flops: whether the rates include FLOP/s, which takes a second or two of tracing once.
        profile_at: the step after which a profiler trace begins, 0 for one of the compilation too; None for no trace.
        profile_steps: steps in the trace.
        compile_cache: a folder where compiled programs are kept for the next start, or None.
    """

    steps: int
    batch_size: int
    log_every: int = 100
    save_every: int = 1000
    sample_every: int = 0
    sample_n: int = 64
    eval_every: int = 0
    eval_n: int | None = None
    keep: int = 3
    keep_best: int = 0
    best: str = "loss"
    best_is: str = "min"
    accumulate: int = 1
    non_finite: str = "stop"
    skip_limit: int = 10
    prefetch: int | None = None
    count_flops: bool = True
    profile_at: int | None = None
    profile_steps: int = 5
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        at_least_1 = "steps batch_size log_every sample_n eval_n keep accumulate skip_limit profile_steps"
        at_least_0 = "save_every sample_every eval_every keep_best prefetch profile_at"
        for least, names in ((1, at_least_1), (0, at_least_0)):
            for name in names.split():
                if getattr(self, name) is not None or name not in ("eval_n", "prefetch", "profile_at"):
                    _require_whole(name, getattr(self, name), least)
        for name, among in {"non_finite": ("stop", "skip"), "best_is": ("min", "max")}.items():
            value = getattr(self, name)
            require(value in among, f"{name} = {value!r}{nearest(str(value), among)}")
        require(
            not self.keep_best or bool(self.eval_every),
            f"keep_best = {self.keep_best}: set eval_every, for what is best shows on held-out data",
        )
        often = max(1, self.save_every // 2)
        require(
            not self.keep_best or not self.save_every or self.eval_every % often == 0,
            f"keep_best: eval_every = {self.eval_every} must be a multiple of save_every // 2 = {often}",
        )
        require(
            self.batch_size % self.accumulate == 0,
            f"accumulate = {self.accumulate}: does not divide batch_size = {self.batch_size}",
        )
        require(
            self.compile_cache is None or isinstance(self.compile_cache, str),
            f"compile_cache = {self.compile_cache!r}: must be a folder or None",
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `genjax evaluate` does unless its flags say otherwise.

    Attributes:
        n: samples to draw.
        batch_size: samples, or test images, at a time.
        seed: seed of the samples.
        feature_network: what the distances are measured with; None for no distances.
    """

    n: int = 1000
    batch_size: int = 256
    seed: int = 0
    feature_network: Any = component("feature_network", None)

    def __post_init__(self) -> None:
        _require_whole("n", self.n, 1)
        _require_whole("batch_size", self.batch_size, 1)
        _require_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A validated config; `from_config` makes it.

    Attributes:
        seed: of everything: the weights, the order of the data, the noise.
        data: the training data.
        family: the model.
        optimizers: one spec for each role that the family trains, with its defaults.
        training, ema, mesh, evaluation: the sections of these names.
        eval_data: the held-out data, where there are any.
        config: the config itself with every default, as JSON values: another version's defaults change nothing in it.
    """

    seed: int
    optimizers: Mapping[str, Any]
    training: Training = section(Training)
    data: Source = component("data")
    family: Family = component("family")
    ema: EMA = section(EMA, EMA())
    mesh: Mesh = section(Mesh, Mesh())
    evaluation: Evaluation = section(Evaluation, Evaluation())
    eval_data: Source | None = component("data", None)
    config: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False, metadata={"internal": True}
    )

    def __post_init__(self) -> None:
        _require_seed(self.seed)
        phases = self.family.phases()
        names = [phase.name for phase in phases]
        require(len(set(names)) == len(names), f"family: two phases have one name: {', '.join(names)}")
        roles = trained_roles(self.family)
        for role in self.optimizers:
            require(role in roles, f"optimizers: the family trains no {role!r}{nearest(role, roles)}")
        for role in roles:
            require(role in self.optimizers, f"optimizers: missing key {role!r}, which the family trains")
        self.ema.check(roles)
        require(
            generates(self.family) or not self.training.sample_every,
            f"training.sample_every = {self.training.sample_every}: this family generates nothing, set it to 0",
        )

    @classmethod
    def from_config(cls, config: Any) -> "Experiment":
        """Builds an experiment from a ConfigDict or a mapping.

        Raises:
            ConfigError: a mistake in the config, with its place.
        """
        built = construct(cls, run_folder.to_json(config), "config")
        built = dataclasses.replace(built, optimizers=built.optimizer_config())
        return dataclasses.replace(built, config=run_folder.to_json(settings(built)))

    def optimizer_config(self, defaults: bool = True) -> dict[str, Any]:
        """Returns the section `optimizers` with all its defaults, or without any."""
        told = {
            role: describe_optimizer(spec, f"config.optimizers.{role}", defaults)
            for role, spec in self.optimizers.items()
        }
        return run_folder.to_json(told)

    def check(self) -> tuple[jax.sharding.Mesh, DataSpec]:
        """Looks for the mistakes that show only on this machine and with these data; compiles nothing.

        Returns:
            The device mesh and the description of the data.

        Raises:
            ConfigError: the devices cannot split a batch, the model does not fit the data, or the held-out data are of
                another kind.
        """
        mesh = self.mesh.build()
        parts = self.training.accumulate
        name = "config.training.batch_size" + (f" / accumulate ({parts})" if parts > 1 else "")
        check_batch_size(self.training.batch_size // parts, mesh, name)
        if self.training.eval_every and self.eval_data is None:
            raise ConfigError("config.training.eval_every: there are no eval_data")
        spec = self.data.spec
        try:
            self.family.check(spec)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"config.family: {error}") from error
        if self.eval_data is not None:
            for name in ("image_shape", "num_classes"):
                here, there = getattr(self.eval_data.spec, name), getattr(spec, name)
                if here != there:
                    raise ConfigError(f"config.eval_data: {name} = {here}, but the training data have {there}")
        return mesh, spec


def load_run(workdir: str | os.PathLike[str]) -> Experiment:
    """Builds the experiment of a run folder from its resolved config; executes no config file.

    Raises:
        ConfigError: the folder holds no run.
    """
    return Experiment.from_config(run_folder.read_config(workdir))
