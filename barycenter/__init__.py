"""Barycenter: paired corpora to one fused vector a row.

The public names are those of :mod:`barycenter.fusion`, which says what to start with; a name is imported when it is
first asked for.
"""

from typing import TYPE_CHECKING, Any

from barycenter import fusion
from barycenter.fusion import __all__

if TYPE_CHECKING:
    from barycenter.fusion import *  # noqa: F403

__all__ = list(__all__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(fusion, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
