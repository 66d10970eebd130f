"""A mixture of the plane with its exact denoiser and paths, and a teacher that knows them."""

import types

import jax
import numpy as np

from genjax import analytic, parameterizations, processes, sampling, solvers

SHAPE = (1, 1, 2)
MIXTURE = analytic.GaussianMixture(np.array([0.4, 0.6]), np.array([[-1.0, -0.3], [0.8, 0.4]]), np.array([0.35, 0.45]))


class Exact:
    """A family whose denoiser is that of the mixture."""

    image_shape = SHAPE
    condition = ()
    parameterization = parameterizations.Velocity()

    def __init__(self, process=None):
        self.process = process or processes.RectifiedFlow()

    def init(self, key, spec):
        return {}, {}

    def denoiser(self, params):
        return lambda x_t, t, cond=None: MIXTURE.denoise(self.process, x_t.reshape(len(x_t), 2), t).reshape(x_t.shape)


def teacher(process=None):
    return types.SimpleNamespace(family=Exact(process), load=lambda: {})


def images(key, n):
    return MIXTURE.sample(key, n)[0].reshape(n, *SHAPE)


def flow(process, x_t, t, s, steps=200):
    """Where the mixture's path through x_t [B, ...] at time t is at time s."""
    denoise = Exact(process).denoiser({})
    times = np.linspace(t, s, steps + 1)
    return sampling.solve(jax.random.key(0), denoise, process, solvers.Heun(), times, x_t)
