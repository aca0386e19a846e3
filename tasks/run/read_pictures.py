"""Pictures of some rows as they are read: digested on the way, and kept where the encoder will ask for them again."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor

from barycenter.fusion.errors import BadInputError
from barycenter.infra.corpus import Picture
from barycenter.infra.versions.digest_index import content_digest


class ReadPictures:
    """Pictures that were found, in the order of the values that name them; None where none was.

    Attributes:
        found: The pictures.
        digests: Of the bytes of each, once they were read.
    """

    def __init__(self, found: Sequence[Picture | None]) -> None:
        self.found = list(found)
        self.digests: list[bytes | None] = [None] * len(self.found)
        self._kept: dict[int, bytes] = {}

    def read(self, place: int) -> bytes:
        """The encoded bytes of a picture; errors are those of :class:`Picture`."""
        data = self._kept.pop(place, None)
        if data is None:
            picture = self.found[place]
            assert picture is not None
            data = picture.read()
        self.digests[place] = content_digest(data)
        return data

    def read_ahead(self, places: Iterable[int], most_bytes: int, pool: Executor, *, all_of_them: bool) -> None:
        """Reads pictures for their digests, and keeps so many bytes of them for the encoder.

        A picture that cannot be used is left to the encoder, which gives the reason.

        Args:
            places: Which.
            most_bytes: What is kept; of a picture whose size is not known, it counts once it was read.
            pool: Reads several at a time.
            all_of_them: Whether pictures are read for their digest although they cannot be kept.
        """
        left = most_bytes
        chosen: list[tuple[int, bool]] = []
        for place in places:
            picture = self.found[place]
            if picture is None or self.digests[place] is not None:
                continue
            keep = left > 0
            left -= picture.size or 0
            if keep or all_of_them:
                chosen.append((place, keep))
        for place, data in pool.map(self._try_read, chosen):
            if data is not None:
                self._kept[place] = data

    def drop(self, places: Iterable[int]) -> None:
        """Lets go of bytes that nobody will ask for."""
        for place in places:
            self._kept.pop(place, None)

    def _try_read(self, chosen: tuple[int, bool]) -> tuple[int, bytes | None]:
        place, keep = chosen
        try:
            data = self.read(place)
        except BadInputError:
            return place, None
        return place, data if keep else None

    def identities(self) -> list[Hashable]:
        """Equal for the same place, the same bytes in the table, and files of the same size and content."""
        sized: dict[int, set[str]] = {}
        for picture in self.found:
            if picture is not None and picture.uri is not None and picture.size is not None:
                sized.setdefault(picture.size, set()).add(picture.uri)
        by_uri: dict[str, Hashable] = {}
        return [self._identity(place, sized, by_uri) for place in range(len(self.found))]

    def _identity(self, place: int, sized: Mapping[int, set[str]], by_uri: dict[str, Hashable]) -> Hashable:
        picture = self.found[place]
        if picture is None:
            return None
        if self.digests[place] is not None:
            return self.digests[place]
        if picture.uri is None:
            self.digests[place] = content_digest(picture.read())
            return self.digests[place]
        if picture.size is None or len(sized[picture.size]) == 1:
            return picture.uri
        if picture.uri not in by_uri:
            try:
                by_uri[picture.uri] = content_digest(picture.read())
            except BadInputError:
                by_uri[picture.uri] = picture.uri
        return by_uri[picture.uri]

    def share(self, identities: Sequence[Hashable]) -> None:
        """Gives pictures that were not read themselves the digest of the one that was read for them."""
        known = {
            identity: digest
            for identity, digest in zip(identities, self.digests, strict=True)
            if identity is not None and digest is not None
        }
        for place, identity in enumerate(identities):
            if self.digests[place] is None and identity is not None:
                self.digests[place] = known.get(identity)

    def seen(self) -> list[bytes | None]:
        """Of each picture a digest of where it is, its size and its stamp; None where it has no stamp.

        One that is equal need not be read to be known.
        """
        return [
            None
            if picture is None or picture.uri is None or picture.stamp is None
            else content_digest(
                picture.uri.encode("utf-8", "surrogateescape"), f"{picture.size} {picture.stamp}".encode()
            )
            for picture in self.found
        ]

    def take(self, places: Sequence[int]) -> "ReadPictures":
        """Some of them, with what is known of them; bytes that are kept go over to it."""
        taken = ReadPictures([self.found[place] for place in places])
        taken.digests = [self.digests[place] for place in places]
        taken._kept = {new: self._kept.pop(old) for new, old in enumerate(places) if old in self._kept}
        return taken

    def reader(self, place: int) -> Callable[[], bytes]:
        """Reads one picture."""
        return lambda: self.read(place)
