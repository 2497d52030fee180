"""An image as a video of one frame: what :class:`jaxvid.data.packets.PacketReader` is for the files of videos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import av
import numpy as np

from jaxvid.data.container import MAX_PIXELS
from jaxvid.data.image_files import ImageFile, read_image
from jaxvid.data.orientation import Turn
from jaxvid.data.packets import PacketReader

# Errors end the decoding instead of leaving grey or black behind them. The checksums of a PNG were verified before.
_STRICT = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}


class ImagePackets:
    """The one packet of an image, with the attributes and methods of a :class:`jaxvid.data.packets.PacketReader`.

    The picture is shown at second 0 and has no duration.

    Args:
      image: the encoded picture.

    Attributes:
      coded_size: height and width in pixels, as stored.
      fps: 0.
      turn: how the stored picture is turned for display.
    """

    timed, from_start, reorders_unseen = True, True, False
    unit, origin, fps = 1.0, 0, 0.0

    def __init__(self, image: ImageFile):
        self._image = image
        self._codec = cast(av.VideoCodecContext, av.VideoCodecContext.create(image.codec, "r"))
        self._codec.options = _STRICT
        self._codec.thread_count = 1
        self.coded_size = image.height, image.width
        self.turn = Turn.of_exif(image.exif)
        self.pts = self.keys = self.shown = np.zeros(1, np.int64)

    def close(self) -> None:
        """Nothing is held open."""

    def key_before(self, packet: int) -> int:
        """Position 0."""
        return 0

    def decoder(self) -> av.VideoCodecContext:
        """The decoder, empty."""
        self._codec.flush_buffers()
        return self._codec

    def rewind(self, first: int) -> None:
        """Nothing moves."""

    def read(self, last: int) -> Iterator[av.Packet]:
        """The packet."""
        packet = av.Packet(self._image.data)
        packet.pts = packet.dts = 0
        packet.is_keyframe = True  # libav's decoder adds the picture before to a PNG that is none
        yield packet


def open_packets(
    video: str | os.PathLike | bytes, start: float | None = None, end: float | None = None
) -> PacketReader | ImagePackets:
    """The packets of a video or of an image; what it is, its first bytes say.

    Args:
      video: path of the file, or its bytes.
      start: see :class:`jaxvid.data.packets.PacketReader`.
      end: see there.

    Raises:
      BadVideoError: the file cannot be opened, or is not whole.
    """
    image = read_image(video)
    return PacketReader(video, start, end) if image is None else ImagePackets(image)
