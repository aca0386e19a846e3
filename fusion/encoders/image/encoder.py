"""Picture models: decode on threads, stack channels last, standardize on the device, run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from barycenter.fusion.encoders.base import EncoderSpec
from barycenter.fusion.encoders.batch_check import check_reproducible, one_torch_thread
from barycenter.fusion.encoders.device import DeviceEncoder, PendingVectors, fuse_conv_bn, to_device, to_host_async
from barycenter.fusion.encoders.hub import is_stateful
from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.encoders.image.transforms import Pixels, Transform
from barycenter.fusion.encoders.onednn_linear import use_onednn_linear

_WINDOW = 64
_PICTURES_A_LAUNCH = 4
"""On a CPU a launch has always so many pictures, for other numbers are computed by other kernels."""

_PICTURES_A_CONVOLUTION = 16
"""The same of networks of convolutions: sixteen is the fastest or within 2 % of it on processors without AVX-512, where
launches of four make ResNet-50 take 15 % longer."""


class Standardize(nn.Module):
    """Pixels as they are decoded to what a vision model reads.

    Works on whole lines of pixels: a mean a channel would be broadcast along an axis of three, which is slow.

    Args:
        transform: Whose mean and deviation are used.
        dtype: Number format of the model.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, transform: Transform, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._dtype = dtype
        width = transform.crop[1]
        self.register_buffer("mean", (torch.tensor(transform.mean) * 255).repeat(width), persistent=False)
        self.register_buffer("deviation", (torch.tensor(transform.std) * 255).repeat(width), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, h, w, 3) uint8 to (n, 3, h, w), stored channels last, mean subtracted and divided by the deviation."""
        lines = pixels.flatten(2).float().sub_(self.mean).div_(self.deviation)
        return lines.to(self._dtype).view(pixels.shape).permute(0, 3, 1, 2)


class ImageEncoder(DeviceEncoder):
    """A model from standardized pictures (n, 3, h, w) to vectors (n, dim), in eval mode on its device.

    Attributes:
        transform: From a decoded picture to pixels.
        model: The network after standardizing.
    """

    def __init__(self, model: nn.Module, transform: Transform, dim: int, spec: EncoderSpec, device: str) -> None:
        self.dim = dim
        self.transform = transform
        self.device = torch.device(device)
        cpu = self.device.type == "cpu"
        self._pictures = pictures_a_launch(model)
        self.parallel = cpu and not is_stateful(model, spec)
        dtype = getattr(torch, spec.dtype)
        self.model = fuse_conv_bn(model.eval(), transform.crop).to(device=self.device, dtype=dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = nn.Sequential(Standardize(transform, dtype).to(self.device), self.model)
        if cpu and spec.onednn:
            use_onednn_linear(self.model, lambda: self.encode([np.zeros((*transform.crop, 3), np.uint8)]))
        self._formats, self._max_pixels = spec.formats, spec.max_pixels
        self.batch_sizes = (1, 2, 4, 8, 16, 32, 64) if cpu else (32, 64, 128, 256, 512)

    def prepare(self, value: object) -> Pixels:
        """Decodes, resizes and cuts one encoded picture: (h, w, 3) uint8."""
        picture = decode(value, formats=self._formats, max_pixels=self._max_pixels, target=self.transform.target)
        return self.transform.pixels(picture)

    def window_rows(self, batch_size: int) -> int:
        """Whole batches, enough of them that reading ahead hides what storage takes to answer."""
        return batch_size * max(1, _WINDOW // batch_size)

    @torch.inference_mode()
    def launch(self, batch: Sequence[Pixels]) -> PendingVectors:
        """Starts the model on prepared pictures; a reproducible one on a fixed number, filled up with blanks."""
        if not self.reproducible:
            return to_host_async(self._network(to_device(np.stack(batch), self.device)))
        parts = [self._launch_filled(batch[i : i + self.least_rows]) for i in range(0, len(batch), self.least_rows)]
        return to_host_async(torch.cat(parts))

    def _launch_filled(self, batch: Sequence[Pixels]) -> torch.Tensor:
        blanks = [np.zeros_like(batch[0])] * (self.least_rows - len(batch))
        vectors: torch.Tensor = self._network(to_device(np.stack([*batch, *blanks]), self.device))
        return vectors[: len(batch)]

    def make_reproducible(self, spec: EncoderSpec) -> "ImageEncoder":
        """From now on launches of a fixed number of pictures, where these give bytes that depend on the picture alone.

        Where they do not, and it is asked for, pictures go alone.

        Raises:
            JobError: It is asked for and cannot be had.
        """
        if self.device.type == "cpu" and self.parallel and spec.reproducible is not False:
            for rows in (self._pictures, 1)[: 2 if spec.reproducible else 1]:
                self.least_rows, self.reproducible = rows, True
                if rows == 1 or self._gives_same_bytes():
                    self.batch_sizes = (rows,)
                    return self
            self.least_rows, self.reproducible = 1, False
        if spec.reproducible:
            check_reproducible(self, str(spec.encoder))
        return self

    def _gives_same_bytes(self) -> bool:
        """As :func:`.batch_check.gives_same_bytes`, in three launches: every picture changes its place once."""
        first, second, third = sample_inputs(self.transform.crop)
        with one_torch_thread():
            together = self.encode([first, second, third])
            moved = self.encode([third, np.zeros_like(first), first, second])[[2, 3, 0]]
            alone = self.encode([second])
        return together.tobytes() == moved.tobytes() and alone.tobytes() == together[1:2].tobytes()


def pictures_a_launch(model: nn.Module) -> int:
    """How many pictures a CPU gets at a time, by whether the model has more convolutions than linear layers."""
    layers = list(model.modules())
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    linear = sum(isinstance(layer, nn.Linear) for layer in layers)
    return _PICTURES_A_CONVOLUTION if convolutions > linear else _PICTURES_A_LAUNCH


def sample_inputs(size: tuple[int, int]) -> list[Pixels]:
    """Prepared pictures that differ: noise, a ramp, one color."""
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(0, 255, size[1])[None, :, None], (*size, 3))
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8), ramp.astype(np.uint8), np.full((*size, 3), 90, np.uint8)]
