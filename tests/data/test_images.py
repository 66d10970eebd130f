"""Images made to harm: bombs, lying headers, damage at random."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from genjax.data import images

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks):
    """A white pixel, and what stands between its header and its data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *chunks, chunk(b"IDAT", zlib.compress(b"\0\xff\xff\xff"))])


def zeros(megabytes):
    """So many, deflated to a thousandth."""
    deflate = zlib.compressobj(9)
    return b"".join(deflate.compress(bytes(2**20)) for _ in range(megabytes)) + deflate.flush()


def tiff(side, tile, tags=(), data=None):
    """A grey TIFF with deflated tiles, after the TIFF 6.0 specification; `tags` come first."""
    data = zlib.compress(bytes(tile * tile)) if data is None else data
    short, long = 3, 4
    entries = [(256, long, side), (257, long, side), (258, short, 8), (259, short, 8), (262, short, 1), (277, short, 1)]
    entries += [(322, long, tile), (323, long, tile), (324, long, None), (325, long, len(data))]
    entries = [*tags, *(entry for entry in entries if entry[0] not in {tag for tag, kind, _ in tags if kind == 17})]
    start = 10 + 12 * len(entries) + 4
    ifd = struct.pack("<H", len(entries))
    for tag, kind, value in sorted(entries, key=lambda entry: entry[0]):
        ifd += struct.pack("<HHII", tag, kind, 1, start if value is None else value)
    return b"II*\0" + struct.pack("<I", 8) + ifd + bytes(4) + data


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def claims(kind, width, height):
    """A small file whose header says that it is of a size."""
    # Of WebP, animations have a header with the size of the whole.
    animation = {"save_all": True, "append_images": [Image.new("RGB", (7, 9))]} if kind == "webp" else {}
    data = bytearray(encoded(kind, **animation))
    if kind == "gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "jpeg":
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    elif kind == "webp":
        place = data.index(b"VP8X") + 12
        data[place : place + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == "ppm":
        data = bytearray(b"P6 %d %d 255\n" % (width, height))
    elif kind == "tiff":
        data = bytearray(tiff(width, 16))
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["gif", "bmp", "jpeg", "webp", "ppm", "tiff"])
def test_the_limit_holds_before_anything_is_decoded(kind):
    with pytest.raises(images.ImageError, match="9000 x 9000 pixels: more than 67108864, refused as a decompression"):
        images.decode(claims(kind, 9000, 9000), 3)
    with pytest.raises(images.ImageError, match="decompression bomb"):
        images.decode(claims(kind, 16000, 16000), 3)  # by Pillow's own limit, where that comes first
    with pytest.raises(images.ImageError, match="200 x 200 pixels: more than 39999"):
        images.decode(claims(kind, 200, 200), 3, max_pixels=39_999)


@pytest.mark.parametrize("kind", ["png", "gif", "bmp", "jpeg", "webp", "ppm", "tiff"])
def test_the_limit_is_what_still_passes(kind):
    assert images.decode(encoded(kind), 3, max_pixels=63).shape == (9, 7, 3)
    with pytest.raises(images.ImageError, match="7 x 9 pixels: more than 62"):
        images.decode(encoded(kind), 3, max_pixels=62)


@pytest.mark.parametrize("kind", ["gif", "webp", "tiff", "png"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    others = [Image.new("RGB", (7, 9), color) for color in ("red", "blue")]
    data = encoded(kind, save_all=True, append_images=others, **({"lossless": True} if kind == "webp" else {}))
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    frame = images.decode(data, 3)
    assert frame.shape == (9, 7, 3)
    if kind != "gif":  # which has 256 colours
        np.testing.assert_array_equal(frame, PIXELS)


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt"])
def test_text_of_a_png_does_not_unpack_to_gigabytes(name):
    head = b"x\0\x01\0\0\0" if name == b"iTXt" else b"x\0\0"
    with pytest.raises(images.ImageError, match="Decompressed data too large"):
        images.decode(png(chunk(name, head + zeros(64))), 3)
    many = png(*[chunk(b"zTXt", head + zlib.compress(bytes(2**20)))] * 80)
    if name == b"zTXt":
        with pytest.raises(images.ImageError, match="Too much memory"):
            images.decode(many, 3)
    assert images.decode(png(), 3).tolist() == [[[255, 255, 255]]]


BIG = 20_000
TILES = {
    "alone": tiff(16, BIG, data=zlib.compress(bytes(2**20))),
    "first of two": tiff(16, 16, [(322, 4, BIG), (323, 4, BIG)]),  # libtiff takes the first, Pillow the last
    "negative": tiff(16, 16, [(322, 9, 2**32 - BIG), (323, 9, 2**32 - BIG)]),
}


@pytest.mark.parametrize("name", TILES)
def test_tiles_larger_than_their_image_are_limited_too(name):
    with pytest.raises(images.ImageError, match="tiles of 20000 x 20000 pixels: more than 67108864"):
        images.decode(TILES[name], 1)


def test_tiles_that_are_no_bombs():
    assert images.decode(tiff(16, 32), 1).shape == (16, 16, 1)
    assert images.decode(encoded("tiff", big_tiff=True), 3).tolist() == PIXELS.tolist()
    with pytest.raises(images.ImageError, match="tiles is of type 17"):  # which Pillow skips and libtiff reads
        images.decode(tiff(16, 16, [(322, 17, BIG), (323, 17, BIG)]), 1)
    with pytest.raises(images.ImageError):
        images.decode(tiff(16, 16)[:40], 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak of memory where Linux has it")
def test_bombs_take_no_memory(tmp_path):
    """The same ones, by what the process had at its most; the limits alone could come too late."""
    bombs = [*TILES.values(), *(claims(kind, 16000, 16000) for kind in ("gif", "bmp", "jpeg", "webp", "ppm", "tiff"))]
    bombs += [png(chunk(b"iCCP", b"x\0\0" + zeros(512)))]
    for i, data in enumerate(bombs):
        (tmp_path / str(i)).write_bytes(data)
    script = """
import pathlib, sys
from genjax.data import images
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
for path in pathlib.Path(sys.argv[1]).iterdir():
    try:
        images.decode(path, 3)
        print("decoded", path)
    except images.ImageError:
        pass
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 1024, f"{done.stdout} KiB"


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it puts up with
@pytest.mark.parametrize("kind", ["png", "gif", "bmp", "jpeg", "webp", "ppm", "tiff"])
def test_damage_at_random_is_an_error_with_a_reason_or_an_image(kind):
    good = encoded(kind)
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(good)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        data = bytes(data[: rng.integers(1, len(data) + 1)]) if rng.random() < 0.3 else bytes(data)
        try:
            image = images.decode(data, 3, image_size=4, max_pixels=2**20)
        except images.ImageError as error:
            assert str(error) and str(error).isprintable()
        else:
            assert image.shape == (4, 4, 3) and image.dtype == np.uint8
