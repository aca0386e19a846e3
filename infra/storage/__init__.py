"""Files of the output, local or behind any fsspec URI: no file is ever seen half."""

from barycenter.infra.storage.storage import Storage

__all__ = ["Storage"]
