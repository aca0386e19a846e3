"""transformers models as local folders: found, fetched, digested, and their errors reported in one line."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging

from barycenter.fusion.encoders.base import EncoderSpec
from barycenter.fusion.encoders.fingerprint import files_digest
from barycenter.fusion.errors import JobError

logging.set_verbosity_error()
logging.disable_progress_bar()

_MODEL_FILES = (
    "*config*.json", "modules.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "*.model", "*.safetensors", "*.safetensors.index.json",
)  # fmt: skip
_PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_OTHER_RUNTIMES = ["onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.h5", "*.msgpack", "*.ot"]


def model_folder(spec: EncoderSpec) -> Path:
    """The local folder of a transformers model: the one named, or the hub's snapshot in its cache.

    Raises:
        JobError: Nothing of that name is on this machine or the hub, or the hub cannot be reached.
    """
    name = spec.encoder or ""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _check_model_folder(folder)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise JobError("encoder", f"no such folder: {name}; correct the path, or give a hub id")
    code = ["*.py"] if spec.trust_remote_code else []
    try:
        fetched = snapshot_download(
            name,
            allow_patterns=[
                *_MODEL_FILES,
                *_PICKLED_WEIGHTS,
                *code,
                "*/*.json",
                "*/*.safetensors",
                "*/pytorch_model.bin",
            ],
            ignore_patterns=_OTHER_RUNTIMES,
        )
    except RepositoryNotFoundError:
        raise JobError(
            "encoder",
            f"{name!r} is neither a local folder nor a model that the hub shows you; a private one needs HF_TOKEN",
        ) from None
    except HFValidationError:
        raise JobError("encoder", f"{name!r} is neither a local folder nor a hub id; correct it") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise JobError(
            "encoder",
            f"the hub cannot be reached for {name!r} ({type(error).__name__}) and it is not in the local cache; "
            "download the model elsewhere and give the path of its folder",
        ) from None
    return _check_model_folder(Path(fetched))


def _check_model_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise JobError("encoder", f"{folder} is no folder of a model: it holds neither config.json nor modules.json")
    return folder


def model_digest(folder: Path, trust_remote_code: bool) -> str:
    """Digest of every file that a model's vectors can depend on."""
    patterns = [*_MODEL_FILES, *(["*.py"] if trust_remote_code else [])]
    files = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    stored = {path.parent for path in files if path.suffix == ".safetensors"}
    old = {path for pattern in _PICKLED_WEIGHTS for path in folder.rglob(pattern)}
    files |= {path for path in old if path.parent not in stored}
    kept = [
        path
        for path in files
        if not any(path.match(pattern) for pattern in _OTHER_RUNTIMES) and "/." not in str(path.relative_to(folder))
    ]
    return files_digest(folder, kept)


@contextmanager
def encoder_errors(key: str, what: str) -> Iterator[None]:
    """Turns whatever transformers raises about a model folder into one line under ``key``."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:  # noqa: BLE001 - configurations and tokenizers raise anything on odd folders
        line = _ESCAPES.sub("", str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if isinstance(error, KeyError):
            line = f"there is no {line}"
        if "trust_remote_code" in str(error):
            line = "it carries its own code; set trust_remote_code: true if you trust it"
        raise JobError(key, f"{what}: {line}") from None


def read_config(folder: Path, spec: EncoderSpec) -> Any:
    """A model's configuration.

    Raises:
        JobError: It is missing, unreadable or needs code that is not trusted.
    """
    with encoder_errors("encoder", f"{spec.encoder} has no usable config.json"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)


def model_without_weights(
    auto: Any, config: Any, spec: EncoderSpec, device: str = "meta", **arguments: Any
) -> nn.Module:
    """The model's modules on the meta device: shapes without weights. On another device weights are drawn.

    Args:
        auto: An auto class or a model class of transformers.
        config: The model's configuration.
        spec: Its specification.
        device: Where.
        arguments: Further arguments of the model's class.
    """
    with encoder_errors("encoder", f"{spec.encoder} cannot be built"), torch.device(device):
        options = {"trust_remote_code": spec.trust_remote_code} if hasattr(auto, "_model_mapping") else {}
        build = auto.from_config if hasattr(auto, "from_config") else auto._from_config
        model: nn.Module = build(config, **options, **arguments)
    return model.eval()


def hidden_size_without_weights(auto: Any, spec: EncoderSpec, config: Any) -> tuple[nn.Module, int]:
    """The model's modules without weights, and the width of its states as its configuration has it."""
    model = model_without_weights(auto, config, spec)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return model, int(text.hidden_size)


