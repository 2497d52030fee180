"""Encoded videos whose frames say their own number."""

from fractions import Fraction

import av
import numpy as np
import pytest

BLOCK = 16


def numbered(k: int, height: int, width: int) -> np.ndarray:
    """A picture of 16 dark or light blocks, the bits of ``k``, in the upper left 64 x 64 pixels; grey beside them."""
    frame = np.full((height, width, 3), 90, np.uint8)
    bits = (k >> np.arange(16)) & 1
    blocks = np.kron(np.where(bits, 220, 30).reshape(4, 4), np.ones((BLOCK, BLOCK)))
    frame[:64, :64] = blocks[:height, :width, None]
    frame[:, 64:] += np.uint8(k % 50)
    return frame


@pytest.fixture(scope="session")
def encode(tmp_path_factory):
    """``encode(n)``: the bytes of a video of ``n`` numbered frames."""
    folder = tmp_path_factory.mktemp("encoded")

    def encode(
        n=50,
        *,
        container="mp4",
        codec="libx264",
        size=(64, 80),
        rate=25,
        times=None,
        prepare=None,
        mux=None,
        draw=numbered,
        **options,
    ):
        file = folder / "video"
        with av.open(str(file), "w", format=container, options=mux or {}) as output:
            stream = output.add_stream(codec, rate=rate, options={key: str(value) for key, value in options.items()})
            stream.height, stream.width = size
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            if codec == "mpeg4":
                stream.bit_rate = 1_000_000
            if prepare is not None:
                prepare(stream)
            for k in range(n):
                frame = av.VideoFrame.from_ndarray(draw(k, *size), format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = times[k], Fraction(1, 1000)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        return file.read_bytes()

    return encode


@pytest.fixture(scope="session")
def numbers():
    """``numbers(clip)``: the number that each frame of ``uint8[T H W 3]`` shows; the clip has its original size."""

    def numbers(clip):
        centres = clip[:, BLOCK // 2 : 64 : BLOCK, BLOCK // 2 : 64 : BLOCK].mean(-1) > 128
        return (centres.reshape(len(clip), 16) << np.arange(16)).sum(-1).tolist()

    return numbers
