"""Generative models of images in pure JAX: one training loop, certified samplers."""

__version__ = "0.1.0"
