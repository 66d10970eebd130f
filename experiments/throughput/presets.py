"""What is trained: shipped configs, and the DiTs of the paper, on random data."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """One program to time.

    Attributes:
        preset: a key of `PRESETS`.
        dtype: compute type.
        batch: images a step.
        program: a key of `experiments.throughput.worker.PROGRAMS`.
        quick: whether it is the preset's tiny version.
        parts: whether the parts of a step are timed too.
    """

    preset: str
    dtype: str
    batch: int
    program: str = "genjax"
    quick: bool = False
    parts: bool = False

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.preset}-{self.dtype}-{self.batch}-{self.program}"

    def config(self) -> Config:
        """Returns the resolved config."""
        config = PRESETS[self.preset].config(self.quick)
        config["family"]["network"]["dtype"] = self.dtype
        config["training"] |= {"batch_size": self.batch}
        return config


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model with its optimizer.

    Attributes:
        config: `config(quick)` returns the config; quick is a tiny version.
        cpu: images a step on a CPU.
        accelerator: images a step on one GPU or TPU.
    """

    config: Callable[[bool], Config]
    cpu: int
    accelerator: int


def _shipped(name: str) -> Callable[[bool], Config]:
    def config(quick: bool) -> Config:
        spec = importlib.util.spec_from_file_location("throughput_config", CONFIGS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config("smoke" if quick else "full").to_dict()

    return config


def _dit(size: str) -> Callable[[bool], Config]:
    """Peebles & Xie 2023, section 4: ImageNet's latents of 32x32x4, batches of 256, a constant rate, no decay."""

    def config(quick: bool) -> Config:
        network = dict(name="dit", size=size, patch_size=2, num_classes=1000)
        return dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", mock=True),  # never read
            family=dict(
                name="diffusion",
                image_shape=(32, 32, 4),
                network=network | (dict(depth=1, hidden=32, heads=2) if quick else {}),
                process=dict(name="discrete_vp", schedule="linear", timesteps=1000),
                parameterization=dict(name="eps", time_scale=1000.0, time_offset=-1.0),
                time_sampler=dict(name="uniform", t_min=0.001),
                condition=("label",),
            ),
            optimizers=dict(model=dict(name="adam", learning_rate=1e-4)),
            ema=dict(decay=0.9999, warmup=False),
            training=dict(steps=400_000, batch_size=256),
        )

    return config


PRESETS: Mapping[str, Preset] = {
    "digits_unet": Preset(_shipped("digits/ddpm"), 64, 64),
    "digits_dit": Preset(_shipped("digits/dit"), 128, 128),
    "ddpm_cifar10": Preset(_shipped("cifar10/ddpm"), 8, 128),
    "edm_cifar10": Preset(_shipped("cifar10/edm"), 2, 128),
    "dit_s_2": Preset(_dit("S"), 8, 256),
    "dit_b_2": Preset(_dit("B"), 4, 256),
    "dit_l_2": Preset(_dit("L"), 1, 128),
    "dit_xl_2": Preset(_dit("XL"), 1, 128),
}
# What is run unless it is said: a step of the two largest takes a CPU minutes, and the small ones say nothing about an
# accelerator.
ON_CPU = ("digits_unet", "digits_dit", "ddpm_cifar10", "edm_cifar10", "dit_s_2", "dit_b_2")
ON_ACCELERATOR = ("ddpm_cifar10", "edm_cifar10", "dit_s_2", "dit_b_2", "dit_l_2", "dit_xl_2")
