"""The order that every solver declares, measured with exact denoisers, on three processes."""

import pytest

from genjax import solvers
from tests.solvers.targets import PROCESSES, PUBLISHED, SOLVERS, STEPS, order

each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@each_process
def test_order(solver, process):
    """Deterministic solvers along paths of a mixture; stochastic ones in mean and variance of a Gaussian, exactly."""
    if not solver.nfe_per_step:
        pytest.skip("its error follows its tolerances: see test_adaptive.py")
    measured, errors = order(solver, process)
    assert abs(measured - solver.order) < 0.2, (measured, errors)


# Measured outside this project; REFERENCE: largest error at 320 steps against RK4 with 20,000, and the slope.
@pytest.mark.parametrize(
    "solver, expected, slope",
    [
        (solvers.DDIM(), 6.54e-3, 1.01),
        (solvers.Euler(), 6.54e-3, 1.01),
        (solvers.Heun(), 3.68e-5, 2.00),
        (solvers.DPM2(), 1.365e-5, 2.00),
        (solvers.DPMpp2S(), 4.28e-5, 1.99),
        (solvers.DPMpp2M(), 1.66e-5, 1.99),
        (solvers.DPMSolver3(), 1.00e-8, 2.98),
        (solvers.RK4(), 4.14e-10, 4.01),
    ],
    ids=str,
)
@each_process
def test_published_error(solver, expected, slope, process):
    """These methods compute the same on every process, since log-SNR alone enters."""
    measured, errors = order(solver, process, PUBLISHED, STEPS)
    assert errors[-1] == pytest.approx(expected, rel=2e-3 + 5e-3 * (expected < 1e-4))
    assert measured == pytest.approx(slope, abs=0.05)
