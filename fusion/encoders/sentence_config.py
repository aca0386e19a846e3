"""How a model folder is to be used: sentence-transformers' ``modules.json`` and what it refers to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barycenter.fusion.errors import JobError

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODES = frozenset(_LEGACY_MODES.values())
_KINDS = ("Pooling", "Dense", "LayerNorm", "Normalize")
_SUPPORTED = (
    "supported are Transformer, CLIPModel, Pooling, Dense, LayerNorm, Normalize, Dropout of sentence_transformers"
)
_HARMLESS = frozenset({"torch_dtype", "dtype", "attn_implementation", "device_map", "trust_remote_code", "use_cache"})
_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")

TOKEN_EMBEDDINGS = "token_embeddings"
SENTENCE_EMBEDDING = "sentence_embedding"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty when the file is not there."""
    if not path.is_file():
        return {}
    loaded = json.loads(path.read_text("utf-8"))
    return loaded if isinstance(loaded, dict) else {}


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """Which of a model's outputs a folder takes for a text.

    Attributes:
        method: The model's method that is run.
        output: Keys that lead to the tensor in what the method returns; empty where it returns the tensor.
        pooled: Whether the tensor is one vector a text; else one a token.
    """

    method: str
    output: tuple[str, ...]
    pooled: bool


LAST_HIDDEN_STATE = ModelOutput("forward", ("last_hidden_state",), False)
PROJECTED_EMBEDDING = ModelOutput("get_text_features", ("pooler_output",), True)


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """How a model folder is to be used.

    Attributes:
        transformer: Folder of the transformer itself.
        max_length: Its own limit in tokens, or None to use the tokenizer's and the model's.
        lowercase: Whether texts are lower-cased first.
        pooling_modes: Poolings over tokens, concatenated; empty when the folder names none.
        prompt: Put before every text.
        include_prompt: Whether the prompt's tokens take part in pooling.
        steps: (module type, its folder) after the transformer, in order; Pooling among them.
        truncate_dim: Numbers kept of each vector; None: all.
        model_output: What is read of the model; None where the folder leaves it to the model's kind.
        pad_to_max_length: Whether the folder pads texts to the limit; only models without a mask (SigLIP) see it.
        unsupported: Why texts cannot be encoded as the folder asks, though its pictures might; else None.
    """

    transformer: Path
    max_length: int | None = None
    lowercase: bool = False
    pooling_modes: tuple[str, ...] = ()
    prompt: str = ""
    include_prompt: bool = True
    steps: tuple[tuple[str, Path], ...] = ()
    truncate_dim: int | None = None
    model_output: ModelOutput | None = None
    pad_to_max_length: bool = False
    unsupported: str | None = None


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Reads ``modules.json`` and what it refers to; a folder without it is pooled by mean.

    Raises:
        JobError: A module of a type that is not supported, or an unknown pooling.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return SentenceConfig(folder)
    pooling_modes: tuple[str, ...] = ()
    steps: list[tuple[str, Path]] = []
    first: str | None = None
    transformer, include_prompt = folder, True
    for entry in json.loads(listing.read_text("utf-8")):
        package, _, kind = str(entry["type"]).rpartition(".")
        path = _module_folder(folder, str(entry["path"]))
        ours = package.partition(".")[0] == "sentence_transformers"
        if ours and first is None and kind in ("Transformer", "CLIPModel"):
            first, transformer = kind, path
        elif ours and first is not None and kind in _KINDS:
            steps.append((kind, path))
            if kind == "Pooling":
                pooling_modes, include_prompt = read_pooling(path)
        elif not (ours and kind == "Dropout"):
            raise JobError("encoder", f"{folder.name} has a {entry['type']} module here; {_SUPPORTED}")
    config = next((c for c in (read_json(p) for p in sorted(transformer.glob("sentence_*_config.json"))) if c), {})
    whole = read_json(folder / "config_sentence_transformers.json")
    prompt = _prompt(folder, whole)
    model_output, unsupported = _requested_output(config, first == "CLIPModel")
    length, pad_to_max_length, unknown = _processing(config)
    length = config.get("max_seq_length") if length is None else length
    for key, value in {"max_seq_length": length, "truncate_dim": whole.get("truncate_dim")}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not value):
            raise JobError(
                "encoder",
                f"{folder.name} has {key} {value!r}, which is no number of tokens or of columns; correct its settings",
            )
    return SentenceConfig(
        transformer,
        length,
        bool(config.get("do_lower_case")),
        pooling_modes,
        prompt,
        include_prompt,
        tuple(steps),
        whole.get("truncate_dim"),
        model_output,
        pad_to_max_length,
        unsupported or unknown or _pooling_mismatch(model_output, steps),
    )


