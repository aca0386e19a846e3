"""Pictures as rows of patches in their own aspect ratio (NaFlex of SigLIP 2), in place of lines of pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from barycenter.fusion.encoders.image.transforms import Pixels, ProcessorTransform

_BASE = 32
"""Counts of patches are written as two numbers below it, which are exact in every number format."""


@dataclass(frozen=True, slots=True)
class PatchTransform(ProcessorTransform):
    """An image processor that cuts one picture into patches, padded to a fixed number of them.

    It makes ``pixel_values`` (1, patches, values) and ``spatial_shapes`` (1, 2) of a picture.
    """

    @classmethod
    def of_sample(cls, processor: Any, probe: Image.Image) -> "PatchTransform":
        """Of a processor, with the number and size of patches that it makes of a picture."""
        count, values = np.asarray(processor(images=probe, return_tensors="np")["pixel_values"]).shape[1:]
        return cls.of_size(processor, (count + 1, values // 3))

    def pixels(self, picture: Image.Image) -> Pixels:
        """(patches + 1, values / 3, 3) float32, standardized; the last row holds how many patches are high and wide."""
        made = self.processor(images=picture, return_tensors="np")
        rows = np.zeros((self.crop[0], self.crop[1] * 3), np.float32)
        rows[:-1] = made["pixel_values"][0]
        rows[-1, :4] = np.stack(np.divmod(np.asarray(made["spatial_shapes"])[0], _BASE), axis=1).flatten()
        return rows.reshape(*self.crop, 3)


def as_patches(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """A model's arguments from (n, 3, patches + 1, values / 3) of a :class:`PatchTransform`.

    Counts that no picture can have, as in rows made up for a trial, are brought into their range.
    """
    rows = pictures.permute(0, 2, 3, 1).flatten(2)
    last = rows[:, -1, :4].long()
    count = rows.shape[1] - 1
    high = (last[:, 0] * _BASE + last[:, 1]).clamp(1, count)
    wide = torch.minimum((last[:, 2] * _BASE + last[:, 3]).clamp(min=1), count // high)
    mask = torch.arange(count, device=rows.device)[None] < (high * wide)[:, None]
    return {
        "pixel_values": rows[:, :-1],
        "pixel_attention_mask": mask.long(),
        "spatial_shapes": torch.stack([high, wide], dim=1),
    }
