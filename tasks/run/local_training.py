"""Training in the calling process, which stops when the time of the run is over."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from torch import nn

from barycenter.fusion.training.context import LocalContext
from barycenter.infra.deadline import check_deadline


class StoppableContext(LocalContext):
    """A training's context that looks at the deadline whenever the module computes; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()

    def prepare_module(self, module: nn.Module) -> nn.Module:
        """See :class:`~barycenter.fusion.training.context.TrainingContext`."""
        self._hooks.callback(module.register_forward_pre_hook(lambda *_: check_deadline()).remove)
        return super().prepare_module(module)
