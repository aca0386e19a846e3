"""Picture models: decode on threads, stack channels last, normalise on the device, run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fusion.encoders.base import Encoder, EncoderSpec, Vectors
from fusion.encoders.pictures import decode
from fusion.encoders.transforms import Transform


class PictureEncoder(Encoder):
    """A model from normalised pictures (n, 3, h, w) to vectors (n, dim).

    Attributes:
        model: The module; in eval mode on its device.
        transform: Its preprocessing.
    """

    def __init__(self, model: nn.Module, transform: Transform, dim: int, spec: EncoderSpec, device: str) -> None:
        self.dim = dim
        self.transform = transform
        self.device = torch.device(device)
        self.dtype = getattr(torch, spec.dtype)
        self.model = model.eval().to(device=self.device, dtype=self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._formats, self._max_pixels = spec.formats, spec.max_pixels
        self.trials = (32, 64, 128, 256, 512) if self.device.type == "cuda" else (1, 2, 4, 8, 16, 32, 64)

    def prepare(self, value: object) -> torch.Tensor:
        """Decodes, resizes and cuts one encoded picture: (3, h, w) uint8.

        Raises:
            BadInputError: As :func:`fusion.encoders.pictures.decode`.
        """
        picture = decode(value, formats=self._formats, max_pixels=self._max_pixels, target=self.transform.target)
        return self.transform.pixels(picture)

    @torch.inference_mode()
    def launch(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        """Starts the model on prepared pictures: (n, dim) on the device."""
        pixels = torch.stack([picture.permute(1, 2, 0) for picture in batch])
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        inputs = self.transform.normalise(pixels.permute(0, 3, 1, 2)).to(self.dtype)
        outputs: torch.Tensor = self.model(inputs)
        return outputs

    def fetch(self, launched: torch.Tensor) -> Vectors:
        """Brings vectors to the CPU: (n, dim) float32."""
        vectors: Vectors = launched.float().cpu().numpy()
        return vectors

    def encode(self, batch: Sequence[torch.Tensor]) -> Vectors:
        """Encodes prepared pictures: (n, dim) float32."""
        if not len(batch):
            return np.zeros((0, self.dim), np.float32)
        return self.fetch(self.launch(batch))
