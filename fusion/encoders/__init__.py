"""Frozen encoders: described without their weights, loaded once, run over rows by ``pipeline``.

A family's module is imported when one of its encoders is asked for: built-in encoders and ready vectors need no torch.
"""

from importlib import import_module
from typing import Protocol, cast

from barycenter.fusion.encoders.base import Description, Encoder, EncoderSpec, Preprocessing
from barycenter.fusion.errors import JobError

__all__ = [
    "Description", "Encoder", "EncoderSpec", "Preprocessing", "describe", "fixed_batch_size", "libraries_of", "load",
]  # fmt: skip

_DTYPES = ("float32", "bfloat16", "float16")
_MODULES = {
    "vector": "vector",
    "builtin": "builtin",
    "torchvision": "image.torchvision_models",
    "text": "text.encoder",
    "image": "image.transformers_models",
}
_WITHOUT_TORCH = ("vector", "builtin")
_ROWS_WITHOUT_TORCH = 256
_LIBRARIES: dict[str, tuple[str, ...]] = {
    "vector": (),
    "builtin/text": ("scikit-learn",),
    "builtin/image": ("numpy", "pillow"),
    "torchvision": ("torch", "torchvision", "pillow"),
    "text": ("torch", "transformers", "tokenizers"),
    "image": ("torch", "transformers", "pillow"),
}


class _Family(Protocol):
    """What the module of a family of encoders offers."""

    def describe(self, spec: EncoderSpec) -> Description: ...

    def load(self, spec: EncoderSpec, device: str) -> Encoder: ...


def _family(spec: EncoderSpec) -> _Family:
    family = _check(spec)
    if family not in _WITHOUT_TORCH:
        import_module("barycenter.fusion.torch_compat")
    return cast(_Family, import_module(f"barycenter.fusion.encoders.{_MODULES[family]}"))


def _check(spec: EncoderSpec) -> str:
    """Which family an encoder belongs to, after checks that need no file."""
    if spec.kind == "vector":
        return "vector"
    if not spec.encoder:
        raise JobError("encoder", f"a {spec.kind} input needs an encoder: a hub id, a local folder or builtin/<name>")
    if spec.dtype not in _DTYPES:
        raise JobError("dtype", f"{spec.dtype!r} is not one of {', '.join(_DTYPES)}")
    if spec.preprocessing is not None and spec.kind != "image":
        raise JobError("preprocessing", f"only image inputs have preprocessing, this one is {spec.kind}; remove it")
    family = spec.encoder.partition("/")[0]
    if family == "torchvision" and spec.kind != "image":
        raise JobError("encoder", f"{spec.encoder} encodes pictures, not a {spec.kind} input; take another encoder")
    if spec.weights is not None and family != "torchvision":
        raise JobError("weights", "only for torchvision/<architecture>; a transformers encoder is a folder or hub id")
    if spec.preprocessing is not None and family == "builtin":
        raise JobError("preprocessing", f"{spec.encoder} has its own and takes no other; remove it")
    return family if family in ("torchvision", "builtin") else spec.kind


def describe(spec: EncoderSpec) -> Description:
    """Says what an encoder will compute, from configurations, file headers and digests; loads no weights.

    Raises:
        JobError: The encoder, its weights or its preprocessing cannot be used; the key is relative to the input.
    """
    return _family(spec).describe(spec)


def fixed_batch_size(spec: EncoderSpec) -> int | None:
    """Rows a batch where there is nothing to try because no model is run; else None.

    >>> fixed_batch_size(EncoderSpec("text", "builtin/hashing")), fixed_batch_size(EncoderSpec("text", "some/model"))
    (256, None)
    """
    return _ROWS_WITHOUT_TORCH if _check(spec) in _WITHOUT_TORCH else None


def libraries_of(spec: EncoderSpec) -> tuple[str, ...]:
    """Distributions whose versions may move an encoder's vectors in their last digits; none for ready vectors.

    >>> libraries_of(EncoderSpec("image", "builtin/descriptor")), libraries_of(EncoderSpec("vector", None))
    (('numpy', 'pillow'), ())
    """
    family = _check(spec)
    return _LIBRARIES[f"builtin/{spec.kind}" if family == "builtin" else family]


def load(spec: EncoderSpec, *, device: str = "cpu") -> Encoder:
    """The encoder in eval mode with its weights, on a device by torch's name.

    Raises:
        JobError: As :func:`describe`.
    """
    return _family(spec).load(spec, device)
