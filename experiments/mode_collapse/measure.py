"""Trains one GAN on one mixture and counts the modes that it finds."""

import functools
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.mode_collapse.methods import config
from genjax.evaluation.modes import Modes, count_modes
from genjax.families import stateful
from genjax.families.adversarial import interpolate, squared_gradient
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.state import TrainState, sampling_params

SAMPLES = 5000
SHARE = 0.2  # of a mode's fair share of the samples: what makes it found, where one stray sample does not


class Found(NamedTuple):
    """What a method came to.

    Attributes:
        modes: counted with `SHARE` of a fair share.
        touched: modes near which there is any sample, as papers count.
        gradient: mean and standard deviation of the critic's gradient norm on lines between data and samples.
        seconds: of training.
        samples: [SAMPLES, 2].
    """

    modes: Modes
    touched: int
    gradient: tuple[float, float]
    seconds: float
    samples: np.ndarray

    def row(self) -> dict[str, Any]:
        """Returns the figures."""
        return {
            "modes": self.modes.found,
            "touched": self.touched,
            "total": self.modes.total,
            "within": self.modes.within.value,
            "kl": self.modes.kl,
            "gradient_mean": self.gradient[0],
            "gradient_std": self.gradient[1],
            "seconds": self.seconds,
        }


def measure(method: str, density: str, folder: pathlib.Path, mode: str = "full", steps: int | None = None) -> Found:
    """Trains, or takes up what is trained in the folder, and measures.

    Args:
        method: see `methods.METHODS`.
        density: see `methods.DENSITIES`.
        folder: of the run.
        mode: of the config.
        steps: training steps; None for the config's.
    """
    experiment = Experiment.from_config(config(method, density, mode, steps))
    started = time.perf_counter()
    state = train(experiment, folder)
    seconds = time.perf_counter() - started
    generate = jax.jit(functools.partial(experiment.family.generate, n=SAMPLES))
    samples = np.asarray(generate(sampling_params(state), jax.random.key(0))).reshape(SAMPLES, 2)
    truth = experiment.data.truth  # type: ignore[attr-defined]
    least = math.ceil(SHARE * SAMPLES / len(truth.centres))
    modes = count_modes(samples, truth.centres, truth.sigma, least=least)
    norms = gradient_norms(experiment, state, samples)
    return Found(modes, int((modes.counts > 0).sum()), (norms.mean(), norms.std()), seconds, samples)


def gradient_norms(experiment: Experiment, state: TrainState, samples: np.ndarray) -> np.ndarray:
    """Returns the norm of the critic's gradient at a random point between each sample and one of the data, [N]."""
    fake = jnp.asarray(samples).reshape(-1, 1, 1, 2)
    real = jnp.asarray(experiment.data.gather(np.arange(len(samples)) % experiment.data.spec.size)["image"])
    params, kept = state.params["discriminator"], state.extra["discriminator_state"]
    keys = jax.random.split(jax.random.key(1), len(samples))

    @jax.jit
    def norms(real: jax.Array, fake: jax.Array) -> jax.Array:
        critic = lambda x: stateful.apply(experiment.family.discriminator, params, kept, x)  # noqa: E731
        return jnp.sqrt(squared_gradient(critic, interpolate(keys, real, fake)))

    return np.asarray(norms(real, fake))
