"""Picture models: decode on threads, stack channels last, standardise on the device, run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fusion.encoders.base import Encoder, EncoderSpec, Vectors
from fusion.encoders.pictures import decode
from fusion.encoders.transforms import Pixels, Transform


class Standardise(nn.Module):
    """Pixels as they are decoded to what a vision model reads.

    Args:
        transform: Whose mean and deviation are used.
        dtype: Number format of the model.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, transform: Transform, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._dtype = dtype
        self.register_buffer("mean", torch.tensor(transform.mean) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor(transform.std) * 255, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, h, w, 3) uint8 to (n, 3, h, w), stored channels last, mean subtracted and divided by the deviation."""
        return pixels.float().sub(self.mean).div(self.deviation).to(self._dtype).permute(0, 3, 1, 2)


class PictureEncoder(Encoder):
    """A model from standardised pictures (n, 3, h, w) to vectors (n, dim).

    Attributes:
        model: The module; in eval mode on its device.
        transform: Its preprocessing.
    """

    def __init__(self, model: nn.Module, transform: Transform, dim: int, spec: EncoderSpec, device: str) -> None:
        self.dim = dim
        self.transform = transform
        self.device = torch.device(device)
        dtype = getattr(torch, spec.dtype)
        self.model = model.eval().to(device=self.device, dtype=dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = nn.Sequential(Standardise(transform, dtype).to(self.device), self.model)
        self._formats, self._max_pixels = spec.formats, spec.max_pixels
        self.trials = (32, 64, 128, 256, 512) if self.device.type == "cuda" else (1, 2, 4, 8, 16, 32, 64)

    def prepare(self, value: object) -> Pixels:
        """Decodes, resizes and cuts one encoded picture: (h, w, 3) uint8.

        Raises:
            BadInputError: As :func:`fusion.encoders.pictures.decode`.
        """
        picture = decode(value, formats=self._formats, max_pixels=self._max_pixels, target=self.transform.target)
        return self.transform.pixels(picture)

    @torch.inference_mode()
    def launch(self, batch: Sequence[Pixels]) -> torch.Tensor:
        """Starts the model on prepared pictures: (n, dim) on the device."""
        pixels = torch.from_numpy(np.stack(batch))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        outputs: torch.Tensor = self._network(pixels)
        return outputs

    def fetch(self, launched: torch.Tensor) -> Vectors:
        """Brings vectors to the CPU: (n, dim) float32."""
        vectors: Vectors = launched.float().cpu().numpy()
        return vectors

    def encode(self, batch: Sequence[Pixels]) -> Vectors:
        """Encodes prepared pictures: (n, dim) float32."""
        if not len(batch):
            return np.zeros((0, self.dim), np.float32)
        return self.fetch(self.launch(batch))
