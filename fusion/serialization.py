"""Files of fitted estimators: a JSON header and safetensors arrays. Parameters may be NumPy's numbers."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError


def dumps(value: Any) -> str:
    """Indented JSON; NumPy's scalars and arrays become plain numbers and lists.

    >>> dumps([np.int64(2), np.float32(0.5), np.bool_(True)]).split()
    ['[', '2,', '0.5,', 'true', ']']
    """
    return json.dumps(value, indent=1, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def save_estimator(
    directory: str | Path,
    name: str,
    header: dict[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    checksum: bool = False,
) -> None:
    """Writes ``{name}.safetensors`` and ``{name}.json``: the same values give the same bytes.

    Args:
        directory: Made where it does not exist.
        name: Of both files.
        header: With ``format`` and ``version``.
        arrays: By name.
        checksum: Whether the header also holds the SHA-256 of the arrays, and ends its file with a newline.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    payload = safetensors.numpy.save({key: np.asarray(array, order="C") for key, array in arrays.items()})
    text = dumps(header | {"sha256": hashlib.sha256(payload).hexdigest()}) + "\n" if checksum else dumps(header)
    (folder / f"{name}.safetensors").write_bytes(payload)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def load_header(directory: str | Path, name: str) -> dict[str, Any]:
    """The JSON header that :func:`save_estimator` wrote.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    try:
        header = json.loads((Path(directory) / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{directory}: no readable {name}: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{directory}: no readable {name}: its JSON is no object")
    return header


def load_estimator(
    directory: str | Path, name: str, format_name: str, version: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and arrays that :func:`save_estimator` wrote.

    Raises:
        ValueError: If the files cannot be read, are of another format or version, or are damaged.
    """
    folder, header = Path(directory), load_header(directory, name)
    if header.get("format") != format_name:
        raise ValueError(f"{folder}: {name}.json is not of format {format_name}")
    if header.get("version") != version:
        raise ValueError(f"{folder}: format version {header.get('version')}; this code reads {version}")
    try:
        payload = (folder / f"{name}.safetensors").read_bytes()
        if "sha256" in header and hashlib.sha256(payload).hexdigest() != header["sha256"]:
            raise ValueError(f"{folder}: {name}.safetensors is damaged or not the one that {name}.json describes")
        return header, safetensors.numpy.load(payload)
    except OSError as error:
        raise ValueError(f"{folder}: no readable {name}: {error}") from error
    except SafetensorError as error:
        raise ValueError(f"{folder}: {name}.safetensors: not a safetensors file: {error}") from error


def load_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file.

    Raises:
        ValueError: If it is none.
    """
    try:
        return dict(safetensors.numpy.load_file(str(path)))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from error
