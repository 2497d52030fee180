"""One ResNet: r3d, r(2+1)d, FAST, MTConv, wide and Hara's variants, and image networks, each with SRTG or without."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.interface import check_video, halve, make_conv, make_norm, make_srtg, named_output
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import FactorisedConv, MakeModule, ResidualBlock, middle_channels
from jaxvid.models.stages import Head, Stage
from jaxvid.nn.mtconv import MTConv

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3


class Stem(nn.Module):
    """The first convolution, 7x7 in space with stride 2, its BN and ReLU.

    Attributes:
      features: output channels.
      frames: length of the kernel in time.
      factorised: 1x7x7, BN, ReLU, Tx1x1.
      middle: channels between the two of a factorised stem; ``None`` takes :func:`middle_channels`.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
    """

    features: int
    frames: int
    factorised: bool
    middle: int | None
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W 3"], train: bool) -> Float[Array, "N T h w C"]:
        """Convolves the video; time keeps its length."""
        kernel_size, strides = (self.frames, 7, 7), (1, 2, 2)
        if self.factorised:
            middle = self.middle or middle_channels(x.shape[-1], self.features, kernel_size)
            conv = FactorisedConv(self.features, middle, kernel_size, strides, self.conv, self.norm, name="conv")
            x = conv(x, train)
        else:
            x = self.conv(self.features, kernel_size, strides, (self.frames // 2, 3, 3), name="conv")(x)
        return named_output(self, nn.relu(self.norm(name="norm")(x, not train)))


class ResNet3D(nn.Module):
    """A 3-D ResNet (Hara et al. 2018; Tran et al. 2018; Stergiou and Poppe 2021).

    ``stem``, a 3x3x3 pooling with stride 2 unless ``stem_pool`` is off, ``stage1`` … ``stage4``, ``head``. The stages
    have ``width * widen`` times 1, 2, 4, 8 planes, and stages 2 to 4 halve time and space. Convolutions start
    Kaiming-normal (fan out), BN at 1 and 0, the classifier at N(0, 0.01) and 0. With ``per_frame`` it is the image
    network (He et al. 2016), applied to every frame: kernels 1xkxk, time keeps its length, and the mean over time makes
    the logits those of the mean frame.

    The output of each of the six blocks can be captured (``capture_intermediates`` finds them by their names) and
    differentiated: ``apply(..., mutable=["perturbations"])`` creates zeros under ``{block: {"output": …}}`` that are
    added to the outputs, and the gradient with respect to them is the gradient with respect to the outputs.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      bottleneck: blocks of three convolutions, not two.
      factorised: (2+1)D convolutions.
      fast: FAST convolutions in the blocks, one of :data:`jaxvid.nn.fast.ARRANGEMENTS`, or ``None``.
      delta: share of the local channels of the MTConvs that bottlenecks have in place of 3x3x3, in (0, 1]; ``None``
        leaves them as they are.
      selection: how those MTConvs reduce time, one of :data:`jaxvid.nn.mtconv.SELECTIONS`.
      per_frame: a 2-D network; ``stem_frames`` should be 1 then.
      width: channels of the stem and planes of stage 1, before ``widen``.
      widen: factor on all planes and the stem (Hara's wide ResNet).
      expansion: output channels of a bottleneck per plane.
      base_width: channels of a bottleneck's 3x3x3 per 64 planes (and per group), at least one per group.
      groups: groups of a bottleneck's 3x3x3.
      stem_frames: length of the stem's kernel in time.
      stem_middle: middle channels of a (2+1)D stem; ``None`` computes them.
      shared_middle: see :class:`jaxvid.models.residual.ResidualBlock`.
      pool: one of :data:`jaxvid.models.options.POOLS`; ``max`` is the papers'.
      stem_pool: whether the pooling behind the stem exists; torchvision's video networks have none.
      frame_stages: the stages, counted from 1, whose blocks are 2-D and leave time as it is.
      pool_window: length of the pooling's window along every axis, 3, or 2 as in the SoftPool authors' code.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      srtg: SRTG in every block, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    bottleneck: bool
    factorised: bool = False
    fast: str | None = None
    delta: float | None = None
    selection: str = "lowest"
    per_frame: bool = False
    width: int = 64
    widen: int = 1
    expansion: int = 1
    base_width: int = 64
    groups: int = 1
    stem_frames: int = 3
    stem_middle: int | None = 45
    shared_middle: bool = True
    pool: str = "max"
    stem_pool: bool = True
    frame_stages: tuple[int, ...] = ()
    pool_window: int = 3
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    conv: str = "auto"
    remat: bool = False
    window: Size3 | None = None
    srtg: SRTGOptions | None = None

    @nn.compact
    def __call__(self, video: Float[Array, "N T H W 3"], train: bool = False) -> Float[Array, "N K"]:
        """Classifies clips.

        Args:
          video: normalised RGB.
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, or is so small that a training step
            would normalise a single value.
        """
        check_video(video, self._strides(), train and not self.is_initializing())
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        planes = self.width * self.widen
        stem = Stem(planes, self.stem_frames, self.factorised, self.stem_middle, conv, norm, name="stem")
        x = stem(video.astype(self.dtype), train)
        if self.stem_pool:
            x = halve(x, self.pool, self.pool_window, self.per_frame)
        for index, num_blocks in enumerate(self.stage_sizes):
            block = self._block(planes * 2**index, conv, norm, self.per_frame or index + 1 in self.frame_stages)
            first = functools.partial(block, stride=1 if index == 0 else 2)
            others = (functools.partial(block, stride=1),) * (num_blocks - 1)
            x = Stage((first, *others), self.remat, name=f"stage{index + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.window, name="head")(x, train)

    def _strides(self) -> Size3:
        pool = 2 if self.stem_pool else 1
        time = pool * 2 ** sum(stage not in self.frame_stages for stage in (2, 3, 4))
        return (1 if self.per_frame else time, pool * 16, pool * 16)

    def _block(
        self, planes: int, conv: MakeModule, norm: MakeModule, per_frame: bool
    ) -> functools.partial[ResidualBlock]:
        srtg, placement = make_srtg(self.srtg, self.dtype)
        return functools.partial(
            ResidualBlock,
            planes=planes,
            bottleneck=self.bottleneck,
            expansion=self.expansion,
            inner=max(1, planes * self.base_width // 64) * self.groups,
            groups=self.groups,
            factorised=self.factorised,
            fast=self.fast,
            mtconv=self._mtconv(conv, norm),
            per_frame=per_frame,
            shared_middle=self.shared_middle,
            conv=conv,
            norm=norm,
            srtg=srtg,
            placement=placement,
        )

    def _mtconv(self, conv: MakeModule, norm: MakeModule) -> MakeModule | None:
        if self.delta is None:
            return None
        return functools.partial(MTConv, delta=self.delta, selection=self.selection, conv=conv, norm=norm)
