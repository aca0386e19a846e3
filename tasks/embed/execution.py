"""How a worker runs an encoder: what is found by trying, and is no part of any id. Plain data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Execution:
    """How one input is encoded on one kind of machine.

    Attributes:
        batch: Rows, or tokens of text, the model reads at a time; None while it is yet to be found.
        threads: Threads of a worker.
        dtype: Number format of the model.
        device: ``cpu`` or ``cuda``.
        compiled: Whether the model is compiled. None is: with its batch normalizations folded, MobileNetV2 ran faster
            on two cores than compiled, and a compiler is one thing more that a machine must have.
        onednn: Whether linear layers run through oneDNN; None while it is yet to be found.
        model_threads: Threads that run the model; None: all of them.
    """

    batch: int | None
    threads: int
    dtype: str
    device: str
    compiled: bool = False
    onednn: bool | None = False
    model_threads: int | None = None

    @property
    def is_found(self) -> bool:
        """Whether nothing is left to be tried."""
        return self.batch is not None and self.onednn is not None
