"""The data source `tfds`: any image data set of TensorFlow Datasets by name, read without TensorFlow.

TFDS itself must have prepared the data set, in a format with random access (array_record), except for `digits`, which
is prepared on first use. Preparing TFDS's own image sets is the one thing that needs TensorFlow; reading them is not.
"""

import contextlib
import dataclasses
import difflib
import functools
import io
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genjax.citation import bibtex
from genjax.config import require
from genjax.data import images
from genjax.data.base import MEMORY_LIMIT, DataError, DataSpec, Opened, batch_of, fits, in_memory, read_all
from genjax.registry import register

REFERENCE = bibtex(r"""
    @misc{TFDS,
      title = {{TensorFlow Datasets}, A collection of ready-to-use datasets},
      howpublished = {\url{https://www.tensorflow.org/datasets}}
    }""")

FORMAT = "array_record"  # TFDS's format with random access by bytes
MOCK_SIZE = 256


@register("data", "tfds", reference=REFERENCE)
@dataclasses.dataclass(frozen=True)
class TFDS:
    """Images of TensorFlow Datasets, such as digits, mnist, fashion_mnist, cifar10 or celeb_a.

    The images are the feature `image`, the labels the feature `label` if that is a class label; a data set without
    one is unlabelled.

    Attributes:
        dataset: name, with `/config` and `:version` where wanted.
        split: TFDS's name of a part, such as "train", "test" or "train[:90%]".
        data_dir: where TFDS keeps prepared data; None is `$TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.
        image_size: height and width to resize to; None keeps the images as they are, all of one size.
        center_crop: side of the central square cut out before the resize, in source pixels; None takes the largest
            square if there is an `image_size`, and otherwise the whole image.
        flip: whether training mirrors images at random.
        memory_limit: decoded images of up to this many bytes are kept in memory; above it, each batch is decoded
            when it is asked for.
        mock: 256 random images of the data set's shape and classes instead of the data set, for trying things out
            with no data on disk; every split has the same ones.
    """

    dataset: str = "digits"
    split: str = "train"
    data_dir: str | None = None
    image_size: int | None = None
    center_crop: int | None = None
    flip: bool = False
    memory_limit: int = MEMORY_LIMIT
    mock: bool = False

    def __post_init__(self) -> None:
        require(bool(self.dataset), "dataset: must be the name of a data set")
        images.check_sizes(self.image_size, self.center_crop)
        require(self.memory_limit >= 0, f"memory_limit = {self.memory_limit}: must be at least 0 bytes")

    @property
    def spec(self) -> DataSpec:
        """The description of the data.

        Raises:
            DataError: the data are missing or damaged.
        """
        return self._opened.spec

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the images and labels of the indices; see `genjax.data.base.Source`."""
        return self._opened.gather(indices)

    @functools.cached_property
    def _opened(self) -> Opened:
        return _open(self)


def _open(config: TFDS) -> Opened:
    import tensorflow_datasets as tfds  # most of a second to import

    import genjax.data.digits  # noqa: F401  registers the builder

    with contextlib.ExitStack() as stack:
        if config.mock:
            stack.enter_context(tfds.testing.mock_data(num_examples=MOCK_SIZE))
        builder = _builder(config) if config.mock else _prepared(config)
        features = dict(builder.info.features.items())
        shape = _image_shape(config, features)
        label = features.get("label")
        label = label if isinstance(label, tfds.features.ClassLabel) else None
        try:
            records = _records(config, builder)
            size = len(records)
        except Exception as error:
            raise DataError(f"{_where(config, builder)}: {_first_line(error)}") from error
        if size == 0:
            raise DataError(f"{_where(config, builder)}: the split is empty")

        names = None if label is None else tuple(label.names)
        keep = config.mock or fits(size, shape, config.memory_limit)
        spec = DataSpec(shape, None if label is None else label.num_classes, size, names, in_memory=keep)
        reader = _Reader(config, _where(config, builder), records, _parser(config, features, label), shape)
        if keep:
            return Opened(spec, reader.load(size, label is not None))
        return Opened(spec, functools.partial(reader.gather, labelled=label is not None))


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads and decodes records."""

    config: TFDS
    where: str
    records: Any
    parse: Callable[[Any], Mapping[str, Any]]
    shape: tuple[int, int, int]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray, int]]:
        """Yields (index, image, label) of records; the label is 0 where there are none."""
        try:
            # TFDS 4.9.10's mocked records cannot be read several at once.
            mock = self.config.mock
            records = [self.records[i] for i in indices] if mock else self.records.__getitems__(list(indices))
        except Exception as error:
            raise DataError(f"{self.where}: cannot read records: {_first_line(error)}") from error
        for i, record in zip(indices, records, strict=True):
            try:
                example = self.parse(record)
                image = self.decode(example["image"])
            except Exception as error:  # a damaged record makes the parsers raise nearly anything
                raise DataError(f"{self.where}: image {i}: {_first_line(error)}") from error
            yield i, image, int(example.get("label", 0))

    def decode(self, image: Any) -> np.ndarray:
        size, crop = self.config.image_size, self.config.center_crop
        decoded = isinstance(image, np.ndarray) and image.ndim == 3
        array = images.resize(image, size, crop) if decoded else images.decode(bytes(image), self.shape[-1], size, crop)
        if array.shape != self.shape:
            raise images.ImageError(f"its shape is {array.shape}, not {self.shape}")
        return array

    def gather(self, indices: np.ndarray, labelled: bool) -> dict[str, np.ndarray]:
        """Reads and decodes one batch."""
        _, arrays, labels = zip(*self.read([int(i) for i in indices]), strict=True)
        return batch_of(np.stack(arrays), np.array(labels, np.int32) if labelled else None)

    def load(self, size: int, labelled: bool) -> Any:
        """Reads all and returns the function that gathers from memory."""
        labels = np.zeros(size, np.int32)

        def read_chunk(chunk: range) -> Iterator[tuple[int, np.ndarray]]:
            for i, image, label in self.read(chunk):
                labels[i] = label
                yield i, image

        arrays, _ = read_all(size, self.shape, read_chunk)
        return in_memory(arrays, labels if labelled else None)


