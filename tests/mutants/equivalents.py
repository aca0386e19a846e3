"""The changes that no test can notice, each with its reason."""

from pathlib import Path
from typing import Self

import yaml

from tests.mutants.mutations import Mutant

_FILE = Path(__file__).with_name("equivalent.yaml")


class Equivalents:
    """What ``equivalent.yaml`` lists: ``{reason: {file: [[before, after], ...]}}``."""

    def __init__(self, reasons: dict[str, dict[str, list[list[str]]]]) -> None:
        self.changes = {
            (file, before, after): reason
            for reason, files in reasons.items()
            for file, pairs in files.items()
            for before, after in pairs
        }

    @classmethod
    def read(cls) -> Self:
        """Those of the file."""
        return cls(yaml.safe_load(_FILE.read_text()) or {})

    def __contains__(self, mutant: Mutant) -> bool:
        return mutant.change in self.changes
