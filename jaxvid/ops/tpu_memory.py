"""What blocks take of a TPU's VMEM, which Pallas does not tell before a TPU compiles them."""

from __future__ import annotations

import math
from collections.abc import Sequence

LANES = 128
VMEM_BYTES = 60 * 2**20
"""What the blocks may take: v5p and v7x have 64 MiB, v5e and v6e twice that (a v4 has 16, and its compiler says so)."""
SPILL_BYTES = 2 * 2**20
"""What is asked for on top of the blocks, for the compiler's own use."""


def vmem_bytes(planes: Sequence[tuple[int, ...]]) -> int:
    """Bytes of VMEM that blocks ``(rows, columns, channels, bytes per number)`` take, tiled and double-buffered."""
    total = 0
    for rows, columns, channels, size in planes:
        sublanes = 32 // size  # 8 for 4 bytes, 16 for 2
        total += rows * (math.ceil(columns / sublanes) * sublanes) * (math.ceil(channels / LANES) * LANES) * size
    return 2 * total
