"""Is an image file whole? PNG, JPEG, WebP and BMP, byte by byte, without the pixels.

libav's decoders give a picture of whatever is left of a file: rows that are missing stay black or grey, without a word.
So the file's own structure is walked before anything is decoded, and a file that does not end as it promises is
refused. What is found behind the end of a picture (a phone's second picture, say) is left alone.

What is noticed. A PNG has a checksum for everything: any damaged byte. JPEG, WebP and BMP have none: any file that is
cut off, and a JPEG whose only scan is cut and then ended; of a JPEG also markers that have no place in a scan, restart
markers out of order, and what the decoder refuses. Coded bits that change into other valid bits give wrong pixels
without a trace. Damage was done at 120 random places of a picture of 500 x 375 pixels; of these so many were reported:

| picture | 1 bit flipped | 64 bytes zero | 64 bytes random |
|---|---|---|---|
| JPEG | 35 % | 62 % | 69 % |
| JPEG, progressive | 42 % | 87 % | 97 % |
| JPEG, a restart marker every 3 blocks | 18 % | 46 % | 58 % |
| WebP, lossy | 0 % | 0 % | 0 % |
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from jaxvid.data.container import MAX_PIXELS, bad, opened, reporting

MAX_BYTES = 2**29
"""A larger image file is refused: the whole of it is read."""

_MAX_PARTS = 2**17  # chunks or segments of a file; the largest images of common programs have some thousands
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour types
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7
_SOI, _EOI, _SOS, _DRI, _APP1 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1  # markers (ITU T.81, table B.1)
_STUFFING, _RESTARTS = 0x00, range(0xD0, 0xD8)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 ... SOF15, which hold the size
_METADATA = {*range(0xE1, 0xF0), 0xFE} - {0xEE}  # APP1 ... APP15, comments; not JFIF's and Adobe's, which tell colours
_EXIF = b"Exif\0\0"
_HEAD = 16  # bytes that tell the kind of a file


@dataclass(frozen=True)
class ImageFile:
    """One encoded picture, whose structure is whole.

    Attributes:
      codec: libav's name of its decoder.
      data: what the decoder is given: the picture, where that is possible without the file's metadata, in which many
        programs make mistakes.
      height: pixels, as stored.
      width: pixels, as stored.
      exif: its EXIF block, a TIFF structure; empty where there is none.
    """

    codec: str
    data: bytes
    height: int
    width: int
    exif: bytes = b""


class _BrokenError(Exception):
    """The message is the rest of a sentence that begins with the file's name."""


