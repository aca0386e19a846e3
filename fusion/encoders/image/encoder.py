"""Picture models: decode on threads, stack channels last, standardize on the device, run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from barycenter.fusion.encoders.base import EncoderSpec
from barycenter.fusion.encoders.device import DeviceEncoder, PendingVectors, fuse_conv_bn, to_device, to_host_async
from barycenter.fusion.encoders.hub import is_stateful
from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.encoders.image.transforms import Pixels, Transform
from barycenter.fusion.encoders.onednn_linear import use_onednn_linear

_WINDOW = 64


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
    """A model from standardized pictures (n, 3, h, w) to vectors (n, dim), in eval mode on its device."""

    def __init__(self, model: nn.Module, transform: Transform, dim: int, spec: EncoderSpec, device: str) -> None:
        self.dim = dim
        self.transform = transform
        self.device = torch.device(device)
        cpu = self.device.type == "cpu"
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
        """Starts the model on prepared pictures."""
        return to_host_async(self._network(to_device(np.stack(batch), self.device)))
