"""The source `folder`: classes, captions, and images or metadata that are damaged or hostile."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genjax import config
from genjax.data import DataError, Folder, images


def save(path, seed=0, shape=(6, 8, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(array).save(path, **options)
    return array


def png_of_size(width, height):
    """A PNG file of a few bytes that claims to be of a size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def metadata(folder, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


BAD = {
    "truncated.png": (lambda good: good[: len(good) // 2], ""),
    "empty.png": (lambda good: b"", "the file is empty"),
    "text.png": (lambda good: b"this is no image", "not an image in one of the formats"),
    "header.png": (lambda good: good[:8] + b"\xff" * 40, ""),
    "signature.png": (lambda good: good[:8], ""),
    "bomb.png": (lambda good: png_of_size(60_000, 60_000), "decompression bomb"),
    "small_bomb.png": (lambda good: png_of_size(9_000, 9_000), "9000 x 9000 pixels.*decompression bomb"),
    "postscript.png": (lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
}


@pytest.fixture
def folder(tmp_path):
    """Three good images in two classes."""
    save(tmp_path / "dog" / "b.png", 2)
    save(tmp_path / "cat" / "a.png", 0)
    save(tmp_path / "cat" / "nested" / "c.PNG", 1)
    (tmp_path / "cat" / "notes.txt").write_text("not looked at")
    (tmp_path / "cat" / "._a.png").write_text("nor this")
    return tmp_path


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_classes_by_subfolder(folder, memory_limit):
    source = config.build("data", {"name": "folder", "path": str(folder), "memory_limit": memory_limit})
    spec = source.spec
    assert (spec.image_shape, spec.num_classes, spec.size) == ((6, 8, 3), 2, 3)
    assert spec.class_names == ("cat", "dog") and source.captions is None and source.skipped == ()
    batch = source.gather(np.array([2, 0, 1, 0]))
    expected = [np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8) for seed in (2, 0, 1, 0)]
    np.testing.assert_array_equal(batch["image"], expected)
    np.testing.assert_array_equal(batch["label"], [1, 0, 0, 0])
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32


def test_one_heap_of_images_is_unlabelled(tmp_path):
    save(tmp_path / "a.jpg")
    save(tmp_path / "deep" / "b.webp")
    source = Folder(str(tmp_path))
    assert source.spec.num_classes is None and set(source.gather(np.arange(2))) == {"image"}


def test_captions_and_named_labels(folder):
    metadata(
        folder,
        {"file_name": "dog/b.png", "text": "ein Hund, groß", "label": "dog", "other": 1},
        "",
        {"file_name": "cat/a.png", "text": "a cat", "label": "animal"},
    )
    source = Folder(str(folder))
    assert source.captions == ("ein Hund, groß", "a cat")
    assert source.spec.size == 2 and source.spec.class_names == ("animal", "dog")
    np.testing.assert_array_equal(source.gather(np.arange(2))["label"], [1, 0])


def test_numbered_labels_and_captions_alone(folder):
    metadata(folder, {"file_name": "dog/b.png", "label": 0}, {"file_name": "cat/a.png", "label": 4})
    source = Folder(str(folder))
    assert (source.spec.num_classes, source.spec.class_names, source.captions) == (5, None, None)
    np.testing.assert_array_equal(source.gather(np.arange(2))["label"], [0, 4])
    metadata(folder, {"file_name": "dog/b.png", "text": "x"}, {"file_name": "cat/a.png", "text": "y"})
    assert Folder(str(folder)).spec.class_names == ("cat", "dog")


@pytest.mark.parametrize("memory_limit", [2**30, 0])
@pytest.mark.parametrize("name", BAD)
def test_an_unreadable_image_is_named_and_stops(folder, name, memory_limit):
    damage, reason = BAD[name]
    (folder / "cat" / name).write_bytes(damage((folder / "cat" / "a.png").read_bytes()))
    source = Folder(str(folder), memory_limit=memory_limit)
    with pytest.raises(DataError, match=rf"cannot read image .*/cat/{name}: .*{reason}") as caught:
        source.gather(np.arange(source.spec.size))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_unreadable_images_are_skipped_counted_and_named_if_the_config_says_so(folder, caplog, memory_limit):
    good = (folder / "cat" / "a.png").read_bytes()
    for name, (damage, _) in BAD.items():
        (folder / "cat" / name).write_bytes(damage(good))
    metadata_free = Folder(str(folder), on_error="skip", memory_limit=memory_limit)
    assert metadata_free.spec.size == 3
    assert {name for name, _ in metadata_free.skipped} == {f"cat/{name}" for name in BAD}
    assert all(reason for _, reason in metadata_free.skipped)
    np.testing.assert_array_equal(metadata_free.gather(np.arange(3))["label"], [0, 0, 1])
    assert "skipped 8 of 11 images" in caplog.text and "cat/truncated.png" in caplog.text


def test_captions_stay_with_their_images_when_one_is_skipped(folder):
    names = ["gone.png", "dog/b.png", "cat/a.png"]
    metadata(folder, *({"file_name": name, "text": name} for name in names))
    source = Folder(str(folder), on_error="skip")
    assert source.captions == ("dog/b.png", "cat/a.png") and source.skipped == (("gone.png", "no such file"),)
    with pytest.raises(DataError, match=r"gone.png: no such file"):
        _ = Folder(str(folder)).spec


def test_truncated_jpeg(tmp_path):
    save(tmp_path / "a.jpg", shape=(64, 64, 3))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a.jpg: OSError: .*truncated"):
        _ = Folder(str(tmp_path)).spec


def test_a_pipe_does_not_hang(folder):
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: not a regular file"):
        _ = Folder(str(folder)).spec


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../../outside.png", "a link that leads out of the folder"),
        ("/dev/zero", "a link that leads out of the folder"),
        ("link.png", "OSError: .*symbolic links"),
    ],
)
def test_links_out_of_the_folder_are_not_followed(folder, target, reason):
    """Without metadata, where whatever has an image's suffix is read."""
    save(folder.parent / "outside.png")
    (folder / "cat" / "link.png").symlink_to(target)
    (folder / "cat" / "within.png").symlink_to("a.png")  # links within it are
    with pytest.raises(DataError, match=rf"cannot read image .*/cat/link.png: {reason}"):
        _ = Folder(str(folder)).spec
    source = Folder(str(folder), on_error="skip")
    assert [name for name, _ in source.skipped] == ["cat/link.png"] and source.spec.size == 4
    batch = source.gather(np.array([0, 2]))["image"]
    np.testing.assert_array_equal(batch[0], batch[1])


def test_a_link_that_is_bent_later_is_not_followed(folder):
    save(folder.parent / "outside.png")
    (folder / "cat" / "link.png").symlink_to("a.png")
    source = Folder(str(folder), memory_limit=0)
    assert source.spec.size == 4
    (folder / "cat" / "link.png").unlink()
    (folder / "cat" / "link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(DataError, match="link.png: a link that leads out"):
        source.gather(np.arange(4))


def test_metadata_that_is_a_pipe_or_a_link_or_a_terabyte(folder):
    path = folder / "metadata.jsonl"
    os.mkfifo(path)
    with pytest.raises(DataError, match="cannot read .*metadata.jsonl: not a regular file"):
        _ = Folder(str(folder)).spec
    path.unlink()
    secret = folder.parent / "secret"
    secret.write_text("secret")
    path.symlink_to(secret)
    with pytest.raises(DataError, match="cannot read .*metadata.jsonl: a link that leads out") as caught:
        _ = Folder(str(folder)).spec
    assert "secret" not in str(caught.value).replace(str(folder), "")
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(DataError, match="metadata.jsonl, line 1: longer than 1048576 bytes"):
        _ = Folder(str(folder)).spec


def test_a_terabyte_of_image(folder):
    with open(folder / "cat" / "huge.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="huge.png: more than 20777216 bytes"):
        _ = Folder(str(folder), max_pixels=1_000_000).spec


def test_names_are_escaped_where_they_are_shown(tmp_path, caplog):
    bad = os.fsdecode(b"evil\x1b[2J\n\xe2\x80\xae\xff")  # clears the screen, begins a line, turns the text, is no UTF-8
    save(tmp_path / "good" / "a.png")
    save(tmp_path / bad / "a.png")
    (tmp_path / bad / f"{bad}.png").write_text("no image")
    shown = r"evil\x1b[2J\n\u202e\udcff"
    with pytest.raises(DataError) as caught:
        _ = Folder(str(tmp_path)).spec
    assert f"/{shown}/{shown}.png: not an image" in str(caught.value) and str(caught.value).isprintable()
    source = Folder(str(tmp_path), on_error="skip")
    assert source.spec.class_names == (shown, "good") and source.skipped[0][0] == f"{bad}/{bad}.png"
    assert all(record.getMessage().isprintable() for record in caplog.records) and shown in caplog.text


def test_folders_within_folders_without_end(folder, monkeypatch):
    monkeypatch.chdir(folder)
    depth = 1100  # more than Python's limit of recursion
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    try:
        assert Folder(str(folder)).spec.size == 3
    except DataError as error:  # up to Python 3.11
        assert "folders within folders, too deep" in str(error)
    finally:
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")


def test_an_image_that_vanishes_is_named(folder):
    source = Folder(str(folder), on_error="skip", memory_limit=0)
    assert source.spec.size == 3
    (folder / "dog" / "b.png").unlink()
    with pytest.raises(DataError, match="no longer can"):
        source.gather(np.arange(3))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"file_name": "../outside.png"}, "'../outside.png' leads out of the folder"),
        ({"file_name": "cat/../../outside.png"}, "leads out of the folder"),
        ({"file_name": "/etc/hostname"}, "'/etc/hostname' leads out of the folder"),
        ({"file_name": "link.png"}, "'link.png' leads out of the folder"),
        ({"file_name": "cat/\0.png"}, "not a path"),
        ({"file_name": "dog/b.png"}, "is also in line 1"),
        ({"text": "no file"}, "file_name: must be the path"),
        ({"file_name": 3}, "file_name: must be the path"),
        ({"file_name": "cat/a.png", "text": 5}, "text: must be a string"),
        ({"file_name": "cat/a.png", "text": "has a caption"}, "has a text, unlike the first line"),
        ({"file_name": "cat/a.png", "label": -1}, "label = -1"),
        ({"file_name": "cat/a.png", "label": 10**12}, "label = 1000000000000"),
        ({"file_name": "cat/a.png", "label": int("9" * 4000)}, r"label = 9+\.\.\.9+: must lie"),
        ({"file_name": "loop.png"}, "has no label"),
        ({"file_name": "cat/\x1b[2J" + "../" * 9}, r"'cat/\\x1b\[2J.*' leads out of the folder"),
        ({"file_name": "cat/\ud800.png"}, r"'cat/\\ud800.png': not a path"),
        ({"file_name": "x" * 500_000 + "/.."}, r"'x+\.\.\.x*/\.\.' leads out"),
        ({"file_name": "cat/a.png", "text": "x" * 70_000}, "text: longer than 65536 characters"),
        ({"file_name": "cat/a.png", "label": "x" * 1025}, "label: longer than 1024 characters"),
        ({"file_name": "cat/a.png", "text": "\udfff"}, r"text '\\udfff': half of a character"),
        ({"file_name": "cat/a.png", "text": "x" * 2**20}, "longer than 1048576 bytes"),
        ({"file_name": "cat/a.png", "label": True}, "label: must be a name or a number"),
        ("[1, 2]", "not a JSON object"),
        ("{broken", "Expecting"),
        ("[" * 100_000, "recursion"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_metadata_with_mistakes_are_refused(folder, line, message, on_error):
    save(folder.parent / "outside.png")
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "loop.png").symlink_to("loop.png")
    metadata(folder, {"file_name": "dog/b.png", **({"label": "x"} if line == {"file_name": "loop.png"} else {})}, line)
    with pytest.raises(DataError, match=rf"metadata.jsonl, line 2: .*{message}") as caught:
        _ = Folder(str(folder), on_error=on_error).spec
    assert len(str(caught.value)) < 700 and str(caught.value).isprintable()


def test_labels_of_two_kinds_and_unreadable_metadata(folder):
    metadata(folder, {"file_name": "dog/b.png", "label": "dog"}, {"file_name": "cat/a.png", "label": 1})
    with pytest.raises(DataError, match="line 2: .*must not be mixed"):
        _ = Folder(str(folder)).spec
    (folder / "metadata.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="metadata.jsonl, line 1: 'utf-8' codec"):
        _ = Folder(str(folder)).spec
    metadata(folder, "")
    with pytest.raises(DataError, match="names no images"):
        _ = Folder(str(folder)).spec


def test_folder_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        _ = Folder(str(tmp_path / "nowhere")).spec
    with pytest.raises(DataError, match="no images in it"):
        _ = Folder(str(tmp_path)).spec
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        _ = Folder(str(tmp_path), on_error="skip").spec


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_sizes(folder, on_error):
    wide = save(folder / "dog" / "wide.png", 3, shape=(6, 10, 3))
    with pytest.raises(DataError, match=r"wide.png: its shape is \(6, 10, 3\), not \(6, 8, 3\): set image_size"):
        _ = Folder(str(folder), on_error=on_error).spec
    cropped = Folder(str(folder), center_crop=4).gather(np.array([3]))["image"][0]
    np.testing.assert_array_equal(cropped, wide[1:5, 3:7])
    assert Folder(str(folder), image_size=5, channels=1).spec.image_shape == (5, 5, 1)
    assert Folder(str(folder), image_size=5, channels=1).gather(np.arange(4))["image"].shape == (4, 5, 5, 1)


def test_the_resize_is_an_average_when_it_shrinks(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing the result would be all black or all white
    Image.fromarray(stripes).save(tmp_path / "a.png")
    image = Folder(str(tmp_path), image_size=8).gather(np.array([0]))["image"]
    assert np.abs(image.astype(int) - 127).max() < 12


def test_pixel_formats():
    def decode(image, channels, **options):
        buffer = io.BytesIO()
        image.save(buffer, "png", **options)
        return images.decode(buffer.getvalue(), channels)

    transparent = Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8))
    np.testing.assert_array_equal(decode(transparent, 3), [[[255, 255, 255], [10, 20, 30]]])  # laid on white
    np.testing.assert_array_equal(decode(transparent, 4), np.asarray(transparent))
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(decode(palette, 3), [[[1, 2, 3], [4, 5, 6]]])
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    np.testing.assert_array_equal(decode(grey, 3), [[[7, 7, 7], [9, 9, 9]]])
    np.testing.assert_array_equal(decode(grey, 1), [[[7], [9]]])
    deep = Image.fromarray(np.array([[7, 60_000]], np.uint16))
    with pytest.raises(images.ImageError, match="only images of 8 bits"):
        decode(deep, 1)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: the top of the scene is at the right edge of the pixels
    pixels = save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(Folder(str(tmp_path)).gather(np.array([0]))["image"][0], np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", ""),
        ("channels", 2),
        ("on_error", "ignore"),
        ("max_pixels", 0),
        ("max_pixels", 2**27 + 1),
        ("image_size", -1),
        ("center_crop", 0),
        ("memory_limit", -1),
    ],
)
def test_wrong_values_are_refused_when_built(key, value):
    with pytest.raises(config.ConfigError, match=key):
        config.build("data", {"name": "folder", "path": "x", key: value})
