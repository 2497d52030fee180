"""Opening a video safely: what is refused before any decoding, and the one sentence that says why.

Only files on the local disk and bytes in memory are opened. A file that points elsewhere (an HLS or DASH playlist, a
``concat`` script) and a name with a protocol (``http://...``) are refused: libav is given a list of container formats
that hold their own data, and no protocol but ``file``.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import av.container
import av.error
from av.stream import Disposition

from jaxvid.data import matroska
from jaxvid.data.records import BadVideoError, describe

MAX_PIXELS = 8192 * 4320
"""Larger frames are refused before one is allocated: a damaged or hostile header can claim any size."""

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,asf,flv,ogg,gif"
"""libav's names of the containers that are opened. All hold their own data; playlists and scripts do not."""

LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Options of ``av.open`` for files whose titles are not UTF-8; from PyAV 19 on no option is needed."""

_MAX_BOXES = 100_000  # of an MP4's top level; a fragmented recording has two for every few seconds
_OPEN_LIST = 0xFFFFFFFF  # the size of an AVI's list that was written to a pipe
_LIBAV_ERRORS = (av.error.FFmpegError, OSError, ValueError, OverflowError, MemoryError)


def bad(video: str | os.PathLike | bytes, what: str, frame: int | None = None) -> BadVideoError:
    """The error for one video, ``what`` being the rest of the sentence that begins with its name."""
    return BadVideoError(f"{describe(video)} {what}.", path=describe(video), frame=frame)


@contextmanager
def reporting(video: str | os.PathLike | bytes, what: str, frame: int | None = None) -> Iterator[None]:
    """Turns errors of libav and of the system into a ``BadVideoError`` that says ``VIDEO WHAT: reason``."""
    try:
        yield
    except BadVideoError:
        raise
    except _LIBAV_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise bad(video, f"{what}: {reason}", frame) from error


def open_container(video: str | os.PathLike | bytes, *, again: bool = False) -> av.container.InputContainer:
    """Opens a video file, or the bytes of one.

    Args:
      video: path of a file, or the encoded file itself.
      again: it was opened before and found whole; that is not checked once more.

    Raises:
      BadVideoError: there is no such file, it may not be read, it is not a regular file, it is empty or cut off, its
        chain of frames is broken (Matroska and WebM), it is not a video in one of the known containers, or it holds no
        video stream that can be decoded.
    """
    if not again:
        with reporting(video, "cannot be opened"), opened(video) as file:
            _refuse_broken(video, file)
    options = {"format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS), "protocol_whitelist": "file"}
    source: str | io.BytesIO = f"file:{os.path.abspath(os.fspath(video))}" if not isinstance(video, bytes) else ""
    if isinstance(video, bytes):
        source, options["protocol_whitelist"] = io.BytesIO(video), "none"
    with reporting(video, "is not a video in a known container or an image, or its header is damaged"):
        container = av.open(source, options=options, **LENIENT)
    try:
        _check_stream(video, video_stream(container))
    except BadVideoError:
        container.close()
        raise
    return container


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first video stream that is not a cover picture, ``None`` when there is none."""
    streams = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(streams, None)


def _check_stream(video: str | os.PathLike | bytes, stream: av.VideoStream | None) -> None:
    if stream is None:
        raise bad(video, "holds no video stream")
    codec = stream.codec_context
    if codec is None:
        raise bad(video, "is encoded with a codec that this build of PyAV cannot decode")
    if not 0 < codec.width * codec.height <= MAX_PIXELS:  # libav says 0 x 0 for a stream that it refused itself
        size = f"{codec.width} x {codec.height}" if codec.width else "none, or more"
        raise bad(video, f"must have frames of 1 to {MAX_PIXELS} pixels, received {size}")


def opened(video: str | os.PathLike | bytes) -> BinaryIO:
    """The encoded bytes, as a file that is known to be regular and not empty.

    Raises:
      BadVideoError: it is empty, or no regular file.
      OSError: it is not there, or may not be read.
    """
    if isinstance(video, bytes):
        if not video:
            raise bad(video, "must not be empty")
        return io.BytesIO(video)
    status = os.stat(video)
    if stat.S_ISDIR(status.st_mode):
        raise bad(video, "must be a file, received a folder")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
        raise bad(video, "must be a regular file, received a device, pipe or socket")
    if not status.st_size:
        raise bad(video, "must not be empty")
    return open(video, "rb")


def _refuse_broken(video: str | os.PathLike | bytes, file: BinaryIO) -> None:
    """Compares what the container's headers promise with the file.

    libav plays what is left of a shortened file without a word, and goes on behind damage. MPEG programme and transport
    streams promise no size.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        if problem := matroska.what_is_wrong(file):
            raise bad(video, problem)
        return
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        promised = _end_of_riff(file, size)
        if not promised:
            raise bad(video, "is damaged or cut off: its headers do not lead to its frames")
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        promised = _end_of_mp4(file, size)
    else:
        return
    if promised > size:
        raise bad(video, f"is cut off: its headers promise at least {promised} bytes, received {size}")


def _end_of_mp4(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4's top level ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8 or not head[4:8].isascii():
            break  # trailing bytes that are no box
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if length < 8:  # 0: to the end of the file; anything else is damage that the demuxer judges
            return size
        at += length
        if at > size:
            return at if head[4:8] in (b"mdat", b"moov", b"moof") else size
    return at


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """Where the list ``movi``, which holds an AVI's frames, ends; 0 if the chain of chunks does not lead there."""
    at = 12
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"LIST" and head[8:] == b"movi":
            return size if length == _OPEN_LIST else at + 8 + length
        at += 8 + length + length % 2
    return 0
