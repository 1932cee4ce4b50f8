"""Networks: modules and parameters, layers, recurrent cells and stacks, residual blocks, losses."""

from .activations import Flatten, Identity, ReLU
from .convolution import Conv1d, Conv2d, ConvTranspose2d
from .layers import Dropout, Embedding, Linear, fan_in_uniform_, kaiming_normal_
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from .module import Buffer, Module, Parameter, Sequential
from .normalization import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm
from .pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .residual import PlainBlock, ResidualBlock

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Identity",
    "LSTMCell",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "PlainBlock",
    "RNNCell",
    "ReLU",
    "ResidualBlock",
    "Sequential",
    "fan_in_uniform_",
    "kaiming_normal_",
]
