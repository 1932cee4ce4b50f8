"""tinygrad_rnn: a small reverse-mode autograd engine, and the recurrent networks built on it.

>>> import tinygrad_rnn as tg
>>> w = tg.tensor([1.0, 2.0], requires_grad=True)
>>> loss = (w * w).sum()
>>> loss.backward()
>>> w.grad
tensor([2., 4.])

`tg.ops` is the table of all operations: `print(tg.ops["tanh"])` shows what one computes and its derivative.
"""

from . import errors, nn, optim
from .engine.annotate import annotate, detect_anomaly, named, time_step
from .engine.backend import Backend, get_backend, register_backend, use_backend
from .engine.checkpoint import checkpoint
from .engine.create import arange, eye, full, ones, rand, randn, zeros
from .engine.gradcheck import KinkWarning, gradcheck
from .engine.op import TABLE, custom_op
from .engine.ops.convolution import conv1d, conv2d, conv_transpose2d
from .engine.ops.elementwise import (
    abs,
    add,
    clip,
    cos,
    divide,
    dropout,
    equal,
    exp,
    expm1,
    greater,
    greater_equal,
    isfinite,
    leaky_relu,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    subtract,
    tanh,
    where,
)
from .engine.ops.indexing import one_hot, take
from .engine.ops.linalg import einsum, matmul
from .engine.ops.loss import binary_cross_entropy_with_logits, cross_entropy, mse
from .engine.ops.normalization import batch_norm, group_norm, layer_norm
from .engine.ops.pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .engine.ops.recurrent import gru, lstm, rnn
from .engine.ops.reduction import (
    argmax,
    argmin,
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    sum,
    var,
)
from .engine.ops.resampling import crop, interpolate
from .engine.ops.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    pad,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
    zeros_like,
)
from .engine.random import manual_seed
from .engine.tensor import Tensor, enable_grad, no_grad, tensor
from .engine.walk import grad

__version__ = "0.1.0"

ops = TABLE

__all__ = [
    "Backend",
    "KinkWarning",
    "Tensor",
    "abs",
    "add",
    "annotate",
    "arange",
    "argmax",
    "argmin",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "checkpoint",
    "clip",
    "concatenate",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cos",
    "crop",
    "cross_entropy",
    "cumsum",
    "custom_op",
    "detect_anomaly",
    "divide",
    "dropout",
    "einsum",
    "enable_grad",
    "equal",
    "errors",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "flip",
    "full",
    "get_backend",
    "global_avg_pool2d",
    "grad",
    "gradcheck",
    "greater",
    "greater_equal",
    "group_norm",
    "gru",
    "interpolate",
    "isfinite",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "lstm",
    "manual_seed",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "mse",
    "multiply",
    "named",
    "negative",
    "nn",
    "no_grad",
    "norm",
    "not_equal",
    "one_hot",
    "ones",
    "ops",
    "optim",
    "pad",
    "power",
    "prod",
    "rand",
    "randn",
    "register_backend",
    "relu",
    "reshape",
    "rnn",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "tanh",
    "tensor",
    "time_step",
    "transpose",
    "use_backend",
    "var",
    "where",
    "zeros",
    "zeros_like",
]


def load_ipython_extension(shell: object) -> None:
    """`%load_ext tinygrad_rnn` in IPython or a notebook: from then on `%trnn help`."""
    from . import notebook

    notebook.load(shell)


def unload_ipython_extension(shell: object) -> None:
    """`%unload_ext tinygrad_rnn`"""
    from . import notebook

    notebook.unload(shell)
