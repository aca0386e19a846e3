"""Every text architecture of transformers that builds a tiny random model, beside sentence-transformers."""

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tests.sweep.tiny as tiny
from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.batch_check import relative_difference
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.encoders.text.architecture import _ENCODERS as ENCODERS
from barycenter.fusion.errors import JobError
from tests.sweep import sizes, subprocesses

_PRELOADED = (
    "sentence_transformers.models",
    "transformers.models.auto.modeling_auto",
    "barycenter.fusion.encoders.text.encoder",
)
"""Imported once, before the processes of the architectures are forked."""

TOLERANCE = 1e-4
SECONDS = 90
TOWERS = ("clip_text_model", "siglip_text_model")
TEXTS = (
    "a red crab", "sun", "The BLUE boat is near a large house", "sky over the house and the boat and the crab in",
    "unheard words and a tiny crab", "green " * 30, "boat near crab",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one architecture or folder.

    Attributes:
        name: Its name.
        status: ``equal``, ``refused``, ``differs``, or ``not built``: the library gives no vector for a text.
        detail: How equal texts are run, or the cause.
        steady: Whether the library's own vectors do not depend on the batch.
    """

    name: str
    status: str
    detail: str
    steady: bool = True


def names() -> list[str]:
    """Model types of transformers' AutoModel mapping."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def sweep(chosen: list[str]) -> Iterator[Found]:
    """Tries architectures one after another, each in a process of its own for at most :data:`SECONDS`."""
    for module in _PRELOADED:
        import_module(module)
    for name, found in subprocesses.run_each(_tried, chosen, seconds=SECONDS):
        yield Found(name, "not built", found) if isinstance(found, str) else found


def _tried(name: str) -> Found:
    """Makes the configuration smaller in one way after another, until the library gives a vector."""
    from transformers import CONFIG_MAPPING

    warnings.simplefilter("ignore")
    causes: list[str] = []
    try:
        ways = list(sizes.configs(CONFIG_MAPPING[name]))
    except Exception as error:  # noqa: BLE001 - some have no configuration without arguments
        return Found(name, "not built", line(error))
    for make in ways:
        with tempfile.TemporaryDirectory() as folder:
            try:
                library = _saved(name, make(), Path(folder))
                alone = np.stack([library.encode(text) for text in TEXTS])
                if not np.isfinite(alone).all():
                    raise ValueError("the library's own vectors are not finite")
            except Exception as error:  # noqa: BLE001 - an architecture may fail in any way before it reads a text
                causes.append(line(error).replace(folder, "it"))
                if isinstance(error, ImportError):
                    break
                continue
            return compare(name, Path(folder), alone, library.encode(list(TEXTS)))
    return Found(name, "not built", causes[-1])


def _saved(name: str, config: Any, folder: Path) -> Any:
    """Saves a random model of a configuration with a tokenizer; the library on it."""
    from transformers import AutoModel

    model = tiny.build(AutoModel, config, folder)
    if ENCODERS.get(name, "").endswith("Encoder"):
        model.get_encoder().save_pretrained(folder)
    tiny.save_tokenizer(folder)
    try:
        library = library_of(folder)
        library.encode(TEXTS[0])
        return library
    except Exception:  # noqa: BLE001 - it wants a processor of pictures or sounds beside the tokenizer, or knows it not
        return Plain(folder)


def library_of(folder: Path) -> Any:
    """sentence-transformers on a folder of a transformer alone, its token states averaged."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import AutoConfig, AutoModel

    if AutoConfig.from_pretrained(folder).model_type not in ENCODERS:
        model = AutoModel.from_pretrained(folder).eval()
        if hasattr(model, "get_text_features") or model.config.model_type in TOWERS:
            return Tower(model, folder)
    transformer = Transformer(str(folder))
    if transformer.module_output_name == "sentence_embedding":
        return SentenceTransformer(modules=[transformer], device="cpu")
    ids = transformer.preprocess(["a red crab"])
    width = int(transformer.eval()(ids)["token_embeddings"].shape[-1])
    return SentenceTransformer(modules=[transformer, Pooling(width, "mean")], device="cpu")


class Tower:
    """The text tower of a model of texts and pictures, as transformers run it; SigLIP pads to its full length."""

    def __init__(self, model: Any, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._model, self._tokenizer = model, AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: str | list[str]) -> np.ndarray:
        """(d,) of a text, (n, d) of a list."""
        several = [texts] if isinstance(texts, str) else texts
        full = self._model.config.model_type.startswith("siglip")
        given = self._tokenizer(several, padding="max_length" if full else True, truncation=True, return_tensors="pt")
        ids = {"input_ids": given["input_ids"], **({} if full else {"attention_mask": given["attention_mask"]})}
        with torch.inference_mode():
            run = getattr(self._model, "get_text_features", self._model)
            output = run(**ids)
        vectors = (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()
        if self._model.config.model_type == "flava":
            vectors = vectors[:, 0]
        if vectors.ndim != 2:
            raise ValueError("the library gives a text more than one vector")
        return vectors[0] if isinstance(texts, str) else vectors


class Plain:
    """A model as transformers run it on token ids: the mean of its last states, else its one vector a text."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._model = AutoModel.from_pretrained(folder).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: str | list[str]) -> np.ndarray:
        """(d,) of a text, (n, d) of a list."""
        several = [texts] if isinstance(texts, str) else texts
        given = self._tokenizer(several, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            output = self._model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
        states = getattr(output, "last_hidden_state", None)
        if states is None:
            vectors = output.pooler_output
        else:
            mask = given["attention_mask"][:, :, None].float()
            if states.ndim != 3 or states.shape[1] != mask.shape[1]:
                raise ValueError("its last states are not one a token")
            vectors = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return vectors[0].numpy() if isinstance(texts, str) else vectors.numpy()


def compare(name: str, folder: Path, alone: np.ndarray, together: np.ndarray) -> Found:
    """Ours beside the library's vectors of each text by itself: alone, and in batches of several sizes."""
    steady = relative_difference(alone, together) <= TOLERANCE
    spec = EncoderSpec("text", str(folder))
    try:
        described = describe(spec)
        encoder = load(spec)
    except JobError as error:
        return Found(name, "refused", error.problem.replace(str(folder), "it"), steady)
    except Exception as error:  # noqa: BLE001 - shown in the table
        return Found(name, "differs", f"fails: {line(error)}", steady)
    gaps = []
    for batch in (1, 24, 100_000):
        result = embed(encoder, list(TEXTS), batch_size=batch, threads=1)
        gaps.append(relative_difference(alone, np.where(result.ok[:, None], result.vectors, np.nan)))
    if described.dim != alone.shape[1] or max(gaps) > TOLERANCE:
        return Found(name, "differs", f"by {max(gaps):.1e} of a vector's length", steady)
    return Found(name, "equal", str(described.fingerprint.get("together", "padded")), steady)


def line(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:160]}"
