"""Weights in files that other programs read: safetensors, never pickle, which runs code when it is read."""

from genjax.interop.weights import WeightsError, load_safetensors, save_safetensors

__all__ = ["WeightsError", "load_safetensors", "save_safetensors"]