def fits_memory(folder: Path) -> bool:
    """Whether a model's weights, in float32, fit half of the memory that is free; where that is not known they do."""
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return True
    return 2 * sum(path.stat().st_size for path in files) <= free // 2


def attention_reset(model: Any) -> Callable[[int], None] | None:
    """Undoes, before a run on texts of a length, what a model settled for good on a shorter one; None: nothing to do.

    BigBird leaves its sparse attention for ever once it has read one short text.
    """
    config: Any = getattr(model, "config", None)
    switching = next(
        (part for part in (model, getattr(model, "encoder", None)) if hasattr(part, "set_attention_type")), None
    )
    if switching is None or getattr(config, "attention_type", None) != "block_sparse":
        return None
    least = (5 + 2 * config.num_random_blocks) * config.block_size
    return lambda length: switching.set_attention_type("block_sparse") if length > least else None


def is_stateful(model: nn.Module, spec: EncoderSpec) -> bool:
    """Whether running the model may change it, so that two threads must not.

    Code of its own can do anything; some rotary embeddings follow the longest text read so far; recurrent layers keep
    their state.
    """
    if spec.trust_remote_code or getattr(getattr(model, "config", None), "model_type", None) == "recurrent_gemma":
        return True
    return bool(rope_types(model) & {"dynamic", "longrope"})


def rope_types(model: nn.Module) -> set[str]:
    """How a model's rotary embeddings follow the length of what is read; those of ``longrope`` that of the batch."""
    kinds = [getattr(module, "rope_type", None) for module in model.modules()]
    named = [name for kind in kinds for name in (kind.values() if isinstance(kind, dict) else (kind,))]
    return {name for name in named if isinstance(name, str)}


def load_model(
    auto: Any, folder: Path, spec: EncoderSpec, optional: tuple[str, ...], **arguments: Any
) -> tuple[nn.Module, set[str]]:
    """A model with its weights in ``spec.dtype``, and the names of weights the folder did not have.

    Args:
        auto: An auto class or a model class of transformers.
        folder: The model's folder.
        spec: Its specification.
        optional: Parts of a name that mark weights the caller can do without.
        arguments: Further arguments of the model's class.

    Raises:
        JobError: The weights cannot be read, needed ones are missing, or the folder holds an adapter.
    """
    if (folder / "adapter_config.json").is_file():
        raise JobError(
            "encoder",
            f"{spec.encoder} holds an adapter (adapter_config.json), which is not supported; merge it into its model "
            "(peft's merge_and_unload) and save that",
        )
    if hasattr(auto, "_model_mapping"):
        arguments["trust_remote_code"] = spec.trust_remote_code
    with encoder_errors("encoder", f"{spec.encoder} cannot be loaded"):
        model, report = auto.from_pretrained(
            folder, dtype=getattr(torch, spec.dtype), output_loading_info=True, weights_only=True, **arguments
        )
    missing = set(report["missing_keys"])
    needed = sorted(key for key in missing if not any(part in key for part in optional))
    wrong = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if needed or wrong:
        raise JobError(
            "encoder",
            f"{spec.encoder} lacks weights its config.json asks for: {', '.join((needed + wrong)[:3])}; download the "
            "model again",
        )
    _set_output_options(model.config)
    return model.eval().requires_grad_(False), missing


def _set_output_options(config: Any) -> None:
    """Outputs are read by name, whatever the folder says, and keys and values are of no use after a run.

    Some models refuse to keep those of a text that is not generated.
    """
    if hasattr(config, "return_dict"):
        config.return_dict = True
    if hasattr(config, "use_cache"):
        config.use_cache = False
    for name in getattr(config, "sub_configs", ()):
        if getattr(config, name, None) is not None:
            _set_output_options(getattr(config, name))
