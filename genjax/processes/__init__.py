"""What noise does to data: x_t = alpha(t) x_0 + sigma(t) eps, one file a kind of path."""

from genjax.processes.base import Process
from genjax.processes.discrete import DiscreteVP
from genjax.processes.linear_log_snr import LinearLogSNR
from genjax.processes.rectified_flow import RectifiedFlow, flux_shift, resolution_shift
from genjax.processes.trigflow import TrigFlow
from genjax.processes.variance_exploding import EDM, VE
from genjax.processes.variance_preserving import CosineVP, LinearVP, SubVP

__all__ = [
    "EDM",
    "VE",
    "CosineVP",
    "DiscreteVP",
    "LinearLogSNR",
    "LinearVP",
    "Process",
    "RectifiedFlow",
    "SubVP",
    "TrigFlow",
    "flux_shift",
    "resolution_shift",
]
