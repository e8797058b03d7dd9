"""Building blocks of the Identity-Mapping ResFormer: one primitive a file."""

from resformer.layers.conv import ConvNormAct, DWConv3x3, enlarge
from resformer.layers.empt import EMPT, ConvolutionalMlp, SpatialReductionAttention
from resformer.layers.imtm import IMTM
from resformer.layers.lung_head import LungHead, average_inside
from resformer.layers.mccrm import MCCRM
from resformer.layers.simam import SimAM

__all__ = [
    "EMPT",
    "IMTM",
    "MCCRM",
    "ConvNormAct",
    "ConvolutionalMlp",
    "DWConv3x3",
    "LungHead",
    "SimAM",
    "SpatialReductionAttention",
    "average_inside",
    "enlarge",
]
