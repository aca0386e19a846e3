"""One writer per output: its lease, in numbered terms that are made once and never changed.

``lease/<term>.json`` with the highest number says who holds the output. The holder makes the next term four times in a
term's length; so whoever watches and sees none for that long, on a monotonic clock of its own, may make the next one.
No clock of another machine is believed. A file system or object store that makes a file only if there is none is all
that this needs.
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self, TypeAlias

from barycenter.fusion.errors import BusyError, RunError
from barycenter.infra.clock import current_clock, utc_now
from barycenter.infra.deadline import check_deadline
from barycenter.infra.storage.storage import MissingFileError, Storage
from barycenter.infra.versions.numbered import numbered_files, numbered_path
from barycenter.infra.versions.processes import describe_process, process_id, process_lives

log = logging.getLogger(__name__)

TERM_SECONDS = 60.0
"""Seconds without a new term after which the holder counts as gone."""

RENEWALS = 4
"""Terms that a holder makes in ``TERM_SECONDS``."""

COLLECTOR_PATIENCE = 10
"""How many times longer a holder that deletes files is waited for: no storage refuses a deletion that comes late."""

Busy: TypeAlias = Literal["wait", "skip", "fail"]

_FOLDER = "lease"
_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 0.01
_SAY_SECONDS = 60.0


@dataclass(frozen=True)
class Term:
    """One term of a lease.

    Attributes:
        number: Its place in the order of all terms of this output.
        holder: Random name of the holder.
        who: The process, for people.
        purpose: What the output is held for, such as ``run emoji``.
        since: When this holder took the output, in UTC.
        process: The process, for other processes of its machine; empty where that cannot be known.
        deletes: Whether the holder deletes files that others might use.
        released: Whether the holder is done.
        unfenced: Whether a holder was given up before this term, so that a commit of its may still come.
    """

    number: int
    holder: str
    who: str
    purpose: str
    since: str
    process: str = ""
    deletes: bool = False
    released: bool = False
    unfenced: bool = False

    @classmethod
    def from_json(cls, number: int, content: bytes) -> Self:
        """A term of its file's bytes; one that cannot be read is an unknown holder's, who is waited for like any."""
        try:
            values = json.loads(content)
            return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})
        except (ValueError, TypeError, AttributeError):
            return cls(number, "", "unknown", "a lease that cannot be read", "an unknown time")

    def described(self) -> str:
        """Who holds the output, for messages."""
        return f"{self.purpose} ({self.who}, since {self.since})"


def newest_term(storage: Storage) -> Term | None:
    """The term that counts, released or not; None where the output was never held."""
    while numbers := numbered_files(storage, _FOLDER):
        try:
            return Term.from_json(max(numbers), storage.read(numbered_path(_FOLDER, max(numbers))))
        except MissingFileError:
            current_clock().sleep(_AGAIN_SECONDS)
    return None


def observe_holder(storage: Storage, *, watch: bool = False) -> tuple[Term | None, bool | None]:
    """Looks who holds an output and whether that process lives.

    Args:
        storage: The output.
        watch: Where the holder's process cannot be looked at from here, waits ``TERM_SECONDS`` for its next term.

    Returns:
        The term that counts, as :func:`newest_term`; True for a holder that lives, False for one that is gone or made
        no term while it was watched, None where nobody holds the output or that is not known.
    """
    term = newest_term(storage)
    if term is None or term.released:
        return term, None
    alive, clock = process_lives(term.process), current_clock()
    end = clock.monotonic() + TERM_SECONDS
    while watch and alive is None and clock.monotonic() < end:
        clock.sleep(_POLL_SECONDS)
        newest = newest_term(storage)
        if newest != term:
            return newest, None if newest is None or newest.released else True
    return term, False if watch and alive is None else alive


class Lease:
    """The right to write to an output, until :meth:`release` or until another process takes it over.

    Made by :func:`hold`, or by :func:`acquire` where nothing renews it but the caller.

    Attributes:
        previous: Number of the term before it was acquired, 0 if there was none.
    """

    def __init__(self, storage: Storage, term: Term, previous: int) -> None:
        self._storage, self._term, self.previous = storage, term, previous
        self._lock = threading.Lock()
        self._lost = False
        self._unanswered = storage.unanswered_deletions

    @property
    def number(self) -> int:
        """The term that a commit carries."""
        return self._term.number

    @property
    def unfenced(self) -> bool:
        """Whether a commit of a holder that was given up may still come."""
        return self._term.unfenced

    def renew(self, *, fenced: bool = False) -> None:
        """Makes the next term; where another process holds the output by now, nothing.

        Args:
            fenced: No commit of an earlier holder can come any more.
        """
        with self._lock:
            self._extend(replace(self._term, unfenced=self._term.unfenced and not fenced))

    def check(self) -> None:
        """Looks whether this process still holds the output.

        Raises:
            RunError: Another process does.
        """
        newest = newest_term(self._storage)
        if newest is None or newest.holder != self._term.holder:
            by = f"was taken over by {newest.described()}" if newest is not None else "was deleted"
            raise RunError(
                f"{self._storage.uri()}: this process was too slow to renew its lease, which {by}; "
                "what is done stays done: run again"
            )

    def release(self) -> None:
        """Lets the next process write; where a deletion may still come, once this one counts as gone."""
        if self._term.deletes and self._storage.unanswered_deletions > self._unanswered:
            log.warning(
                "%s: a deletion got no answer and may still come; whoever is next here waits for %.0f minutes",
                self._storage.uri(),
                COLLECTOR_PATIENCE * TERM_SECONDS / 60,
            )
            return
        with self._lock:
            self._extend(replace(self._term, released=True))

    def _extend(self, term: Term) -> None:
        newest = newest_term(self._storage)
        if newest is None or newest.holder != term.holder:
            if not self._lost:
                log.warning("%s: the lease is lost, nothing more is committed here", self._storage.uri())
            self._lost = True
            return
        made = replace(term, number=newest.number + 1)
        if _make(self._storage, made):
            self._term = made


@contextmanager
def hold(storage: Storage, purpose: str, *, busy: Busy = "wait", deletes: bool = False) -> Iterator[Lease]:
    """Holds an output for the length of the block; a thread renews the lease.

    Args:
        storage: The output.
        purpose: What for, in the words that others who wait are shown.
        busy: Where another process holds it: ``wait`` for it, or raise (``skip``, ``fail``) once it is known to live.
        deletes: Whether files are deleted that others might use.

    Raises:
        BusyError: Another process holds it.
    """
    lease = acquire(storage, purpose, busy=busy, deletes=deletes)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(TERM_SECONDS / RENEWALS):
            try:
                lease.renew()
            except Exception as error:  # noqa: BLE001 - the storage may answer again; a lost lease shows at the commit
                log.warning("the lease of %s could not be renewed: %s", storage.uri(), error)

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        try:
            lease.release()
        except RunError as error:
            log.warning("the lease of %s could not be released: %s", storage.uri(), error)


def acquire(storage: Storage, purpose: str, *, busy: Busy = "wait", deletes: bool = False) -> Lease:
    """Takes the lease of an output; the caller renews and releases it. See :func:`hold`.

    Raises:
        BusyError: As :func:`hold`.
        RunError: The storage makes a file although there is one, so that nothing keeps two writers apart.
    """
    holder = current_clock().token(8)
    watch = _Watch(storage, busy)
    while True:
        newest = newest_term(storage)
        if newest is not None and not newest.released and not watch.has_given_up(newest):
            watch.wait(newest)
            continue
        previous, unfenced = 0, False
        if newest is not None:
            previous, unfenced = newest.number, newest.unfenced or not newest.released
        term = Term(
            previous + 1,
            holder,
            describe_process(),
            purpose,
            utc_now(),
            process_id(),
            deletes=deletes,
            unfenced=unfenced,
        )
        if _make(storage, term):
            _check_create_only(storage, term)
            if newest is not None and not newest.released:
                log.warning("%s: taken over from %s, which is gone", storage.uri(), newest.described())
            return Lease(storage, term, previous)


def wait_while_deleting(storage: Storage) -> None:
    """Waits as long as the output is held by a process that deletes files."""
    watch = _Watch(storage, "wait")
    while (newest := newest_term(storage)) is not None and newest.deletes and not newest.released:
        if watch.has_given_up(newest):
            return
        watch.wait(newest)


class _Watch:
    """Watches the holder of an output on this process's own clock."""

    def __init__(self, storage: Storage, busy: Busy) -> None:
        self._uri, self._local, self._busy = storage.uri(), storage.is_local, busy
        self._seen: Term | None = None
        self._since = 0.0
        self._changes = 0
        self._said_at: float | None = None

    def has_given_up(self, newest: Term) -> bool:
        """Whether the holder's process is known to have ended, or no new term came for too long.

        A deletion that an ended process sent over the network may still come.
        """
        now = current_clock().monotonic()
        if newest != self._seen:
            self._seen, self._since, self._changes = newest, now, self._changes + 1
        patience = TERM_SECONDS * (COLLECTOR_PATIENCE if newest.deletes else 1)
        at_once = self._local or not newest.deletes
        return now - self._since >= patience or (at_once and process_lives(newest.process) is False)

    def wait(self, newest: Term) -> None:
        """Waits a moment for the holder, or raises ``BusyError`` once it is known to live."""
        if self._busy != "wait" and (self._changes > 1 or process_lives(newest.process)):
            line = f"{self._uri} is held by {newest.described()}"
            advice = "nothing was done" if self._busy == "skip" else "try again later, or wait for it (busy: wait)"
            raise BusyError(f"{line}; {advice}", skip=self._busy == "skip")
        clock = current_clock()
        if self._said_at is None or clock.monotonic() - self._said_at >= _SAY_SECONDS:
            log.warning("waiting for %s, which is held by %s", self._uri, newest.described())
            self._said_at = clock.monotonic()
        clock.sleep(_POLL_SECONDS)
        check_deadline("while waiting for the output")


def _check_create_only(storage: Storage, term: Term) -> None:
    path = numbered_path(_FOLDER, term.number)
    if storage.is_local or not storage.create(path, b""):
        return
    newest = newest_term(storage)
    storage.remove([path])
    if newest is not None and newest.number == term.number:
        raise RunError(
            f"{storage.uri()}: the storage server ignores conditional writes (If-None-Match), so that two runs could "
            "write here at once; use one that has them"
        )


def _make(storage: Storage, term: Term) -> bool:
    """Makes a term, if no higher one is there afterwards; then takes away those before it.

    A number may be free again because a later holder took its file away; so only what is listed afterwards counts.
    """
    storage.create(numbered_path(_FOLDER, term.number), json.dumps(asdict(term), indent=1).encode() + b"\n")
    newest = newest_term(storage)
    if newest is None or (newest.number, newest.holder) != (term.number, term.holder):
        return False
    storage.remove(
        [numbered_path(_FOLDER, number) for number in numbered_files(storage, _FOLDER) if number < term.number]
    )
    return True
