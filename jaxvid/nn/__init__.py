"""Linen modules: what owns parameters or collections, and nothing else."""

from jaxvid.nn.convolution import Conv3D, kaiming_normal_fan_out
from jaxvid.nn.mtconv import MTConv
from jaxvid.nn.mtconv_reference import MTConvReference
from jaxvid.nn.normalization import BatchNorm
from jaxvid.nn.squeeze_excitation import SqueezeExcitation
from jaxvid.nn.srtg import SRTG

__all__ = ["SRTG", "BatchNorm", "Conv3D", "MTConv", "MTConvReference", "SqueezeExcitation", "kaiming_normal_fan_out"]
