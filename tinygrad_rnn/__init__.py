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
from .engine.op import TABLE as ops
from .engine.op import custom_op
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

__all__ = [name for name in dir() if not name.startswith("_")]
