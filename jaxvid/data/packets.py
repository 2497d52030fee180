"""The encoded packets of a video: which frames they promise, learnt without decoding, and from where to decode them.

Frame ``k`` of a video is the ``k``-th in order of presentation. Containers store packets in the order of decoding;
where each carries a trustworthy presentation time, sorting those times tells which packet is frame ``k``, also with
B-frames and variable frame rate. AVI, MPEG programme streams and raw streams have no such times; with B-frames in them,
frames can only be counted by decoding (``timed`` is then ``False``).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import av.container
import av.error
import numpy as np

from jaxvid.data.container import MAX_PIXELS, bad, open_container, reporting, video_stream
from jaxvid.data.orientation import Turn

MAX_KEPT_BYTES = 32 * 2**20
"""Up to this size in all, packets stay in memory between indexing and decoding; larger streams are read again."""

TIME_TOLERANCE = 1e-6
"""Seconds: a frame this little before ``start`` or ``end`` counts as being at it."""

_EXACT_SEEK = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # they hold an index of key frames by presentation time
_NO_TIMES = ("avi", "mpeg", "mpegvideo", "h264", "gif", "asf")  # packets carry decode times at best
_HEAD = 64  # packets in which the first frame is looked for; more than any decoder reorders
_FILLER_BYTES = 8  # MPEG-4: a packet this small repeats a frame, or belongs to a packed one, or gives no frame at all
_MPEG4 = ("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "msmpeg4")
_STRICT = {"png": {"err_detect": "crccheck+explode"}}
_VP8_SHOWN = 0x10  # bit of a VP8 frame's first byte (RFC 6386, 9.1); hidden frames are references only
_VP8_START = b"\x9d\x01\x2a"
_CHUNK_HEAD = 8  # bytes of the smallest chunk of an AVI


class PacketReader:
    """The packets of a file's video stream, in decode order, from the first that can be decoded on.

    Args:
      video: path of the file, or its bytes.
      start: seconds from the first frame; the packets before the key packet that precedes it are not read where the
        container allows that.
      end: seconds from the first frame; no packet is read that is only needed at or after it.

    Attributes:
      stream: PyAV's video stream.
      coded_size: height and width in pixels, as stored.
      fps: average frames per second; 0 when the file does not say.
      turn: how stored pictures are turned for display; ``None``: the first frame says.
      unit: seconds of one unit of ``stream.time_base``, in which presentation times are.
      pts: presentation time of each packet in units of ``stream.time_base``; int64[P]. Meaningless unless ``timed``.
      keys: positions of the packets at which decoding can start, ascending; int64[K].
      shown: positions of the packets whose frames are shown, in order of presentation; int64[n]. Only if ``timed``.
      timed: whether presentation times are known.
      reorders_unseen: the container has no presentation times, so a B-frame would disprove ``pts``.
      from_start: whether the first packet here is the file's first.
      origin: presentation time of the video's first frame, in units of ``stream.time_base``.

    Raises:
      BadVideoError: the file cannot be opened, or a packet is damaged or incomplete, or there is no packet.
    """

    def __init__(self, video: str | os.PathLike | bytes, start: float | None = None, end: float | None = None):
        self.video = video
        self.turn: Turn | None = None
        self._open()
        self.coded_size = self.stream.codec_context.height, self.stream.codec_context.width
        self.fps = float(self.stream.average_rate or self.stream.guessed_rate or 0)
        try:
            with reporting(video, "cannot be read"):
                if not (start and self._scan_from(start, end)):
                    self._scan(None, end)
                if not self.timed and end is not None:
                    self._reopen()
                    self._scan(None, None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Releases the file."""
        self._container.close()
        self._kept = None

    def key_before(self, packet: int) -> int:
        """Position of the last key packet that is shown no later than the packet at position ``packet``."""
        return int(self.keys[max(np.searchsorted(self.pts[self.keys], self.pts[packet], side="right") - 1, 0)])

    def ticks(self, seconds: float, origin: int) -> int:
        """The first presentation time that is not before ``seconds`` after ``origin``."""
        return origin + math.ceil((seconds - TIME_TOLERANCE) / self.unit)

    def decoder(self) -> av.VideoCodecContext:
        """The stream's decoder, empty; valid until the next :meth:`rewind`."""
        codec = self.stream.codec_context
        codec.flush_buffers()
        return codec

    def rewind(self, first: int) -> None:
        """Makes :meth:`read` start at position ``first``; packets that were not kept are sought, and verified."""
        self._next = first
        if self._kept is not None:
            return
        with reporting(self.video, "cannot be read again"):
            seekable = self._container.format.name in _EXACT_SEEK
            if seekable and self._seek(int(self._dts[first])) and self._find(first):
                return
            self._reopen()
            if not self._find(first):
                raise bad(self.video, "gives other packets when it is read again")

    def read(self, last: int) -> Iterator[av.Packet]:
        """The packets from where :meth:`rewind` went to position ``last`` inclusive."""
        if self._kept is not None:
            yield from self._kept[self._next : last + 1]
            return
        for position in range(self._next, last + 1):
            with reporting(self.video, "cannot be read again"):
                packet = self._found if position == self._next else next(self._demuxed, None)
            if packet is None or self._key(packet) != self._order[position]:
                raise bad(self.video, "gives other packets when it is read again")
            yield packet

    def _open(self, again: bool = False) -> None:
        self._container: av.container.InputContainer = open_container(self.video, again=again)
        self.stream = cast(av.VideoStream, video_stream(self._container))  # a file without one is not opened
        self.unit = float(cast(Fraction, self.stream.time_base))  # libav gives every stream of a file one
        codec = self.stream.codec_context
        # A stream may change its size after its header; PNG's checksums are looked at only where that is asked for.
        codec.options = {"max_pixels": str(MAX_PIXELS), **_STRICT.get(codec.name, {})}
        codec.thread_count = 1  # workers are many; threads inside each would fight for the same cores
        self._passed = 0
        self._promised = self._promise()
        self._demuxed = self._packets()

    def _promise(self) -> int:
        """How many packets the index of an AVI lists, or else its header; 0 for other containers.

        libav looks for the next chunk behind damage and plays on, so that the count alone tells. A header that was
        written before the recording ended (to a pipe) holds a number that cannot be.
        """
        if self._container.format.name != "avi":
            return 0
        listed = len(self.stream.index_entries)
        if listed > 1:  # libav itself enters the packets that it looks at while it opens a file without an index
            return listed
        return self.stream.frames if self.stream.frames * _CHUNK_HEAD <= self._container.size else 0

    def _refuse_lost(self) -> None:
        """Raises when an AVI gave fewer packets than it promises; reads the rest of the file for that."""
        if self._promised:
            for _ in self._demuxed:
                pass
            if self._passed < self._promised:
                raise bad(self.video, f"is damaged: it promises {self._promised} packets and gives {self._passed}")

    def _reopen(self) -> None:
        self._container.close()
        self._open(again=True)

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets from here on, without the empty one with which PyAV ends."""
        for packet in self._container.demux(self.stream):
            self._passed += packet.size > 0 or packet.dts is not None  # an AVI has empty ones where a frame repeats
            if packet.size:
                yield packet

    def _seek(self, time: int) -> bool:
        """Goes to the key packet before a time; some files promise that and cannot."""
        try:
            self._container.seek(time, stream=self.stream)
        except av.error.FFmpegError:
            return False
        self._demuxed = self._packets()
        return True

    def _scan_from(self, start: float, end: float | None) -> bool:
        """Scans from the key packet before ``start``; ``False`` when the container offers no exact way to it."""
        if self._container.format.name not in _EXACT_SEEK:
            return False
        head = list(itertools.islice(self._demuxed, _HEAD))
        shown = [p.pts for p in head if not p.is_discard]
        times = [pts for pts in shown if pts is not None]
        if not times or len(times) < len(shown) or not head[0].is_keyframe:
            self._reopen()
            return False
        self.origin = min(times)
        target = self.ticks(start, self.origin)
        if self._seek(target):
            self._scan(self.origin, end)
            if self.timed and self.pts[0] <= target:
                return True
        self._reopen()
        return False

    def _scan(self, origin: int | None, end: float | None) -> None:
        """Reads the packets up to ``end`` and sorts out what they promise; before the first key nothing counts."""
        self.from_start = origin is None
        packets: list[av.Packet] = []
        rows: list[tuple[int | None, int | None, bool, bool]] = []
        first = origin
        size, smallest, codec = 0, math.inf, self.stream.codec_context.name
        for packet in self._demuxed:
            if not (rows or packet.is_keyframe):
                if self._indexed_as_key(packet):  # libav takes the mark off a packet that it cannot parse
                    raise bad(self.video, "is damaged: its first key picture cannot be parsed", 0)
                continue
            if packet.is_corrupt:
                raise bad(
                    self.video, f"is damaged or cut off: packet {len(rows)} of its video is incomplete", len(rows)
                )
            dts = packet.dts
            if end is not None and first is not None and dts is not None and dts >= self.ticks(end, first):
                break
            hidden = packet.is_discard or (codec == "vp8" and self._hidden(packet, len(rows)))
            rows.append((packet.pts, dts, packet.is_keyframe, not hidden))
            first = packet.pts if first is None and not hidden else first  # at or after the first frame's time
            size, smallest = size + packet.size, min(smallest, packet.size)
            packets = [] if size > MAX_KEPT_BYTES else packets
            if size <= MAX_KEPT_BYTES:
                packets.append(packet)
        if origin is None:
            self._refuse_lost()
        if not rows and origin is None:
            raise bad(self.video, "holds no frame of video")
        self._kept = packets if size <= MAX_KEPT_BYTES else None
        self._arrange(rows, fillers=codec in _MPEG4 and smallest <= _FILLER_BYTES)
        if self.timed and not len(self.shown):
            raise bad(self.video, "shows none of its frames")
        if origin is None:
            self.origin = int(self.pts[self.shown[0]]) if self.timed else rows[0][0] or 0

    def _hidden(self, packet: av.Packet, number: int) -> bool:
        """Whether a VP8 frame is a reference that is not shown; damaged headers (RFC 6386, 9.1) must not look so.

        libav's decoder takes a key frame without its start code, and one that is hidden leaves no gap.
        """
        head = bytes(memoryview(packet)[:6])
        tag = int.from_bytes(head[:3], "little")
        is_key = not tag & 1
        if len(head) < 3 or (tag >> 5) + (10 if is_key else 3) > packet.size or (is_key and head[3:] != _VP8_START):
            raise bad(self.video, f"is damaged: the header of its packet {number} is not one of VP8", number)
        return not tag & _VP8_SHOWN

    def _indexed_as_key(self, packet: av.Packet) -> bool:
        """Whether the container's index begins with a key picture at or before an unmarked packet.

        A file that was cut without encoding it again begins between two keys, and its index says so.
        """
        time = packet.pts if packet.dts is None else packet.dts
        index = self.stream.index_entries
        return time is not None and len(index) > 0 and index[0].is_keyframe and index[0].timestamp <= time

    def _arrange(self, rows: list[tuple[int | None, int | None, bool, bool]], fillers: bool) -> None:
        """Fills the public arrays from ``(pts, dts, is_key, is_shown)`` of each packet."""
        pts, dts, keys, shown = zip(*rows, strict=True) if rows else ((), (), (), ())
        self._order = [(p, d) for p, d in zip(pts, dts, strict=True)]
        self.keys = np.flatnonzero(keys)
        times = [p for p, is_shown in zip(pts, shown, strict=True) if is_shown]
        self.reorders_unseen = self._container.format.name in _NO_TIMES
        reordered = self.reorders_unseen and self.stream.codec_context.has_b_frames
        self.timed = bool(times) and not (reordered or fillers or None in pts or len(set(times)) < len(times))
        self.pts = np.asarray(pts if self.timed else range(len(pts)), np.int64)
        self._dts = np.asarray([p if d is None else d for p, d, *_ in rows] if self.timed else self.pts, np.int64)
        shown_at = np.flatnonzero(shown) if self.timed else np.zeros(0, np.int64)
        if self.timed:  # pictures shown before the first key packet refer to what is not here
            shown_at = shown_at[self.pts[shown_at] >= self.pts[self.keys[0]]]
        self.shown = shown_at[np.argsort(self.pts[shown_at])]

    def _find(self, first: int) -> bool:
        """Reads on to the packet at position ``first``; ``False`` when the stream ends before it."""
        self._found = next((p for p in self._demuxed if self._key(p) == self._order[first]), None)
        return self._found is not None

    @staticmethod
    def _key(packet: av.Packet) -> tuple[int | None, int | None]:
        return packet.pts, packet.dts