def _records(config: TFDS, builder: Any) -> Any:
    import tensorflow_datasets as tfds

    if config.mock:
        return builder.as_data_source(config.split)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(config.split, deserialize_method=raw, file_format=FORMAT)


def _parser(config: TFDS, features: Mapping[str, Any], label: Any) -> Callable[[Any], Mapping[str, Any]]:
    """Returns what makes `{"image": ..., "label": ...}` of a record; images stay encoded.

    TFDS would decode every feature of a record, and its decoding without TensorFlow fails on a grey JPEG in a colour
    data set.
    """
    import tensorflow_datasets as tfds

    if config.mock:  # mocked records are decoded
        return lambda record: {"image": record["image"], "label": 0 if label is None else record["label"]}
    used = {"image": features["image"]} | ({} if label is None else {"label": label})
    encoded = isinstance(features["image"], tfds.features.Image)
    return functools.partial(
        tfds.features.FeaturesDict(used).deserialize_example_np,
        decoders={"image": tfds.decode.SkipDecoding()} if encoded else None,
    )


def _image_shape(config: TFDS, features: Any) -> tuple[int, int, int]:
    feature = features.get("image")
    if feature is None or len(feature.shape) != 3 or feature.np_dtype != np.uint8:
        has = ", ".join(f"{key}: {type(value).__name__}" for key, value in features.items())
        raise DataError(f"dataset {config.dataset!r} has no feature `image` of 8-bit images; it has {has}")
    height, width, channels = feature.shape
    shape = images.shape_after((height, width, channels or 3), config.image_size, config.center_crop)
    if shape is None:
        raise DataError(f"dataset {config.dataset!r} has images of many sizes: set image_size")
    return shape


def _builder(config: TFDS) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

    # TFDS reads the variable when it is imported; reading it here also sees one that was set later.
    data_dir = config.data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        # For such a name TFDS would fetch a package and import it, on the word of a config that executes nothing.
        namespace = naming.parse_builder_name_kwargs(config.dataset)[0].namespace
        require(not namespace, f"{namespace}: names a community's data set, whose code TFDS would fetch and run")
        return tfds.builder(config.dataset, data_dir=data_dir and os.path.expanduser(data_dir))
    except tfds.core.registered.DatasetNotFoundError as error:
        name = config.dataset.split("/")[0].split(":")[0]
        close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "tfds.list_builders() gives the names"
        raise DataError(f"there is no TFDS dataset {config.dataset!r}; {hint}") from error
    except Exception as error:
        raise DataError(f"dataset {config.dataset!r}: {_first_line(error)}") from error


def _prepared(config: TFDS) -> Any:
    """Returns a builder whose data are on disk; prepares `digits` if need be.

    Raises:
        DataError: the data are not on disk; the message says which command puts them there.
    """
    builder = _builder(config)
    if not _is_prepared(builder) and builder.name == "digits":
        _prepare(builder)
        builder = _builder(config)
    if not _is_prepared(builder):
        raise DataError(
            f"{_where(config, builder)}: not on disk. Preparing it needs TensorFlow once (reading it does not): "
            f"{_command(config)}"
        )
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if FORMAT not in formats:
        again = "It will be prepared again" if builder.name == "digits" else f"Prepare it again: {_command(config)}"
        raise DataError(
            f"{_where(config, builder)}: prepared as {', '.join(formats) or 'nothing'}, not as {FORMAT}. "
            f"Delete that folder, or name another data_dir. {again}"
        )
    return builder


def _is_prepared(builder: Any) -> bool:
    return (builder.data_path / "dataset_info.json").exists()


def _prepare(builder: Any) -> None:
    """Prepares a data set that needs no TensorFlow.

    TFDS writes to a temporary folder and renames it at the end. Of several processes that prepare at once one
    succeeds; the others then find the data there, which are the same.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder.download_and_prepare(file_format=FORMAT)
    except Exception as error:
        if not _is_prepared(builder):
            raise DataError(
                f"cannot prepare dataset {builder.name!r} in {builder.data_path}: {_first_line(error)}; "
                "data_dir or TFDS_DATA_DIR names another place"
            ) from error
    if not _is_prepared(builder):
        raise DataError(f"{builder.data_path} is there, but holds no complete dataset: delete it and try again")


def _command(config: TFDS) -> str:
    # TFDS's own command line does not start without apache_beam, hence Python.
    place = f", data_dir={json.dumps(config.data_dir)}" if config.data_dir else ""
    program = (
        f"import tensorflow_datasets as tfds; "
        f'tfds.builder({json.dumps(config.dataset)}{place}).download_and_prepare(file_format="{FORMAT}")'
    )
    return f"pip install -e '.[tfds]' (in a checkout of genjax), then python -c {shlex.quote(program)}"


def _where(config: TFDS, builder: Any) -> str:
    return f"dataset {config.dataset!r}, split {config.split!r}, in {builder.data_path}"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
