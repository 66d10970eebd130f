"""The speed and memory that the library promises, as ratios within one run."""
