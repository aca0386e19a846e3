"""Content hashes that name what a run keeps."""

import hashlib
import json


def digest(*parts: object) -> str:
    """A short content hash of JSON-able parts, the same in every process.

    NumPy's numbers count as Python's. Anything else that is not JSON is refused: its text may hold an address.

    Raises:
        TypeError: A part is not JSON-able.
    """
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _plain(value: object) -> object:
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in an identity: {value!r:.80}")
