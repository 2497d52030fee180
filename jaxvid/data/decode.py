"""Decoding: chosen frames of one video file as ``uint8[T H W 3]``, exactly those frames, or one clear sentence why not.

What is detected. A file that is missing, empty, no video, audio only, cut off (MP4, Matroska, AVI), of an absurd
size, or damaged where its frames are decoded, raises :class:`BadVideoError`. Damage shows in four ways: the container's
chain of frames is broken (Matroska, WebM) or gives fewer than its index lists (AVI); the decoder refuses a packet; it
conceals an error and marks the frame (libav's ``decode_error_flags``); a promised frame does not come out. All frames
that are decoded on the way to a wanted one are watched, because errors spread along references.

A stretch of a file of 60 frames (160 x 120, a key frame every 12) was overwritten with zeros or noise, at 16 places for
each of the two. None left a shorter video; of the 32, so many were reported. In the others the damage lay within a
frame, which gives wrong pixels, or in what nobody reads (an AVI's filling and index):

| stream | 0.5 % of the file | 5 % | 20 % | 40 % |
|---|---|---|---|---|
| VP8, WebM | 6 | 27 | 32 | 32 |
| VP8 with hidden references, WebM | 12 | 23 | 32 | 32 |
| VP9, WebM | 8 | 26 | 32 | 32 |
| H.264, Matroska | 25 | 32 | 32 | 32 |
| H.264, AVI | 20 | 30 | 32 | 32 |
| H.264, MP4 | 28 | 32 | 32 | 32 |
| MPEG-4 part 2, AVI | 31 | 32 | 32 | 32 |

A Matroska frame whose own first four bytes (track, time, flags) are damaged and the bytes before them are not is the
exception: where it is the video's first key frame, the video may begin with the next one.

What is not. Coded bits that change into other valid bits decode to wrong pixels without a trace. Damage was done at 60
random places of videos of 40 frames; of the cases in which decoded pixels changed, so many were reported:

| stream | picture | 1 bit flipped | 64 bytes random | 64 bytes zero |
|---|---|---|---|---|
| MPEG-4 part 2 | 320 x 240 | 52 % | 100 % | 100 % |
| MPEG-4 part 2 | 112 x 112 | 54 % | 100 % | 100 % |
| H.264, key frames every 12 | 320 x 240 | 73 % | 75 % | 78 % |
| H.264, key frames every 250 | 320 x 240 | 59 % | 80 % | 73 % |
| H.264, key frames every 12 | 112 x 112 | 52 % | 45 % | 31 % |
| HEVC | 320 x 240 | 0 % | 2 % | 3 % |
| VP9 | 320 x 240 | 0 % | 0 % | 2 % |

The younger the codec, the denser its arithmetic code and the less shows; libav's stricter settings (``err_detect``) and
its log reported nothing more. Keep checksums of files that matter. Damage in a frame that is neither wanted nor
referred to goes unnoticed and harms nothing. A shortened MPEG programme or transport stream is a valid, shorter one.

An image is a video of one frame, which is shown at second 0 and has no duration; :mod:`jaxvid.data.image_files` says
what is noticed of its damage. Transparency is dropped; 16 bits become 8.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import cast

import av
import av.error
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter

from jaxvid.data.augment import resized_size
from jaxvid.data.container import bad, reporting
from jaxvid.data.image_packets import open_packets
from jaxvid.data.orientation import Turn
from jaxvid.data.packets import TIME_TOLERANCE

MAX_BYTES = 2**29
"""A clip may take so many bytes by default: 512 MiB, 21 full frames of 4K."""

SEEK_GAIN = 8
"""A jump to a later key frame must save this many packets; it costs the decoder's restart."""

_INTERPOLATION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_SKIPPABLE = ("h264", "mpeg4", "mpeg1video", "mpeg2video")  # there, nothing refers to a frame marked as no reference


