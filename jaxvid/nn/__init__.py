"""Linen modules: what owns parameters or collections, and nothing else."""

from jaxvid.nn.convolution import Conv3D, kaiming_normal_fan_out
from jaxvid.nn.fast import FASTConv
from jaxvid.nn.normalization import BatchNorm
from jaxvid.nn.squeeze_excitation import SqueezeExcitation
from jaxvid.nn.srtg import SRTG

__all__ = ["SRTG", "BatchNorm", "Conv3D", "FASTConv", "SqueezeExcitation", "kaiming_normal_fan_out"]
