"""Distance against denoiser evaluations, for a trained run and several solvers."""
