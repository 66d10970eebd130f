"""The study of training speed; `python -m experiments.throughput --help` says how to run it."""
