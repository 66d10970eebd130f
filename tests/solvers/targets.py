"""What the tests of solvers share; the study `experiments.certify` measures with the same routines."""

from experiments.certify.measure import (
    GAUSSIAN,
    MIXTURE,
    OPTIONS,
    PROCESSES,
    PUBLISHED,
    REGISTERED,
    STEPS,
    Levels,
    exact_paths,
    moment_error,
    order,
    path_error,
)

SOLVERS = REGISTERED | OPTIONS
DETERMINISTIC = {name: solver for name, solver in SOLVERS.items() if not solver.stochastic}
STOCHASTIC = {name: solver for name, solver in SOLVERS.items() if solver.stochastic}
START = PUBLISHED.start
geometric_times = PUBLISHED.times

__all__ = [
    "DETERMINISTIC",
    "GAUSSIAN",
    "MIXTURE",
    "PROCESSES",
    "PUBLISHED",
    "REGISTERED",
    "SOLVERS",
    "START",
    "STEPS",
    "STOCHASTIC",
    "Levels",
    "exact_paths",
    "geometric_times",
    "moment_error",
    "order",
    "path_error",
]
