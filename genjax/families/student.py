"""What families share whose network learns from a trained one, the teacher."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from genjax.config import component, require
from genjax.families.base import DataSpec, Extra, Params
from genjax.families.denoising import MODEL, Denoising
from genjax.families.teacher import Teacher, check_teacher

TEACHER = "teacher"  # its trees, in `extra`
BEGIN = ("teacher", "scratch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student(Denoising):
    """A denoiser's network that learns from a teacher, whose trees are kept in `extra` as "teacher".

    Attributes beside those of `Denoising`:
        teacher: the trained model, of the same images; it must know the student's conditions.
        begin: where the student's weights come from: "teacher", of the same network but for what conditions it beside,
            or "scratch".
    """

    teacher: Teacher = component("teacher", implied="run")
    begin: str = "teacher"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.begin in BEGIN, f"begin = {self.begin!r}: must be one of {', '.join(BEGIN)}")

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data or the teacher do not fit the model; compiles nothing."""
        super().check(spec)
        check_teacher(self.teacher, self.image_shape, self.condition)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", and in `extra` trees of the teacher's shapes."""
        params, extra = super().init(key, spec)
        teacher, beside = self.teacher.family.init(jax.random.fold_in(key, 1), spec)
        return params, {**extra, TEACHER: {**beside, **teacher}}

    def pretrained(self) -> Mapping[str, Params]:
        """Reads the teacher, and what begins as it."""
        loaded = self.teacher.load()
        return {TEACHER: loaded} | ({MODEL: loaded[MODEL]} if self.begin == "teacher" else {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeStudent(Student):
    """A student that can do without a teacher: then it learns from the data alone.

    Attributes are those of `Student`; the teacher may be None.
    """

    teacher: Any = component("teacher", None, implied="run")
    begin: str = "scratch"

    @property
    def asks(self) -> bool:
        """Whether the loss asks the teacher, so that it is kept; if not, it gives its weights at most."""
        return self.teacher is not None

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data or the teacher do not fit the model; compiles nothing."""
        Denoising.check(self, spec) if self.teacher is None else super().check(spec)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters, and in `extra` trees of the teacher's shapes where it is asked."""
        return super().init(key, spec) if self.asks else Denoising.init(self, key, spec)

    def pretrained(self) -> Mapping[str, Params]:
        """Reads the teacher where it is asked, and what begins as it."""
        loaded = {} if self.teacher is None else super().pretrained()
        return {name: tree for name, tree in loaded.items() if name != TEACHER or self.asks}
