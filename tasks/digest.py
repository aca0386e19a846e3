"""Content hashes that name what a run keeps."""

import hashlib
import json


def digest(*parts: object) -> str:
    """A short content hash of JSON-able parts, the same in every process."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