def _module_folder(folder: Path, path: str) -> Path:
    """A module's folder; one outside the model's is none of the files that its vectors are known by."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise JobError(
            "encoder", f"{folder.name} has a module outside its folder ({path!r} in modules.json); move it inside"
        )
    return folder / path


def _prompt(folder: Path, whole: Mapping[str, Any]) -> str:
    """The text put before every other."""
    prompts, name = whole.get("prompts") or {}, whole.get("default_prompt_name")
    if name is not None and name not in prompts:
        known = ", ".join(map(repr, prompts)) or "none"
        raise JobError(
            "encoder",
            f"{folder.name} has default_prompt_name {name!r}, but its prompts are {known}; correct its settings",
        )
    return str(prompts.get(name) or "")


def _requested_output(config: Mapping[str, Any], clip: bool) -> tuple[ModelOutput | None, str | None]:
    """What the transformer's own settings ask to be read for a text, or why that cannot be done."""
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        return None, f"its transformer_task is {task!r}; supported is 'feature-extraction'"
    if "modality_config" not in config:
        return PROJECTED_EMBEDDING if clip else LAST_HIDDEN_STATE, None
    modalities = config["modality_config"]
    if "message" in modalities:
        return None, (
            "its modality_config puts texts into a chat template (`message`), which is not supported; save the model "
            "with modality_config of `text` alone"
        )
    if "text" not in modalities:
        return None, f"its modality_config reads no text but {', '.join(modalities)}"
    names = modalities["text"].get("method_output_name")
    output = (names,) if isinstance(names, str) else tuple(names or ())
    made = config.get("module_output_name")
    if made not in (TOKEN_EMBEDDINGS, SENTENCE_EMBEDDING):
        return (
            None,
            f"its module_output_name is {made!r}; supported are '{TOKEN_EMBEDDINGS}' and '{SENTENCE_EMBEDDING}'",
        )
    return ModelOutput(modalities["text"].get("method", "forward"), output, made == SENTENCE_EMBEDDING), None


def _processing(config: Mapping[str, Any]) -> tuple[int | None, bool, str | None]:
    """Length and padding that a folder asks of its tokenizer, or which of its settings is not supported."""
    given = {key: config[key] for key in _ARGUMENTS if config.get(key)}
    for key, values in given.items():
        limits = {"model_max_length"} if key in ("tokenizer_args", "processor_kwargs") else set()
        if others := sorted(set(values) - _HARMLESS - limits):
            return None, False, f"its {key} has settings that are not supported: {', '.join(others)}"
    length = next((v["model_max_length"] for v in given.values() if "model_max_length" in v), None)
    asked = config.get("processing_kwargs") or {}
    text = {**(asked.get("common") or {}), **(asked.get("text") or {})}
    known = {"max_length", "padding", "truncation", "return_tensors", "logits_to_keep"}
    if others := sorted(set(text) - known) or sorted({"chat_template"} & set(asked)):
        return None, False, f"its processing_kwargs have settings that are not supported: {', '.join(others)}"
    if text.get("truncation", True) in (False, "do_not_truncate"):
        return None, False, "its processing_kwargs ask for texts that are not truncated, which is not supported"
    return text.get("max_length", length), text.get("padding") == "max_length", None


def _pooling_mismatch(model_output: ModelOutput | None, steps: list[tuple[str, Path]]) -> str | None:
    """Why output and steps do not fit: no Pooling where there is a vector a token, or one where there is one a text."""
    pooling = any(kind == "Pooling" for kind, _ in steps)
    if model_output is None or model_output.pooled != pooling:
        return None
    if pooling:
        return "its transformer gives one vector a text (module_output_name), which a Pooling module cannot pool"
    return "its modules.json has no Pooling module after the transformer, which gives one vector a token"


def read_pooling(path: Path) -> tuple[tuple[str, ...], bool]:
    """A Pooling module's modes, and whether the prompt's tokens take part.

    Raises:
        JobError: A mode that is not supported, or no settings.
    """
    config = read_json(path / "config.json")
    if not config:
        raise JobError("encoder", f"the Pooling module in {path.name} has no config.json; download the model again")
    if other := sorted(key for key in config if key.startswith("pooling_mode_") and key not in _LEGACY_MODES):
        raise JobError(
            "encoder", f"the Pooling module in {path.name} has an unknown setting {other[0]!r}; take another encoder"
        )
    pooling_modes = config.get("pooling_mode")
    if pooling_modes is None:
        pooling_modes = [mode for key, mode in _LEGACY_MODES.items() if config.get(key)] or ["mean"]
    chosen = (pooling_modes,) if isinstance(pooling_modes, str) else tuple(pooling_modes)
    if unknown := [mode for mode in chosen if mode not in _MODES]:
        raise JobError("encoder", f"pooling {unknown[0]!r} is not supported; there are {', '.join(sorted(_MODES))}")
    return chosen, bool(config.get("include_prompt", True))
