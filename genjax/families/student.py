"""What families share whose network learns from a trained one, the teacher."""

import dataclasses
from collections.abc import Mapping

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
