"""Every classification architecture of torchvision, with random weights, held against its own penultimate features."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import barycenter.fusion.torch_compat  # noqa: F401 - first: torchvision's import needs it
from barycenter.fusion.encoders import EncoderSpec, Preprocessing, describe, load
from barycenter.fusion.encoders.image.encoder import ImageEncoder, Standardize
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded
from tests.sweep.vision import DIFFERS, EQUAL, NOT_BUILT, REFUSED, TOLERANCE, Row, gap

_MOST = 30_000_000


def _edge(name: str) -> int:
    if name.startswith("maxvit"):
        return 224
    return 112 if name.startswith("vit_") else 96


def rows(*, most: int = _MOST) -> Iterator[Row]:
    """What came of each architecture, in order.

    Args:
        most: Architectures with more weights are not built; an upper bound on memory and time.
    """
    from torchvision import models

    for name in models.list_models(module=models):
        quiet = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        edge = {"image_size": _edge(name)} if name.startswith("vit_") else {}
        count = _weights(name)
        if count > most:
            yield Row(f"torchvision/{name}", NOT_BUILT, f"{count / 1e6:.0f} million weights: only in the whole sweep")
            continue
        torch.manual_seed(0)
        model = models.get_model(name, weights=None, **quiet, **edge).eval()
        with tempfile.TemporaryDirectory() as folder:
            yield _compared(name, model, Path(folder) / "weights.safetensors")


def _weights(name: str) -> int:
    from torchvision import models

    return int(models.get_model_weights(name).DEFAULT.meta["num_params"])


@torch.inference_mode()
def _compared(name: str, model: nn.Module, file: Path) -> Row:
    save_file(model.state_dict(), file)
    edge = _edge(name)
    given = Preprocessing(edge + 8, edge, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    spec = EncoderSpec("image", f"torchvision/{name}", weights=str(file), preprocessing=given)
    try:
        described, encoder = describe(spec), load(spec)
    except JobError as error:
        return Row(f"torchvision/{name}", REFUSED, str(error))
    assert isinstance(encoder, ImageEncoder)
    prepared = [encoder.prepare(encoded(drawn(150 + 9 * i, 180 - 9 * i, i))) for i in range(3)]
    pixels = Standardize(encoder.transform)(torch.from_numpy(np.stack(prepared))).contiguous()
    theirs = np.concatenate([_penultimate(model, pixels[i : i + 1]) for i in range(len(pixels))])
    gaps = [gap(theirs, encoder.encode(prepared)), gap(theirs, np.concatenate([encoder.encode([p]) for p in prepared]))]
    equal = max(gaps) <= TOLERANCE and described.dim == theirs.shape[1]
    return Row(f"torchvision/{name}", EQUAL if equal else DIFFERS, f"penultimate features, to {max(gaps):.0e}")


def _penultimate(model: nn.Module, picture: torch.Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """What the last layer of the classifier reads; of a convolution, the mean of its map."""
    last = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    last = [part for part in last if 1000 in (getattr(part, "out_features", 0), getattr(part, "out_channels", 0))][-1:]
    seen: list[torch.Tensor] = []
    hook = last[0].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    model(picture)
    hook.remove()
    read = seen[-1]
    return (torch.relu(read).mean(dim=(2, 3)) if read.ndim == 4 else read).numpy()
