"""Few-step models on digits beside the solvers of their teachers: distance against network evaluations."""
