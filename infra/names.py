"""Names as other systems take them: Ray's metrics and actors, job ids, deployments."""

import hashlib
import re

_LONGEST = 60


def _with_hash(plain: str, name: str) -> str:
    """The plain form of a name; with a piece of the name's hash where the two differ."""
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:6]}"


def identifier(name: str) -> str:
    """A name of ASCII letters, digits, ``-`` and ``_``; what had to change keeps apart by a piece of its hash.

    >>> identifier("emoji-2"), identifier("Möbel")
    ('emoji-2', 'M-bel-c895b2')
    """
    return _with_hash(re.sub(r"[^A-Za-z0-9_-]", "-", name)[:_LONGEST], name)


def printable(name: str) -> str:
    """A name of printable ASCII, which is all that Ray's metrics take; an ASCII name stays as it is.

    >>> printable("a run of Möbel"), printable("a run")
    ('a run of M-bel-9c9141', 'a run')
    """
    return _with_hash(re.sub(r"[^ -~]", "-", name), name)
