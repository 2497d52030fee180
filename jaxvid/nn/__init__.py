"""Linen modules: what owns parameters or collections, and nothing else."""

from jaxvid.nn.convolution import Conv3D, kaiming_normal_fan_out
from jaxvid.nn.fast import FASTConv
from jaxvid.nn.normalization import BatchNorm
from jaxvid.nn.squeeze_excitation import SqueezeExcitation
from jaxvid.nn.srtg import SRTG
from jaxvid.nn.temporal_adaptive import TAM

__all__ = ["SRTG", "TAM", "BatchNorm", "Conv3D", "FASTConv", "SqueezeExcitation", "kaiming_normal_fan_out"]
