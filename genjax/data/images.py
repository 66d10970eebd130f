"""From encoded bytes to uint8 arrays, with Pillow; whatever cannot be read is refused with a reason."""

import io
import os
import pathlib
import stat

import numpy as np
from PIL import Image, ImageOps

from genjax.config import require

MAX_PIXELS = 2**26  # 67 million: a small file may unpack to gigabytes, and nobody trains on larger ones
# Containers of single 8-bit pictures. What is left out matters: EPS would run Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageError(ValueError):
    """An image that cannot be read, and why."""


def decode(
    source: bytes | str | os.PathLike[str], channels: int, image_size: int | None = None, center_crop: int | None = None
) -> np.ndarray:
    """Decodes one image, turns it upright, crops and resizes it.

    Transparent images are laid on white, unless four channels are asked for. The resize is Pillow's antialiased
    bicubic of the central square.

    Args:
        source: the encoded bytes, or the path of a regular file.
        channels: 1, 3 or 4.
        image_size: height and width of the result; None keeps those of the (cropped) image.
        center_crop: side of the central square that is cut out, in source pixels; None takes the largest one if
            there is an `image_size`, and otherwise the whole image.

    Returns:
        uint8 [H, W, channels].

    Raises:
        ImageError: the image cannot be read, has more than `MAX_PIXELS`, is not 8-bit, or is smaller than the crop.
    """
    try:
        data = source if isinstance(source, bytes) else _read(source)
        if not data:
            raise ImageError("the file is empty")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{width} x {height} pixels: more than {MAX_PIXELS}, refused as a decompression bomb")
            if image.mode.startswith(("I", "F")):
                raise ImageError(f"pixel format {image.mode}: only images of 8 bits a channel can be read")
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


def _read(path: str | os.PathLike[str]) -> bytes:
    # Opening a named pipe would wait for ever.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError("not a regular file")
    return pathlib.Path(path).read_bytes()


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
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def check_sizes(image_size: int | None, center_crop: int | None) -> None:
    """Checks the two numbers of a config.

    Raises:
        ValueError: one of them is less than 1.
    """
    require(image_size is None or image_size >= 1, f"image_size = {image_size}: must be at least 1")
    require(center_crop is None or center_crop >= 1, f"center_crop = {center_crop}: must be at least 1")