class VideoReader:
    """One video, or a stretch of one: frames that are decoded when asked for.

    Frames count from 0 in order of presentation; time counts in seconds from the video's first frame. Rotation and
    mirroring that the file asks for are applied. The shape of pixels (sample aspect ratio) and interlacing are not.

    Args:
      video: path of a file, or the encoded file itself.
      start: only frames at or after this time count; ``None``: from the first.
      end: only frames before this time count; ``None``: to the last.

    Attributes:
      num_frames: how many frames there are (in the stretch).
      fps: average frames per second of the file; 0 when it does not say.

    Raises:
      ValueError: not ``0 <= start < end``.
      BadVideoError: the file cannot be decoded, or no frame lies in the stretch.

    Note:
      Opening reads the packets but decodes nothing, except where frames have no times (AVI, MPEG programme and raw
      streams with B-frames): there all are decoded once to count them, and reading decodes from the first frame on.
      A reader belongs to one thread.

    Example::

        with VideoReader("jump.mp4") as reader:
            clip = reader.read(range(0, 32, 2), short_side=128)  # uint8[16 H W 3]
    """

    def __init__(self, video: str | os.PathLike | bytes, *, start: float | None = None, end: float | None = None):
        if not 0 <= (start or 0) < (np.inf if end is None else end):
            raise ValueError(f"start and end must hold 0 <= start < end, received start={start}, end={end}.")
        end = None if end == np.inf else end
        self._video = video
        self._reformatter = VideoReformatter()
        self._packets = open_packets(video, start, end)
        self._turn: Turn | None = self._packets.turn
        try:
            self._coded_size, self.fps = self._packets.coded_size, self._packets.fps
            self._times = self._presentation_times()
            low = np.searchsorted(self._times, (start or 0) - TIME_TOLERANCE)
            high = len(self._times) if end is None else np.searchsorted(self._times, end - TIME_TOLERANCE)
            if low >= high:
                raise bad(video, f"has no frame between {start or 0:g} s and {np.inf if end is None else end:g} s")
            self._first, self.num_frames = int(low), int(high - low)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.num_frames

    def close(self) -> None:
        """Releases the file and the packets in memory."""
        self._packets.close()

    @property
    def duration(self) -> float:
        """Seconds from the first frame (of the stretch) to the end of its last, which lasts ``1 / fps``."""
        times = self.times
        return float(times[-1] - times[0]) + (1 / self.fps if self.fps else 0.0)

    @property
    def times(self) -> np.ndarray:
        """When each frame is shown: float64[num_frames], seconds from the video's first frame."""
        return self._times[self._first : self._first + self.num_frames]

    @property
    def height(self) -> int:
        """Pixels from top to bottom, after rotation; the first use decodes one frame."""
        return self._shape()[0]

    @property
    def width(self) -> int:
        """Pixels from left to right, after rotation; the first use decodes one frame."""
        return self._shape()[1]

    def nbytes(self, num_frames: int, *, short_side: int | None = None) -> int:
        """Bytes that so many decoded frames take; nothing is decoded for it."""
        height, width = self._size(short_side)
        return num_frames * height * width * 3

    def read(
        self, indices: Sequence[int] | np.ndarray, *, short_side: int | None = None, max_bytes: int = MAX_BYTES
    ) -> np.ndarray:
        """Decodes the given frames.

        Only what they need is decoded: from the key frame before each, jumping over at least :data:`SEEK_GAIN` packets
        or not at all, and passing by frames that no other refers to. Each frame is resized as it comes, by swscale's
        bilinear filter (which averages over all source pixels when it shrinks) in its bit-exact form.

        Args:
          indices: frame numbers in ``[0, num_frames)``, at least one; any order, repetitions allowed.
          short_side: the shorter side of the result in pixels; the longer one keeps the aspect ratio, rounded half up.
            ``None``: the size of the file. All frames get the size that the file's header promises, also if it changes.
          max_bytes: limit on the result's size.

        Returns:
          uint8[T H W 3], RGB, in the order of ``indices``.

        Raises:
          ValueError: an index or ``short_side`` is out of range.
          BadVideoError: a frame that is needed cannot be decoded, or the result exceeds ``max_bytes``.
        """
        indices = self._checked(indices)
        height, width = self._size(short_side)
        if self.nbytes(len(indices), short_side=short_side) > max_bytes:
            raise bad(
                self._video,
                f"is too large: {len(indices)} frames of {height} x {width} exceed max_bytes={max_bytes}",
            )
        wanted, inverse = np.unique(indices, return_inverse=True)
        clip: np.ndarray | None = None
        for position, frame in self._frames(wanted + self._first):
            picture = self._picture(frame, height, width)
            if clip is None:
                clip = np.empty((len(indices), *picture.shape), np.uint8)
            clip[inverse == position] = picture
        return cast(np.ndarray, clip)  # at least one frame is wanted, and each comes or raises

    def _size(self, short_side: int | None) -> tuple[int, int]:
        """Height and width of a resized frame in the file's own orientation."""
        return self._coded_size if short_side is None else resized_size(*self._coded_size, short_side)

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        if indices.ndim != 1 or not len(indices) or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(
                f"indices must be a 1-D array of at least one integer, received shape {indices.shape} {indices.dtype}."
            )
        if indices.min() < 0 or indices.max() >= self.num_frames:
            raise ValueError(
                f"indices must lie in [0, {self.num_frames}), received {indices.min()} to {indices.max()}."
            )
        return indices

    def _shape(self) -> tuple[int, int]:
        if self._turn is None:
            *_, self._turn = (Turn.of(frame) for _, frame in self._frames(np.asarray([self._first])))
        height, width = self._coded_size
        return (width, height) if self._turn.transpose else (height, width)

    def _picture(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        """The frame as RGB ``[H W 3]`` of the coded orientation's height and width, then turned as the file asks."""
        if self._turn is None:
            self._turn = Turn.of(frame)
        with reporting(self._video, "cannot be converted to RGB"):
            rgb = self._reformatter.reformat(
                frame, width=width, height=height, format="rgb24", interpolation=_INTERPOLATION, threads=1
            )
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return self._turn(rows[:height, : width * 3].reshape(height, width, 3))

    def _presentation_times(self) -> np.ndarray:
        """Seconds from the first frame of all frames that were scanned; float64, ascending."""
        packets = self._packets
        if packets.timed:
            return (packets.pts[packets.shown] - packets.origin) * packets.unit
        shown = [frame.pts for frame in self._all_frames()]
        if not shown:
            raise bad(self._video, "holds no frame that can be decoded")
        pts = [time for time in shown if time is not None]
        if len(pts) == len(shown) and (np.diff(pts) > 0).all():
            return (np.asarray(pts) - pts[0]) * packets.unit
        return np.arange(len(shown)) / (self.fps or 1.0)

    def _frames(self, wanted: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
        """``(position in wanted, decoded frame)`` for ascending numbers of frames; a position may come twice."""
        if self._packets.timed:
            try:
                yield from self._timed_frames(wanted)
                return
            except _UntimelyError as problem:
                self._count_instead(problem)
        positions = {int(k): position for position, k in enumerate(wanted)}
        for k, frame in enumerate(self._all_frames()):
            if k in positions:
                yield positions.pop(k), frame
            if not positions:
                return
        raise bad(self._video, f"gave {len(self._times)} frames when they were counted and now fewer")

    def _timed_frames(self, wanted: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decodes run after run, each from a key packet, and picks the frames by presentation time."""
        packets = self._packets
        for first, last, positions in self._runs(wanted):
            missing = {int(packets.pts[packets.shown[wanted[position]]]): position for position in positions}
            targets = set(missing)
            packets.rewind(first)
            codec = packets.decoder()
            skips = codec.name in _SKIPPABLE and not packets.reorders_unseen
            for packet in (*packets.read(last), None):
                unneeded = skips and packet is not None and packet.pts not in targets
                codec.skip_frame = "NONREF" if unneeded else "DEFAULT"
                for frame in self._decode(codec, packet, floor=int(packets.pts[first])):
                    if packets.reorders_unseen and frame.pict_type == PictureType.B:
                        raise _UntimelyError("its container has no presentation times but it has B-frames", wanted[0])
                    if frame.pts in missing:
                        yield missing.pop(frame.pts), frame
            if missing:
                raise _UntimelyError("the decoder gave no frame for its packet", wanted[min(missing.values())])

    def _runs(self, wanted: np.ndarray) -> list[tuple[int, int, list[int]]]:
        """``(first packet, last packet, positions in wanted)`` of each stretch that is decoded in one go."""
        runs: list[tuple[int, int, list[int]]] = []
        for position, packet in enumerate(self._packets.shown[wanted].tolist()):
            key = self._packets.key_before(packet)
            if runs and key <= runs[-1][1] + SEEK_GAIN:
                first, last, positions = runs[-1]
                runs[-1] = first, max(last, packet), [*positions, position]
            else:
                runs.append((key, packet, [position]))
        return runs

    def _all_frames(self) -> Iterator[av.VideoFrame]:
        """Everything that the decoder gives, in its order."""
        self._packets.rewind(0)
        codec = self._packets.decoder()
        codec.skip_frame = "DEFAULT"
        for packet in self._packets.read(len(self._packets.pts) - 1):
            yield from self._decode(codec, packet)
        yield from self._decode(codec, None)

    def _decode(self, codec: av.VideoCodecContext, packet: av.Packet | None, floor: int | None = None) -> list:
        """Frames that one packet brings out (``None``: the rest), all sound.

        Pictures shown before ``floor``, the key frame's time, refer to what came before it: they are dropped.
        """
        try:
            frames = codec.decode(packet)
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            if floor is not None and packet is not None and packet.pts is not None and packet.pts < floor:
                return []
            place = "at its end" if packet is None else self._place(packet.pts)
            reason = getattr(error, "strerror", None) or str(error)
            raise bad(self._video, f"is damaged {place}: {reason}", self._number(packet)) from error
        sound = [frame for frame in frames if floor is None or frame.pts is None or frame.pts >= floor]
        for frame in sound:
            if frame.is_corrupt:
                raise bad(self._video, f"is damaged {self._place(frame.pts)}", self._number(frame))
        return sound

    def _number(self, item: av.Packet | av.VideoFrame | None) -> int | None:
        """The frame's number in the stretch, where times tell."""
        packets = self._packets
        if item is None or item.pts is None or not packets.timed:
            return None
        number = int(np.searchsorted(packets.pts[packets.shown], item.pts)) - getattr(self, "_first", 0)
        return number if number >= 0 else None

    def _place(self, pts: int | None) -> str:
        if len(self._packets.pts) == 1:
            return "in its only picture"
        if pts is None:
            return "somewhere"
        return f"at {(pts - self._packets.origin) * self._packets.unit:.3f} s"

    def _count_instead(self, problem: _UntimelyError) -> None:
        """Gives up presentation times and counts frames; allowed only when the number of frames stays what was said."""
        number = int(problem.frame) - self._first
        found = sum(1 for _ in self._all_frames())
        if self._packets.from_start and found == len(self._times):
            self._packets.timed = False
            return
        raise bad(
            self._video,
            f"is damaged at frame {number}: {problem}; it promises {len(self._times)} frames and holds {found}",
            number,
        )


class _UntimelyError(Exception):
    """Presentation times do not lead to the frame with number ``frame``."""

    def __init__(self, why: str, frame: int):
        super().__init__(why)
        self.frame = frame
