"""Checkpoints of a training in the run's storage, local or S3: one safetensors file each, its JSON in the header."""

import json

import safetensors.torch
from safetensors import SafetensorError

from barycenter.fusion.errors import RunError
from barycenter.fusion.training.context import Checkpoint
from barycenter.infra.storage import Storage

_DONE = "trained.safetensors"


class CheckpointStore:
    """The checkpoints of one training, in its folder of the storage; a small picklable value."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint and removes older ones."""
        older = self._saved()
        path = f"{self._folder}/checkpoint-{checkpoint.step:010d}.safetensors"
        self._write(path, checkpoint)
        self._storage.remove([old for old in older if old != path])

    def newest(self) -> Checkpoint | None:
        """The newest, or None."""
        saved = self._saved()
        return self._read(saved[-1]) if saved else None

    def step(self) -> int:
        """The step of the newest, or -1."""
        saved = self._saved()
        return int(saved[-1].rpartition("-")[2].partition(".")[0]) if saved else -1

    def finish(self, checkpoint: Checkpoint) -> None:
        """Writes the result."""
        self._write(f"{self._folder}/{_DONE}", checkpoint)

    def done(self) -> Checkpoint | None:
        """The result, if there is one."""
        path = f"{self._folder}/{_DONE}"
        return self._read(path) if self._storage.exists(path) else None

    def clear(self) -> None:
        """Removes what is not needed beside a result."""
        self._storage.remove(self._saved())

    def _saved(self) -> list[str]:
        paths = self._storage.list(self._folder)
        return [path for path in paths if path.rpartition("/")[2].startswith("checkpoint-")]

    def _write(self, path: str, checkpoint: Checkpoint) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        header = {"step": str(checkpoint.step), "state": json.dumps(checkpoint.state)}
        self._storage.write(path, safetensors.torch.save(tensors, metadata=header))

    def _read(self, path: str) -> Checkpoint:
        content = self._storage.read(path)
        try:
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])["__metadata__"]
            return Checkpoint(int(header["step"]), safetensors.torch.load(content), json.loads(header["state"]))
        except (ValueError, KeyError, SafetensorError) as error:
            raise RunError(
                f"{self._storage.uri(path)} is no checkpoint of a training ({error}); delete it and run again"
            ) from error
