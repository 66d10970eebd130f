"""From encoded bytes to uint8 arrays, with Pillow; whatever cannot be read is refused with a reason."""

import contextlib
import io
import os
import stat
import struct
import threading
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from genjax.config import printable, require

MAX_PIXELS = 2**26  # 67 million: a small file may unpack to gigabytes, and hardly anybody trains on larger ones
PILLOWS_PIXELS = 2**27  # what Pillow surely reads: it refuses more than 179 million itself
# Containers of single 8-bit pictures. What is left out matters: EPS would run Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# A file of 138 bytes may take a gigabyte to decode, which is borne a few times but not once a thread.
_LARGE_PIXELS, _large = 2**22, threading.BoundedSemaphore(4)
_METADATA_BYTES = 2**24
_TILE_TAGS = (322, 323)  # width and height of a TIFF's tiles
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # by type; those that stand within an entry


class ImageError(ValueError):
    """An image that cannot be read, and why."""


def decode(
    source: bytes | str | os.PathLike[str],
    channels: int,
    image_size: int | None = None,
    center_crop: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes one image, turns it upright, crops and resizes it.

    Transparent images are laid on white, unless four channels are asked for. The resize is Pillow's antialiased
    bicubic of the central square. Of several frames it is the first.

    Args:
        source: the encoded bytes, or the path of a regular file.
        channels: 1, 3 or 4.
        image_size: height and width of the result; None keeps those of the (cropped) image.
        center_crop: side of the central square that is cut out, in source pixels; None takes the largest one if
            there is an `image_size`, and otherwise the whole image.
        max_pixels: height times width, of the image and of the tiles that it is stored in, above which it is refused
            before anything is decoded. A file may have as many bytes as so many pixels without compression.

    Returns:
        uint8 [H, W, channels].

    Raises:
        ImageError: the image cannot be read, is too large, is not 8-bit, or is smaller than the crop.
    """
    try:
        data = source if isinstance(source, bytes) else _read(source, 4 * max_pixels + _METADATA_BYTES)
        if not data:
            raise ImageError("the file is empty")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            _check_pixels(f"{width} x {height} pixels", width * height, max_pixels)
            if image.format == "TIFF":
                tile_width, tile_height = _largest_tile(data)
                _check_pixels(f"tiles of {tile_width} x {tile_height} pixels", tile_width * tile_height, max_pixels)
            if image.mode.startswith(("I", "F")):
                raise ImageError(f"pixel format {image.mode}: only images of 8 bits a channel can be read")
            with _large if width * height > _LARGE_PIXELS else contextlib.nullcontext():
                image.load()
                upright = ImageOps.exif_transpose(image)
                return _resize(_convert(upright, channels), image_size, center_crop)
    except ImageError:
        raise
    # A damaged file makes Pillow raise nearly anything: OSError, ValueError, SyntaxError, struct.error, EOFError, ...
    except Exception as error:
        raise ImageError(_reason(error)) from error


def resize(array: np.ndarray, image_size: int | None = None, center_crop: int | None = None) -> np.ndarray:
    """Crops and resizes a decoded image, uint8 [H, W, C], as `decode` does.

    Raises:
        ImageError: the image is smaller than the crop.
    """
    if image_size is None and center_crop is None:
        return array
    return _resize(Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array), image_size, center_crop)


def shape_after(
    shape: tuple[int | None, int | None, int], image_size: int | None, center_crop: int | None
) -> tuple[int, int, int] | None:
    """Returns the shape of decoded images after crop and resize, or None if that depends on the image."""
    height, width, channels = shape
    side = image_size or center_crop
    if side is not None:
        return side, side, channels
    return None if height is None or width is None else (height, width, channels)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading; waits for nothing.

    Raises:
        ImageError: it is a pipe, a device or whatever else is no regular file.
        OSError: it cannot be opened.
    """
    # A named pipe opened in the ordinary way would wait for a writer for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError("not a regular file")
    return file


def _read(path: str | os.PathLike[str], most: int) -> bytes:
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ImageError(f"more than {most} bytes")
    return data


def _check_pixels(what: str, pixels: int, most: int) -> None:
    if pixels > most:
        raise ImageError(f"{what}: more than {most}, refused as a decompression bomb")


def _largest_tile(data: bytes) -> tuple[int, int]:
    """Returns width and height of a TIFF's tiles; where the file gives several, the largest.

    Read here, because libtiff allocates a whole tile whatever the size of the image, and takes tags that Pillow does
    not see: the first of two, and other types.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43  # BigTIFF
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    sides = dict.fromkeys(_TILE_TAGS, 0)
    for i in range(count):
        entry = start + (8 + 20 * i if big else 2 + 12 * i)
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in sides:
            if kind not in _TIFF_NUMBERS:
                raise ImageError(f"the size of the tiles is of type {kind}, which is no number of 32 bits")
            (side,) = struct.unpack_from(order + _TIFF_NUMBERS[kind], data, entry + (12 if big else 8))
            sides[tag] = max(sides[tag], abs(side))
    return sides[_TILE_TAGS[0]], sides[_TILE_TAGS[1]]


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if channels != 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def _resize(image: Image.Image, image_size: int | None, center_crop: int | None) -> np.ndarray:
    if image_size is not None or center_crop is not None:
        side = center_crop or min(image.size)
        if side > min(image.size):
            raise ImageError(f"{image.width} x {image.height} pixels: smaller than the crop of {side}")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        if image_size is not None and image_size != side:
            image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return printable(f"{type(error).__name__}: {error}".replace("\n", " "))


def check_sizes(image_size: int | None, center_crop: int | None) -> None:
    """Checks the two numbers of a config.

    Raises:
        ValueError: one of them is less than 1.
    """
    require(image_size is None or image_size >= 1, f"image_size = {image_size}: must be at least 1")
    require(center_crop is None or center_crop >= 1, f"center_crop = {center_crop}: must be at least 1")
