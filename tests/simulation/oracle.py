"""What must hold of an output after every step, whoever does what to it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from barycenter.infra.versions.lease import COLLECTOR_PATIENCE, TERM_SECONDS
from barycenter.infra.versions.manifests import COLLECTED
from tests.simulation.job import rows_of

POINTER = "manifest.json"
MOST_STEPS_AGO = 40
"""Steps, tries of failing requests among them, that a commit may come after its process looked who holds the output."""


class Oracle:
    """Watches every file that appears, changes or goes.

    Args:
        peek: Content of a file without a step, None if there is none.
        violated: Called with the name of an invariant and what broke it.
        keeps: How many of the newest versions the running process must leave; 0 where it must leave all.
        last_look: The running process, and how many steps ago it looked who holds the output.
        now: The time.
        lives: Whether a process does.

    Attributes:
        manifests: Committed and not collected, by number.
        collected: Numbers that were collected.
        checks: How often each invariant was looked at.
        patience: Seconds without a new term after which a lease may be taken over.
    """

    def __init__(
        self,
        peek: Callable[[str], bytes | None],
        violated: Callable[[str, str], None],
        keeps: Callable[[], int],
        last_look: Callable[[], tuple[str, int]],
        now: Callable[[], float],
        lives: Callable[[str], bool],
    ) -> None:
        self._now, self._lives = now, lives
        self.patience = TERM_SECONDS
        self._newest_term: tuple[int, float, dict[str, Any]] = (0, 0.0, {})
        self._peek, self._violated, self._keeps, self._last_look = peek, violated, keeps, last_look
        self._terms: dict[int, str] = {}
        self.manifests: dict[int, dict[str, Any]] = {}
        self.collected: set[int] = set()
        self._deleted: set[int] = set()
        self.checks: Counter[str] = Counter()
        self._parents: set[int] = set()
        self._owners: dict[str, set[int]] = {}
        self._content: dict[str, tuple[Any, ...]] = {}
        self._promotions: dict[int, dict[str, int]] = {}
        self._to_be_shown: list[int | None] = [None]
        self._shown_at = 0
        self.shown: int | None = None
        self._pinned: set[int] = set()

    def load(self, contents: Mapping[str, bytes]) -> None:
        """Takes what is stored for given: at the beginning, and after the power has gone."""
        self.manifests, self._owners, self._content, self._promotions = {}, {}, {}, {}
        self._parents, self._deleted = set(), set(json.loads(contents.get(COLLECTED, b'{"versions": []}'))["versions"])
        for path in sorted(contents, key=lambda each: (len(each), each)):
            if path.endswith(".json") and contents[path] and not _is_json(contents[path]):
                self._violated("whole", f"{path} is torn")
            self._noticed(path, contents[path])
        self._to_be_shown, self._shown_at = [self._rule()], 0
        self._newest_term = (0, 0.0, {})
        pointer = contents.get(POINTER)
        self.shown = None if pointer is None else int(json.loads(pointer)["number"])

    def changed(self, path: str, before: bytes | None, after: bytes | None) -> None:
        """One file appeared, changed or went."""
        if path in self._owners and after != before:
            self._listed(path, after)
        top, _, name = path.rpartition("/")
        number = int(name.removesuffix(".json")) if name.removesuffix(".json").isdecimal() else 0
        if path == POINTER:
            self._pointer(after)
        elif path == COLLECTED and after:
            self._deleted = set(json.loads(after)["versions"])
            for each in self._deleted & self.manifests.keys():
                self._collect(each)
        elif top == "manifests" and number:
            self._manifest(number, before, after)
        elif top == "lease" and number and after:
            self._term(number, json.loads(after))
        elif top == "promotions" and number and after:
            self._noticed(path, after)
            self._to_be_shown.append(self._rule())

    def reader_missed(self, number: int, path: str) -> None:
        """A reader did not find a file of a version that it had opened."""
        self.checks["a reader finds every file"] += 1
        if number not in self.collected:
            self._violated("missing file", f"a reader of version {number}, which is kept, did not find {path}")

    def reader_read(self, number: int, path: str, sha256: str, content: bytes) -> None:
        """A reader has read a file of a version."""
        self.checks["a reader sees no mixture"] += 1
        if hashlib.sha256(content).hexdigest() != sha256:
            self._violated("mixture", f"{path} is not what version {number} lists")

    def pinned(self, number: int) -> None:
        """Somebody was answered that a version is pinned."""
        self.checks["what is pinned is kept"] += 1
        self._pinned.add(number)
        if number not in self.manifests:
            self._violated("pinned", f"version {number} was answered as pinned and is not there")

    def check_shown(self) -> None:
        """Once everybody is done, readers see what they should."""
        self.checks["readers see the right version in the end"] += 1
        if self.shown != self._rule():
            self._violated("pointer", f"readers see version {self.shown}, they should see {self._rule()}")

    def check_committed(self, number: int) -> None:
        """Somebody was answered that a version is committed."""
        self.checks["what is answered as committed is there"] += 1
        if number not in self.manifests and number not in self.collected:
            self._violated("durable", f"version {number} was answered as committed and is not there")

    def check_all(self) -> None:
        """Every version that is there verifies."""
        for number, manifest in self.manifests.items():
            self._verify(number, manifest)

    def _noticed(self, path: str, content: bytes) -> None:
        top, _, name = path.rpartition("/")
        number = int(name.removesuffix(".json")) if name.removesuffix(".json").isdecimal() else 0
        if top == "manifests" and number and content and number not in self._deleted:
            manifest = json.loads(content)
            self.manifests[number] = manifest
            self._parents.add(manifest["parent"] or 0)
            for file in self.paths(manifest):
                self._owners.setdefault(file, set()).add(number)
            self._content.setdefault(manifest["version"], _identity(manifest))
        if top == "promotions" and number and content:
            self._promotions[number] = json.loads(content)

    @staticmethod
    def paths(manifest: Mapping[str, Any]) -> list[str]:
        """Every file that a manifest lists."""
        return [*(file["path"] for file in manifest["files"]), *manifest["rejects"]]

    def _rule(self) -> int | None:
        """The version that readers should see."""
        shown = [number for number, manifest in self.manifests.items() if manifest["promote"] == "auto"]
        newest = max(shown, default=None)
        if self._promotions:
            promoted = self._promotions[max(self._promotions)]
            if promoted["after"] >= (newest or 0):
                return promoted["version"]
        return newest

    def _manifest(self, number: int, before: bytes | None, after: bytes | None) -> None:
        if number in self._deleted:
            return
        if before:
            if after:
                self._violated("immutable", f"manifests/{number}.json was replaced")
            self._collect(number)
            return
        if not after:
            return
        self.checks["no two writers commit on one parent"] += 1
        manifest = json.loads(after)
        parent = manifest["parent"] or 0
        newest = max(self.manifests, default=0)
        if parent != newest or parent in self._parents or number <= newest or manifest["number"] != number:
            self._violated("one parent", f"version {number} was committed on {parent}, the newest is {newest}")
        if newest and manifest["term"] < self.manifests[newest]["term"]:
            self._violated("terms", f"version {number} was committed under an older term than version {newest}")
        self._refused(number, manifest["term"])
        rows = manifest["rows"]
        self.checks["read = written + rejected"] += 1
        if rows["read"] != rows["written"] + rows["rejected"] or rows["written"] != sum(
            file["rows"] for file in manifest["files"]
        ):
            self._violated("rows", f"version {number}: {rows}")
        self._noticed(f"manifests/{number}.json", after)
        self._verify(number, manifest)
        self._named(number, manifest)
        self._to_be_shown.append(self._rule())

    def _term(self, number: int, term: dict[str, Any]) -> None:
        """A lease is taken over only from the dead, and from those who did not renew it in time."""
        self.checks["a lease is taken over from the dead and the late"] += 1
        self._terms.setdefault(number, term["process"])
        newest, since, before = self._newest_term
        if number <= newest:
            return
        patience = self.patience * (COLLECTOR_PATIENCE if before.get("deletes") else 1)
        holds = before and not before["released"] and before["holder"] != term["holder"]
        if holds and self._lives(before["process"]) and self._now() - since < patience:
            self._violated("taken over", f"{term['process']} took the lease of {before['process']}, which renewed it")
        self._newest_term = (number, self._now(), term)

    def _refused(self, number: int, term: int) -> None:
        """A newer term refuses a commit, but for one that came between the look and the commit."""
        self.checks["a newer term refuses a commit"] += 1
        holder, (process, ago) = self._terms.get(term), self._last_look()
        if self._terms and self._terms[max(self._terms)] != holder and process == holder and ago > MOST_STEPS_AGO:
            self._violated("terms", f"version {number} was committed under term {term}, which had been taken over")

    def check_refusal(self, process: str, number: int) -> None:
        """A process was answered that another one committed a version."""
        self.checks["a refused commit is not one's own"] += 1
        if number in self.manifests and self._terms.get(self.manifests[number]["term"]) == process:
            self._violated("refusal", f"{process} was answered that another committed version {number}, its own")

    def _named(self, number: int, manifest: Mapping[str, Any]) -> None:
        """Of the versions that are there, those with one id have one content."""
        if self._content[manifest["version"]] != _identity(manifest):
            self._violated("identity", f"version {number}: its id {manifest['version']} names two contents")

    def _verify(self, number: int, manifest: Mapping[str, Any]) -> None:
        self.checks["what is committed verifies"] += 1
        for file in manifest["files"]:
            content = self._peek(file["path"])
            if content is None or hashlib.sha256(content).hexdigest() != file["sha256"]:
                state = "is not there" if content is None else "has another content"
                self._violated("verifies", f"version {number} lists {file['path']}, which {state}")
            elif rows_of(content) != file["rows"]:
                self._violated("verifies", f"version {number}: {file['path']} holds {rows_of(content)} rows")
        for path in manifest["rejects"]:
            if self._peek(path) is None:
                self._violated("verifies", f"version {number} lists {path}, which is not there")

    def _pointer(self, after: bytes | None) -> None:
        self.checks["readers see a committed version"] += 1
        if after is None:
            self._violated("pointer", f"{POINTER} was deleted")
            return
        body = json.loads(after)
        body.pop("promotion", None)
        number = int(body["number"])
        if number not in self.manifests or body != self.manifests[number]:
            self._violated("pointer", f"{POINTER} names version {number}, which is not committed")
        later = [place for place in range(self._shown_at, len(self._to_be_shown)) if self._to_be_shown[place] == number]
        if not later:
            self._violated("pointer", f"{POINTER} went back from version {self.shown} to {number}")
        else:
            self._shown_at = later[0]
        self.shown = number

    def _listed(self, path: str, after: bytes | None) -> None:
        """A file of a committed version changed."""
        self.checks["files of a version stay as they are"] += 1
        for number in self._owners[path]:
            what = "was deleted" if after is None else "was replaced by another content"
            self._violated("kept", f"{path} {what}, version {number} lists it")

    def _collect(self, number: int) -> None:
        self.checks["only what is not kept is collected"] += 1
        keeps = self._keeps()
        newest = sorted(self.manifests)[-keeps:] if keeps else list(self.manifests)
        if number in newest or number in {self.shown, self._rule(), *self._pinned}:
            self._violated("kept", f"version {number} was collected; readers see {self.shown}, the newest: {newest}")
        for path in self.paths(self.manifests.pop(number)):
            self._owners[path].discard(number)
            if not self._owners[path]:
                del self._owners[path]
        self._content = {
            manifest["version"]: self._content[manifest["version"]] for manifest in self.manifests.values()
        }
        self.collected.add(number)


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _identity(manifest: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a version id must name once and for all."""
    return tuple((file["path"], file["sha256"]) for file in manifest["files"]), manifest["rows"]["written"]
