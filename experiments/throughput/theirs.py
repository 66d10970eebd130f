"""The same step in PyTorch, with diffusers' networks: loss, gradient, clipping, Adam, average of the weights."""

import functools
import os
from collections.abc import Callable
from typing import Any

import diffusers
import torch

from experiments.throughput.ours import forget_peak_of_process, peak_of_process, random_batch
from experiments.throughput.presets import Case
from genjax.networks import DiT, UNet
from genjax.training.experiment import Experiment


class Program:
    """The step on random data, with its state."""

    def __init__(self, case: Case, compiled: bool) -> None:
        """Builds it; `compiled` is whether torch.compile gets the network and its loss."""
        torch.manual_seed(0)
        if hasattr(os, "sched_getaffinity"):
            torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX does
        torch.backends.cudnn.benchmark = True
        config = case.config()
        network, shape = Experiment.from_config(config).family.network, config["family"]["image_shape"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build(network, shape).to(self.device).train()
        if isinstance(network, UNet):
            self.model = self.model.to(memory_format=torch.channels_last)
        self.parameters = list(self.model.parameters())
        self.clip = config["optimizers"]["model"].get("clip")
        self.decay = config["ema"]["decay"]
        self.average = [p.detach().clone() for p in self.parameters]
        self.adam = torch.optim.Adam(self.parameters, 1e-4, fused=True)
        self.autocast = functools.partial(
            torch.autocast, self.device.type, torch.bfloat16, enabled=case.dtype == "bfloat16"
        )
        batch = random_batch(shape, network.num_classes, case.batch)
        self.images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).to(self.device)  # channels_last
        self.labels = torch.from_numpy(batch["label"]).long().to(self.device) if "label" in batch else None
        self.signal = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).to(self.device)  # of images, squared
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.about: dict[str, Any] = {
            "parameters": sum(p.numel() for p in self.parameters),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}",
        }
        self.run(3)

    def run(self, steps: int) -> None:
        """Takes steps and waits for the last."""
        for _ in range(steps):
            self._gradient()
            self._optimize()
            self._follow()
        self._wait()

    def forget_peak(self) -> None:
        """Starts the measurement of memory."""
        forget_peak_of_process()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> dict[str, int | None]:
        """Returns the most memory in bytes: of the device where there is one with a memory of its own."""
        on_device = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
        return {"device_bytes": on_device, "rss_bytes": peak_of_process()}

    def parts(self, time_of: Callable[[Callable[[], Any]], float]) -> dict[str, float]:
        """Returns the seconds of the parts of a step."""

        def forward() -> None:
            with torch.no_grad():
                self.loss()
            self._wait()

        def gradient() -> None:
            self._gradient()
            self._wait()

        def optimize() -> None:
            self._optimize()
            self._wait()

        def follow() -> None:
            self._follow()
            self._wait()

        seconds = {"forward": time_of(forward)}
        seconds["backward"] = time_of(gradient) - seconds["forward"]
        return seconds | {"optimizer": time_of(optimize), "average": time_of(follow)}

    def _loss(self) -> torch.Tensor:
        x = self.images.float() / 127.5 - 1
        t = torch.randint(0, len(self.signal), (len(x),), device=x.device)
        eps = torch.randn_like(x)
        signal = self.signal[t][:, None, None, None]
        with self.autocast():
            output = self.model(signal.sqrt() * x + (1 - signal).sqrt() * eps, t, class_labels=self.labels).sample
        return torch.square(output.float() - eps).mean()

    def _gradient(self) -> None:
        self.adam.zero_grad(set_to_none=True)
        self.loss().backward()

    def _optimize(self) -> None:
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.adam.step()

    def _follow(self) -> None:
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - self.decay)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def build(network: Any, shape: tuple[int, int, int]) -> torch.nn.Module:
    """Returns diffusers' network that is nearest to one of ours for images of a shape (H, W, C)."""
    return unet(network, shape) if isinstance(network, UNet) else dit(network, shape)


def unet(network: UNet, shape: tuple[int, int, int]) -> torch.nn.Module:
    """Returns the U-Net with equal widths, blocks, attention and resampling.

    diffusers' has one number of channels a head for all resolutions; it does not divide sums by sqrt(2), lacks the row
    of the null class, and embeds the noise level in as many channels as the first level has.
    """
    heights = [shape[0] >> level for level in range(len(network.multipliers))]
    residual = network.resampling == "residual"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if residual else ("DownBlock2D", "UpBlock2D")
    attending = ("AttnDownBlock2D", "AttnUpBlock2D")
    groups = min(32, network.channels // 4)
    kinds = [attending if height in network.attention_resolutions else plain for height in heights]
    return diffusers.UNet2DModel(
        sample_size=shape[0],
        in_channels=shape[2],
        out_channels=network.out_channels or shape[2],
        freq_shift=1,
        flip_sin_to_cos=False,
        time_embedding_dim=4 * network.channels,
        down_block_types=tuple(down for down, _ in kinds),
        up_block_types=tuple(up for _, up in reversed(kinds)),
        block_out_channels=network.widths,
        layers_per_block=network.blocks_per_level,
        downsample_padding=0,
        downsample_type="resnet" if residual else "conv",
        upsample_type="resnet" if residual else "conv",
        dropout=network.dropout,
        attention_head_dim=network.head_channels,  # None: one head of all channels
        norm_num_groups=groups,
        attn_norm_num_groups=groups,
        norm_eps=1e-6,
        resnet_time_scale_shift="scale_shift" if network.scale_shift else "default",
        num_class_embeds=network.num_classes,
    )


def dit(network: DiT, shape: tuple[int, int, int]) -> torch.nn.Module:
    """Returns the DiT of equal size.

    Each of diffusers' blocks embeds time and class for itself; the paper's share one embedding, and so do these.
    """
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=network.heads,
        attention_head_dim=network.hidden // network.heads,
        in_channels=shape[2],
        out_channels=network.out_channels or shape[2],
        num_layers=network.depth,
        dropout=network.dropout,
        sample_size=shape[0],
        patch_size=network.patch_size,
        num_embeds_ada_norm=network.num_classes,
    )
    for block in model.transformer_blocks[1:]:
        block.norm1.emb = model.transformer_blocks[0].norm1.emb
    return model
