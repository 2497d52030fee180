"""Where the windows of a pooling lie: sizes, padding and the polyphase view that all of its formulations share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], ...]
Tap = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows over the spatial axes of ``[N, *sizes, C]``; hashable, so a static argument.

    With a stride ``s``, the padded axis is cut into ``groups`` of ``s`` entries (its *phases*). Tap ``k`` of window
    ``o`` is then phase ``k % s`` of group ``o + k // s``: every tap is one contiguous slice of the groups.

    Attributes:
        sizes: Extent of the input along each spatial axis.
        window: Taps along each axis.
        strides: Steps between windows.
        pads: Entries added before and after each axis.
    """

    sizes: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        window: Sequence[int],
        strides: Sequence[int] | None,
        padding: str | Sequence[int | tuple[int, int]],
    ) -> Windows:
        """Checks what a user gave for an array of this shape, and resolves ``"SAME"`` and ``"VALID"``."""
        window = tuple(window)
        strides = window if strides is None else tuple(strides)
        if not len(shape) - 2 == len(window) == len(strides) or len(window) not in (1, 2, 3):
            raise ValueError(
                f"x must have the axes N, one to three spatial ones, C, and window and strides an entry for each "
                f"spatial axis, received shape {tuple(shape)}, window={window}, strides={strides}."
            )
        if min(*window, *strides) < 1:
            raise ValueError(f"window and strides must be >= 1, received window={window}, strides={strides}.")
        sizes = tuple(shape[1:-1])
        if isinstance(padding, str):
            if padding not in ("SAME", "VALID"):
                raise ValueError(f"padding must be 'SAME', 'VALID' or numbers or pairs, received padding={padding!r}.")
            pads = tuple(lax.padtype_to_pads(sizes, window, strides, padding))
        else:
            if len(padding) != len(window):
                raise ValueError(f"padding must have {len(window)} entries, received padding={tuple(padding)}.")
            pads = tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in padding)
        for axis, (size, k, (low, high)) in enumerate(zip(sizes, window, pads, strict=True)):
            if not (0 <= low < k and 0 <= high < k) or size + low + high < k:
                raise ValueError(
                    f"along spatial axis {axis} the padding must be >= 0 and smaller than the window, and the window "
                    f"must fit, received size {size}, window {k}, padding {(low, high)}."
                )
        return cls(sizes, window, strides, pads)

    @property
    def outs(self) -> tuple[int, ...]:
        """Number of windows along each axis."""
        axes = zip(self.sizes, self.window, self.strides, self.pads, strict=True)
        return tuple((n + low + high - k) // s + 1 for n, k, s, (low, high) in axes)

    @property
    def halo(self) -> tuple[int, ...]:
        """Along each axis, the number of groups that a window reaches beyond its own."""
        return tuple((k - 1) // s for k, s in zip(self.window, self.strides, strict=True))

    @property
    def groups(self) -> tuple[int, ...]:
        """Number of groups along each axis that some window sees."""
        return tuple(o + h for o, h in zip(self.outs, self.halo, strict=True))

    @property
    def num_taps(self) -> int:
        """Number of taps of one window."""
        return math.prod(self.window)

    @property
    def taps(self) -> Iterator[Tap]:
        """Offsets of a window's taps, in the order of the axes."""
        return itertools.product(*map(range, self.window))

    @property
    def phases(self) -> Iterator[Tap]:
        """Offsets within a group, in the order of the axes."""
        return itertools.product(*map(range, self.strides))

    def taps_of(self, phase: Tap) -> Iterator[Tap]:
        """The taps that fall on a phase; none where the stride is larger than the window."""
        axes = zip(phase, self.window, self.strides, strict=True)
        return itertools.product(*(range(p, k, s) for p, k, s in axes))

    def pad(self, x: Array, fill: float = -jnp.inf) -> Array:
        """Pads with ``fill``, or crops what no window sees: ``[N, *(groups * strides), C]``."""
        axes = zip(self.groups, self.strides, self.sizes, self.pads, strict=True)
        config = [(0, 0, 0), *((low, g * s - n - low, 0) for g, s, n, (low, _) in axes), (0, 0, 0)]
        return lax.pad(x, jnp.array(fill, x.dtype), config)

    def unpad(self, x: Array) -> Array:
        """Undoes :meth:`pad`; what no window saw becomes zero."""
        axes = zip(self.groups, self.strides, self.sizes, self.pads, strict=True)
        config = [(0, 0, 0), *((-low, n + low - g * s, 0) for g, s, n, (low, _) in axes), (0, 0, 0)]
        return lax.pad(x, jnp.array(0, x.dtype), config)

    def surround(self, values: Array, fill: float) -> Array:
        """Adds ``halo`` windows on both sides, so that every group has all the windows that might see it."""
        config = [(0, 0, 0), *((h, h, 0) for h in self.halo), (0, 0, 0)]
        return lax.pad(values, jnp.array(fill, values.dtype), config)

    def split(self, x: Array) -> Array:
        """The padded array as ``[N, groups, strides, groups, strides, ..., C]``."""
        pairs = itertools.chain.from_iterable(zip(self.groups, self.strides, strict=True))
        return x.reshape(x.shape[0], *pairs, x.shape[-1])

    def as_3d(self) -> Windows:
        """The same windows with leading axes of size 1, for kernels that know three spatial axes."""
        missing = 3 - len(self.sizes)
        one = (1,) * missing
        return Windows(one + self.sizes, one + self.window, one + self.strides, ((0, 0),) * missing + self.pads)
