"""Is a Matroska or WebM file whole? The chain of its elements, from header to header, without what they hold.

A file is a tree of elements, each an ID, a size and that many bytes (EBML, RFC 8794; Matroska, RFC 9559): a segment
holds clusters, a cluster holds blocks, a block holds one frame. Behind damage libav looks for the next ID that it knows
and plays on, so that frames are missing without a word. Here the next header must be where the one before says.
"""

from __future__ import annotations

import os
from typing import BinaryIO

MAX_ELEMENTS = 2**23
"""So many are looked at, 19 hours of 60 frames and 60 packets of sound a second; what comes later is not judged."""

_HEADER, _SEGMENT, _CLUSTER, _TRACKS = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B
_GROUP, _TRACK, _TRACK_NUMBER = 0xA0, 0xAE, 0xD7
_BLOCKS = {0xA3, 0xA1, 0xAF}  # SimpleBlock, Block in a BlockGroup, EncryptedBlock
_ANYWHERE = {0xEC, 0xBF, 0x1B538667}  # Void, CRC-32, SignatureSlot
_IN_SEGMENT = {_CLUSTER, _TRACKS, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_IN_CLUSTER = _ANYWHERE | {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, _GROUP, 0xAF}
_IN_GROUP = _ANYWHERE | {0xA1, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8}
_NAMES = {_SEGMENT: "segment", _CLUSTER: "cluster", _TRACKS: "list of tracks", _TRACK: "track", _GROUP: "group"}
_HEAD = 16  # bytes: an ID takes at most 4, a size 8, the number of a block's track nearly always 1


class _BrokenError(Exception):
    """The chain ends before the file; the message is the rest of a sentence that begins with the file's name."""


def what_is_wrong(file: BinaryIO) -> str | None:
    """The rest of a sentence that begins with the file's name; ``None`` when the chain of elements is whole.

    Clusters and segments of unknown size, as live recordings have, end where the next one or the file does. Bytes
    behind a segment of known size are not looked at, nor is what frames, indexes and tags hold. Takes a seek and a
    short read for each element.

    Args:
      file: begins with an EBML header; any position.
    """
    try:
        _Walk(file).document()
    except _BrokenError as error:
        return str(error)
    return None


class _Walk:
    def __init__(self, file: BinaryIO):
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._seen = 0
        self._tracks: set[int] = set()

    def document(self) -> None:
        at = 0
        while at < self._size:
            kind, start, end = self._element(at)
            if kind == _SEGMENT:
                return self._segment(start, None if end == start else end)  # some recorders leave 0 for unknown
            if kind not in _ANYWHERE and not (kind == _HEADER and not at):
                raise self._broken(at)
            at = self._end(at, end, self._size)
        raise _BrokenError(f"is cut off: it ends after {self._size} bytes, before its first frame")

    def _segment(self, at: int, end: int | None) -> None:
        limit = self._size if end is None else end
        self._end(at, limit, limit)
        while at < limit and self._seen < MAX_ELEMENTS:
            kind, start, end_here = self._element(at)
            if end is None and kind in (_HEADER, _SEGMENT):  # another recording follows
                return
            if kind not in _IN_SEGMENT and kind not in _ANYWHERE:
                raise self._broken(at, _SEGMENT)
            if kind == _CLUSTER:
                at = self._cluster(start, end_here, limit if end_here is None else self._end(at, end_here, limit))
                continue
            if kind == _TRACKS:
                self._read_tracks(start, self._end(at, end_here, limit))
            at = self._end(at, end_here, limit)

    def _cluster(self, at: int, end: int | None, limit: int) -> int:
        """Goes through the elements of a cluster; returns where it ends."""
        while at < limit and self._seen < MAX_ELEMENTS:
            kind, start, stop = self._element(at)
            if kind not in _IN_CLUSTER:
                if end is None and (kind in _IN_SEGMENT or kind in (_HEADER, _SEGMENT)):
                    return at
                raise self._broken(at, _CLUSTER)
            stop = self._end(at, stop, limit)
            if kind in _BLOCKS:
                self._block(at, start)
            elif kind == _GROUP:
                self._group(start, stop)
            at = stop
        return limit

    def _group(self, at: int, limit: int) -> None:
        while at < limit:
            kind, start, end = self._element(at)
            if kind not in _IN_GROUP:
                raise self._broken(at, _GROUP)
            if kind in _BLOCKS:
                self._block(at, start)
            at = self._end(at, end, limit)

    def _block(self, at: int, start: int) -> None:
        """A block of a track that does not exist is one that no player shows."""
        track, _ = self._integer(start - self._at)
        if self._tracks and track not in self._tracks:
            raise _BrokenError(f"is damaged: the frame at byte {at} belongs to none of its tracks")

    def _read_tracks(self, at: int, limit: int) -> None:
        while at < limit:
            kind, start, end = self._element(at)
            stop = self._end(at, end, limit)
            if kind != _TRACK and kind not in _ANYWHERE:
                raise self._broken(at, _TRACKS)
            while kind == _TRACK and start < stop:
                inner, first, last = self._element(start)
                if inner == _TRACK_NUMBER:
                    self._file.seek(first)
                    self._tracks.add(int.from_bytes(self._file.read(min(self._end(start, last, stop) - first, 8))))
                start = self._end(start, last, stop)
            at = stop

    def _element(self, at: int) -> tuple[int, int, int | None]:
        """``(ID, first byte of its content, end)`` of the element at a byte; its end is ``None`` when unknown."""
        self._seen += 1
        self._file.seek(at)
        self._at, self._head = at, self._file.read(_HEAD)
        width = 9 - self._head[0].bit_length() if self._head else 9
        if width > 4:  # of an ID
            raise self._broken(at)
        size, after = self._integer(width)
        if size is None:
            raise self._broken(at)
        unknown = size == (1 << 7 * (after - width)) - 1
        return int.from_bytes(self._head[:width], "big"), at + after, None if unknown else at + after + size

    def _integer(self, at: int) -> tuple[int | None, int]:
        """An integer of variable length in the head last read, and the byte behind it (RFC 8794, 4)."""
        first = self._head[at] if at < len(self._head) else 0
        width = 9 - first.bit_length()
        if not first or at + width > len(self._head):
            return None, at
        return int.from_bytes(self._head[at : at + width], "big") & (1 << 7 * width) - 1, at + width

    def _end(self, at: int, end: int | None, limit: int) -> int:
        """The end of the element at a byte, which must be known and not behind that of what holds it."""
        if end is None:
            raise self._broken(at)
        if end > limit or end > self._size:
            if limit >= self._size:
                raise _BrokenError(f"is cut off: its headers promise at least {end} bytes, received {self._size}")
            raise self._broken(at)
        return end

    @staticmethod
    def _broken(at: int, parent: int | None = None) -> _BrokenError:
        place = f" of its {_NAMES[parent]}" if parent else ""
        return _BrokenError(f"is damaged: byte {at} must begin an element{place}")
