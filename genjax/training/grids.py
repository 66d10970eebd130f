"""Grids of images as PNG files."""

import os
import pathlib

import numpy as np
from PIL import Image

_TILE = 32  # images smaller than this are enlarged, by a whole number so that pixels stay pixels


def make_grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lays out images in rows, with a white line between them.

    Args:
        images: uint8 [N, H, W, C], C one of 1, 3.
        columns: images in a row; None for as many as make a square.

    Returns:
        uint8 [rows, columns, 3].
    """
    n, height, width, channels = images.shape
    columns = min(n, columns or int(np.ceil(np.sqrt(n))))
    scale = max(1, -(-_TILE // min(height, width)))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    if channels == 1:
        images = images.repeat(3, axis=3)
    rows = -(-n // columns)
    tall, wide = height * scale + 1, width * scale + 1
    grid = np.full((rows * tall + 1, columns * wide + 1, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * tall + 1, i % columns * wide + 1
        grid[top : top + tall - 1, left : left + wide - 1] = image
    return grid


def save_grid(images: np.ndarray, path: str | os.PathLike[str], columns: int | None = None) -> np.ndarray:
    """Writes a grid as PNG, creates the folder where it is missing, and returns the grid; see `make_grid`."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    grid = make_grid(images, columns)
    Image.fromarray(grid).save(path)
    return grid
