"""Pure functions on arrays: no state, no parameters of their own."""

from jaxvid.ops.class_regularization import class_factors, class_regularize
from jaxvid.ops.convolution import conv3d
from jaxvid.ops.cyclic import cyclic_consistency, gate_product, soft_nearest_neighbor
from jaxvid.ops.normalize import normalize_video
from jaxvid.ops.pooling import (
    avg_pool3d,
    avg_pool3d_reference,
    max_pool3d,
    max_pool3d_reference,
    stochastic_pool3d,
    stochastic_pool3d_reference,
)
from jaxvid.ops.recurrence import LayerWeights, recur, recur_reference
from jaxvid.ops.resize import resize_trilinear, resize_trilinear_reference
from jaxvid.ops.selection import frame_triplet_similarity, select_frames
from jaxvid.ops.shift import temporal_shift, temporal_shift_reference
from jaxvid.ops.soft_pooling import softpool, softpool_reference

__all__ = [
    "LayerWeights",
    "avg_pool3d",
    "avg_pool3d_reference",
    "class_factors",
    "class_regularize",
    "conv3d",
    "cyclic_consistency",
    "frame_triplet_similarity",
    "gate_product",
    "max_pool3d",
    "max_pool3d_reference",
    "normalize_video",
    "recur",
    "recur_reference",
    "resize_trilinear",
    "resize_trilinear_reference",
    "select_frames",
    "soft_nearest_neighbor",
    "softpool",
    "softpool_reference",
    "stochastic_pool3d",
    "stochastic_pool3d_reference",
    "temporal_shift",
    "temporal_shift_reference",
]
