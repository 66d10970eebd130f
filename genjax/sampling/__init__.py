"""Time grids, the one scan, guidance, likelihoods, inversion, inverse problems, Brownian paths, exact analysis."""

from genjax.sampling import analysis, guidance, inverse_problems, times
from genjax.sampling.bound import continuous_bound, discrete_bound
from genjax.sampling.brownian import brownian_path
from genjax.sampling.core import StatefulDenoiser, sample, solve, start
from genjax.sampling.inversion import decode, encode, image_to_image
from genjax.sampling.keys import sample_keys
from genjax.sampling.likelihood import bits_per_dim, log_likelihood
from genjax.sampling.optimize_times import optimize_times

__all__ = [
    "StatefulDenoiser",
    "analysis",
    "bits_per_dim",
    "brownian_path",
    "continuous_bound",
    "decode",
    "discrete_bound",
    "encode",
    "guidance",
    "image_to_image",
    "inverse_problems",
    "log_likelihood",
    "optimize_times",
    "sample",
    "sample_keys",
    "solve",
    "start",
    "times",
]