def read_image(video: str | os.PathLike | bytes) -> ImageFile | None:
    """Reads a file if it is an image, whatever its name says.

    Args:
      video: path of a file, or the encoded file itself.

    Returns:
      The image; ``None`` for a file of another kind.

    Raises:
      BadVideoError: the file cannot be read, or it is an image that is damaged, cut off, an animation, or of a size
        that is refused.
    """
    with reporting(video, "cannot be opened"), opened(video) as file:
        head = file.read(_HEAD)
        parse = _parser(head)
        if parse is None:
            return None
        data = head + file.read(MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise bad(video, f"must be an image of at most {MAX_BYTES} bytes, received more")
    try:
        image = parse(data)
    except _BrokenError as error:
        raise bad(video, str(error)) from None
    if not (image.height > 0 < image.width and image.height * image.width <= MAX_PIXELS):
        raise bad(video, f"must have 1 to {MAX_PIXELS} pixels, received {image.width} x {image.height}")
    return image


def _parser(head: bytes) -> Callable[[bytes], ImageFile] | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp
    # "BM" alone could begin anything; the two reserved numbers are zero in every BMP.
    return _bmp if head.startswith(b"BM") and head[6:10] == bytes(4) else None


def _png(data: bytes) -> ImageFile:
    """Chunks of length, type, content and CRC-32 (PNG, third edition, 5.3)."""
    at, kept, exif, header = 8, [data[:8]], b"", b""
    for _ in range(_MAX_PARTS):
        kind, end = data[at + 4 : at + 8], at + 12 + _big(data, at, 4)
        _refuse_short(data, max(end, at + 12))
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != _big(data, end - 4, 4):
            raise _BrokenError(f"is damaged: the checksum of its bytes {at} to {end} does not match")
        if kind in _PIXEL_CHUNKS:
            kept.append(data[at:end])
        if kind == b"IHDR":
            header = data[at + 8 : end - 4]
        elif kind == b"acTL":
            raise _BrokenError("is an animated PNG; of animations only GIF and video files are read")
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = end
        if kind == b"IEND":
            break
    else:
        raise _BrokenError(f"must have fewer than {_MAX_PARTS} chunks, received more")
    _refuse_short_rows(header, b"".join(chunk[8:-4] for chunk in kept[1:] if chunk[4:8] == b"IDAT"))
    return ImageFile("png", b"".join(kept), _big(header, 4, 4), _big(header, 0, 4), exif)


def _refuse_short_rows(header: bytes, packed: bytes) -> None:
    """Rows that are missing would stay black, and no checksum of the file says that they are."""
    if len(header) != 13 or header[9] not in _CHANNELS or header[12] > 1:
        raise _BrokenError("is damaged: a PNG must begin with a header of its size and its kind of pixels")
    width, height, bits = _big(header, 0, 4), _big(header, 4, 4), header[8] * _CHANNELS[header[9]]
    if not 0 < width * height <= MAX_PIXELS:
        return  # which is refused by itself, and a limit of 0 would be none
    passes = _PASSES if header[12] else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in passes]
    promised = sum(rows * (1 + (columns * bits + 7) // 8) for rows, columns in sizes if columns > 0)
    try:
        found = len(zlib.decompressobj().decompress(packed, promised))
    except zlib.error as error:
        raise _BrokenError(f"is damaged: its rows cannot be unpacked ({error})") from None
    if found < promised:
        raise _BrokenError(f"is cut off: its rows take {promised} bytes, received {found}")


def _jpeg(data: bytes) -> ImageFile:
    """Segments that begin with markers, and the coded data behind each start of a scan (ITU T.81, annex B)."""
    at, size, exif, restarts, scans, kept = 2, (0, 0), b"", False, 0, [data[:2]]
    for _ in range(_MAX_PARTS):
        start, at, code = at, *_marker(data, at)
        if code == _EOI:
            kept.append(data[start:at])
            break
        end = at + _big(data, at, 2)
        _refuse_short(data, max(end, at + 2))
        if end < at + 2 or code == _SOI:
            raise _BrokenError(f"is damaged: byte {start} must begin a segment of its picture")
        if code in _FRAMES:
            size = _big(data, at + 3, 2), _big(data, at + 5, 2)
        elif code == _DRI:
            restarts = _big(data, at + 2, 2) > 0
        elif code == _APP1 and data[at + 2 : at + 8] == _EXIF:
            exif = data[at + 8 : end]
        elif code == _SOS:
            scans += 1
            end = _end_of_scan(data, end, restarts)
        if code not in _METADATA:
            kept.append(data[start:end])
        at = end
    else:
        raise _BrokenError(f"must have fewer than {_MAX_PARTS} segments, received more")
    if not scans:
        raise _BrokenError("is damaged: it holds no scan of a picture")
    return ImageFile("mjpeg", b"".join(kept), *size, exif)


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """The byte behind the marker that begins at ``at``, and its code; a marker may have any number of bytes 0xFF."""
    begin = at
    while data[at : at + 1] == b"\xff":
        at += 1
    _refuse_short(data, at + 1)
    if at == begin:
        raise _BrokenError(f"is damaged: byte {begin} must begin a marker")
    return at + 1, data[at]


def _end_of_scan(data: bytes, at: int, restarts: bool) -> int:
    """Where the coded data that begins at ``at`` ends; its restart markers must count 0 to 7 over and over."""
    begin, count = at, 0
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        code = data[at + 1]
        if code in _RESTARTS:
            if not restarts or code != _RESTARTS[count % 8]:
                raise _BrokenError(f"is damaged: the restart markers behind byte {begin} are not in order")
            count += 1
        elif code not in (_STUFFING, 0xFF):  # any number of bytes 0xFF may stand before a marker
            return at
        at += 1 if code == 0xFF else 2
    raise _BrokenError(f"is cut off: it ends after {len(data)} bytes, within its picture")


def _webp(data: bytes) -> ImageFile:
    """A RIFF file of chunks (WebP Container Specification)."""
    promised = 8 + _little(data, 4, 4)
    _refuse_short(data, promised)
    at, size, exif = 12, None, b""
    for _ in range(_MAX_PARTS):
        if at + 8 > promised:
            break
        kind, start, end = data[at : at + 4], at + 8, at + 8 + _little(data, at + 4, 4)
        if end > promised:
            raise _BrokenError(f"is damaged: the chunk at byte {at} ends behind the file's end")
        if kind in (b"ANIM", b"ANMF"):
            raise _BrokenError("is an animated WebP; of animations only GIF and video files are read")
        if kind == b"VP8 " and data[start + 3 : start + 6] == b"\x9d\x01\x2a":  # RFC 6386, 9.1
            size = _little(data, start + 8, 2) & 0x3FFF, _little(data, start + 6, 2) & 0x3FFF
        elif kind == b"VP8L" and data[start] == 0x2F:
            bits = _little(data, start + 1, 4)
            size = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        elif kind == b"EXIF":
            exif = data[start:end].removeprefix(_EXIF)
        at = end + end % 2
    if size is None:
        raise _BrokenError("is damaged: it holds no picture with the header of a WebP")
    return ImageFile("webp", data[:promised], *size, exif)


def _bmp(data: bytes) -> ImageFile:
    """A header and rows of pixels, each a multiple of four bytes long."""
    _refuse_short(data, 54)
    first, old = _little(data, 10, 4), _little(data, 14, 4) == 12
    width, height = (
        (_little(data, 18, 2), _little(data, 20, 2)) if old else (_little(data, 18, 4), _little(data, 22, 4))
    )
    height = height if height < 2**31 else 2**32 - height  # negative: the first row is at the top
    bits, compression = _little(data, 24 if old else 28, 2), 0 if old else _little(data, 30, 4)
    if compression not in (0, 3, 6):  # RGB, or RGB in given bits
        raise _BrokenError(f"must be a BMP without compression, received compression {compression}")
    _refuse_short(data, first + (width * bits + 31) // 32 * 4 * height)
    return ImageFile("bmp", data, height, width)


def _refuse_short(data: bytes, promised: int) -> None:
    if promised > len(data):
        raise _BrokenError(f"is cut off: its headers promise at least {promised} bytes, received {len(data)}")


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
