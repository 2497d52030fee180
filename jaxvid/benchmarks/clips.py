"""Videos for measurements: a drifting texture with noise, which costs an H.264 decoder about what real footage does."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path, *, num_frames: int, height: int, width: int, gop: int, seed: int = 0, frames_per_second: int = 30
) -> Path:
    """Encodes a video by libx264.

    Args:
      path: the file to write; its suffix chooses the container.
      num_frames: length.
      height: pixels, even.
      width: pixels, even.
      gop: frames from one keyframe to the next; fixed, no keyframe is added at a change of scene.
      seed: of the texture, the drift and the noise.
      frames_per_second: of the file.

    Returns:
      ``path``.
    """
    rng = np.random.default_rng(seed)
    texture = _texture(rng, height, width)
    drift = rng.uniform(-3, 3, 2)
    options = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0", "preset": "veryfast", "crf": "23"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=frames_per_second, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for t in range(num_frames):
            rolled = np.roll(texture, np.round(drift * t).astype(int), axis=(0, 1))
            noisy = rolled + rng.normal(0, 2, (height, width, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(noisy, 0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coarse to fine blocks of random colour, ``float[H W 3]`` in [0, 255]: detail at every scale."""
    texture = np.zeros((height, width, 3))
    sizes = (64, 16, 4)
    for size in sizes:
        blocks = rng.uniform(0, 255, (-(-height // size), -(-width // size), 3))
        texture += np.kron(blocks, np.ones((size, size, 1)))[:height, :width]
    return texture / len(sizes)
