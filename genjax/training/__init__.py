"""State, step, loop, optimizers, averages, checkpoints and device mesh. It knows families by their contract alone."""
