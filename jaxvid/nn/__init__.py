"""Linen modules: what owns parameters or collections, and nothing else."""

from jaxvid.nn.class_regularization import ClassRegularization
from jaxvid.nn.convolution import Conv3D, kaiming_normal_fan_out
from jaxvid.nn.fast import FASTConv
from jaxvid.nn.mtconv import MTConv
from jaxvid.nn.mtconv_reference import MTConvReference
from jaxvid.nn.normalization import BatchNorm
from jaxvid.nn.squeeze_excitation import SqueezeExcitation
from jaxvid.nn.srtg import SRTG
from jaxvid.nn.temporal_adaptive import TAM

__all__ = [
    "SRTG",
    "TAM",
    "BatchNorm",
    "ClassRegularization",
    "Conv3D",
    "FASTConv",
    "MTConv",
    "MTConvReference",
    "SqueezeExcitation",
    "kaiming_normal_fan_out",
]
