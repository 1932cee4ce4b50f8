"""Convolution of images and of sequences, and its transpose; names, order and conventions are PyTorch's.

What is called convolution here is cross-correlation, as everywhere in the field: kernels are not turned
round. It is linear in the images x and in the kernels w. With images y of the result's shape there is one
trilinear form, <conv2d(x, w), y> = <x, conv2d_input(y, w)> = <w, conv2d_weight(x, y)>, so the derivatives of
each of these three ops are the other two. conv1d and conv_transpose2d are made of them, and need none.
"""

from __future__ import annotations

from typing import Any

from ...errors import ShapeError
from ..op import TABLE, op
from ..tensor import Tensor, apply, tensor
from .fused import convolution_kernels_for
from .fused.convolution import Pair, output_size
from .options import integer, integers
from .shape import broadcast_to, expand_dims, pad, reshape, squeeze

# --- the three ops: images (N, C, H, W), options as pairs (height, width) --------------------------


@op(
    lambda F, g, out, x, weight, bias, **options: F.conv2d_input(g, weight, size=x.shape[2:], **options),
    lambda F, g, out, x, weight, bias, **options: F.conv2d_weight(
        x, g, kernel_size=weight.shape[2:], **options
    ),
    # One axis after another, of which none is long: a sum over all places in turn loses digits.
    lambda F, g, out, x, weight, bias, **options: F.sum(F.sum(F.sum(g, axis=2), axis=0), axis=1),
    inputs=3,
    name="conv2d",
    saves="x weight",
    promotes=True,
    floating=True,
)
def _conv2d(
    xp: Any, x: Any, weight: Any, bias: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """The kernels laid on images in every place, products summed; a bias (O,) or None added to the sums."""
    size = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    _check_form("conv2d", x.shape, weight.shape, (x.shape[0], weight.shape[0], *size), groups, size)
    kernels = convolution_kernels_for(xp, x.dtype)
    y = kernels.forward(xp, x, weight, stride, padding, dilation, groups)
    if bias is not None:
        channels_last = y.transpose(0, 2, 3, 1)  # y itself, in the order in which it lies in memory
        channels_last += bias
    return y


@op(
    lambda F, g, out, y, weight, size, **options: F.conv2d(g, weight, None, **options),
    lambda F, g, out, y, weight, size, **options: F.conv2d_weight(
        g, y, kernel_size=weight.shape[2:], **options
    ),
    inputs=2,
    saves="*",
    promotes=True,
    floating=True,
)
def conv2d_input(
    xp: Any, y: Any, weight: Any, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """conv2d's transpose as a map of images: from y, of its results' shape, to images of the given size."""
    x_shape = (y.shape[0], weight.shape[1] * groups, *size)
    places = output_size(size, weight.shape[2:], stride, padding, dilation)
    _check_form("conv2d_input", x_shape, weight.shape, y.shape, groups, places)
    kernels = convolution_kernels_for(xp, y.dtype)
    return kernels.input_gradient(xp, y, weight, size, stride, padding, dilation, groups)


@op(
    lambda F, g, out, x, y, kernel_size, **options: F.conv2d_input(y, g, size=x.shape[2:], **options),
    lambda F, g, out, x, y, kernel_size, **options: F.conv2d(x, g, None, **options),
    inputs=2,
    saves="*",
    promotes=True,
    floating=True,
)
def conv2d_weight(
    xp: Any, x: Any, y: Any, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """conv2d's transpose as a map of kernels: from y, of its results' shape, to kernels of the given size."""
    weight_shape = (y.shape[1], x.shape[1] // groups, *kernel_size)
    places = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    _check_form("conv2d_weight", x.shape, weight_shape, y.shape, groups, places)
    kernels = convolution_kernels_for(xp, x.dtype)
    return kernels.weight_gradient(xp, x, y, kernel_size, stride, padding, dilation, groups)


def _check_form(name: str, x: tuple, weight: tuple, y: tuple, groups: int, places: Pair) -> None:
    """The shapes that a kernel relies on: it does not look where it reads."""
    if min(places) < 1 or x[1] != weight[1] * groups or weight[0] % groups or y != (x[0], weight[0], *places):
        raise ShapeError(f"{name}: x {x}, weight {weight}, y {y} and {groups} groups do not belong together")


# --- what users call --------------------------------------------------------------------------------


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Kernels laid on images in every place, `stride` apart: products summed, and a bias (O,) added.

    x: (N, C, H, W), or one image (C, H, W). weight: (O, C / groups, KH, KW). Result: (N, O, OH, OW), where
    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and OW likewise; channels last in memory.

    An option is a number for both directions, or a pair (height, width). padding: rows and columns of zeros
    on each side of an image; "valid" for none; "same" for as many as keep its size (with a stride of 1 only).
    dilation: the distance in the image of what neighbours in the kernel meet. groups: the channels in so many
    parts, each with O / groups kernels of its own (groups = C: a depthwise convolution).

    Arrays of different dtypes are promoted to the common one, and integers become floats.

    Raises ShapeError where shapes or options do not fit together, DtypeError for an option of another type.
    The arithmetic, with pictures: Dumoulin & Visin, A guide to convolution arithmetic (2016).
    """
    return _convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """conv2d along one direction: x (N, C, L) or (C, L), weight (O, C / groups, K), the result (N, O, OL).

    It is a conv2d on images of height one, which is the op that the graph and its derivatives show.
    """
    return _convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
) -> Tensor:
    """conv2d's transpose: each element of x puts a copy of the kernel into the result, `stride` apart.

    x: (N, C, H, W), or one image (C, H, W). weight: (C, O / groups, KH, KW). Result: (N, O, OH, OW), where
    OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1, and OW likewise. A conv2d with
    the same weight and options takes images of O channels to images of C channels; from several sizes it
    comes to H and W, and output_padding, less than stride or dilation, says which of them is meant. It is
    conv2d's derivative, the op conv2d_input. padding has no words here, as in PyTorch.

    Raises ShapeError where shapes or options do not fit together, DtypeError for an option of another type.
    """
    return _transposed("conv_transpose2d", x, weight, bias, stride, padding, output_padding, groups, dilation)


def _convolve(
    name: str,
    ways: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    """A convolution in one direction or two; in one, the images are of height one."""
    x, weight, one = _images(name, x, weight, ways)
    groups = integer(name, "groups", groups, 1)
    outs = _result_channels(name, x, weight, groups)
    stride = integers(name, "stride", stride, ways, 1)
    dilation = integers(name, "dilation", dilation, ways, 1)
    reach = _reach(weight, dilation)
    after = [(0, 0)] * ways
    if isinstance(padding, str) and padding == "same":
        if max(stride) > 1:
            raise ShapeError(f"{name}: padding='same' needs a stride of 1, not {stride}")
        padding = tuple((r - 1) // 2 for r in reach)
        after = [(0, (r - 1) % 2) for r in reach]  # what is odd comes after the image
    else:
        padding = 0 if isinstance(padding, str) and padding == "valid" else padding
        padding = integers(name, "padding", padding, ways, 0, words=("same", "valid"))
    room = tuple(n + 2 * p + m for n, p, (_, m) in zip(x.shape[-ways:], padding, after, strict=True))
    if any(r > n for r, n in zip(reach, room, strict=True)):
        raise ShapeError(
            f"{name}: a kernel that reaches over {_by(reach)} (weight of shape {weight.shape}, dilation "
            f"{_by(dilation)}) is larger than x of shape {x.shape} with padding {_by(padding)}, {_by(room)}"
        )
    if bias is not None:
        bias = _checked_bias(name, bias, x, weight, outs)
    x = _batch(x, one, after)
    if ways == 1:
        x, weight = expand_dims(x, 2), expand_dims(weight, 2)
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    out = apply(TABLE["conv2d"], (x, weight, bias), options)
    out = squeeze(out, 2) if ways == 1 else out
    return out[0] if one else out


def _transposed(
    name: str,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    """A transposed convolution in two directions."""
    x, weight, one = _images(name, x, weight, 2)
    groups = integer(name, "groups", groups, 1)
    outs = _result_channels(name, x, weight, groups, transposed=True)
    stride = integers(name, "stride", stride, 2, 1)
    dilation = integers(name, "dilation", dilation, 2, 1)
    padding = integers(name, "padding", padding, 2, 0)
    more = integers(name, "output_padding", output_padding, 2, 0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ShapeError(
            f"{name}: output_padding {more} must be less than stride {stride} or dilation {dilation}"
        )
    reach = _reach(weight, dilation)
    size = tuple(
        (n - 1) * s - 2 * p + r + m
        for n, s, p, r, m in zip(x.shape[-2:], stride, padding, reach, more, strict=True)
    )
    if min(*size, *x.shape[-2:]) < 1:
        raise ShapeError(
            f"{name}: the result would be {_by(size)} for x of shape {x.shape} and weight of shape "
            f"{weight.shape} with stride {stride}, padding {padding} and dilation {dilation}"
        )
    # Where output_padding has room for a whole stride, conv2d comes to a larger image: x with zeros after it.
    x = _batch(x, one, [(0, m // s) for m, s in zip(more, stride, strict=True)])
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    out = apply(TABLE["conv2d_input"], (x, weight), {"size": size, **options})
    if bias is not None:
        # Stretched along one axis after another, as its gradient then is summed.
        across = reshape(_checked_bias(name, bias, x, weight, outs), (outs, 1, 1))
        across = broadcast_to(across, (outs, 1, out.shape[3]))
        out = out + broadcast_to(across, (out.shape[0], *across.shape))
    return out[0] if one else out


def _images(name: str, x: Any, weight: Any, ways: int) -> tuple[Tensor, Tensor, bool]:
    """x and weight as tensors, and whether x is one image without a batch."""
    x = x if isinstance(x, Tensor) else tensor(x)
    weight = weight if isinstance(weight, Tensor) else tensor(weight, backend=x.backend)
    image, kernel = ("H, W", "KH, KW") if ways == 2 else ("L", "K")
    if x.ndim not in (ways + 1, ways + 2):
        raise ShapeError(f"{name}: x must be (N, C, {image}) or (C, {image}), not of shape {x.shape}")
    if weight.ndim != ways + 2 or 0 in weight.shape:
        raise ShapeError(
            f"{name}: weight must have {ways + 2} dimensions with {kernel} last, none of them 0, not the "
            f"shape {weight.shape}"
        )
    return x, weight, x.ndim == ways + 1


def _batch(x: Tensor, one: bool, after: list[tuple[int, int]]) -> Tensor:
    """Images as a batch, with so many rows and columns of zeros after them."""
    x = expand_dims(x, 0) if one else x
    return pad(x, ((0, 0), (0, 0), *after)) if any(n for _, n in after) else x


def _result_channels(name: str, x: Tensor, weight: Tensor, groups: int, transposed: bool = False) -> int:
    """How many channels the result has, once those of x, weight and groups are seen to agree."""
    given, first, second = x.shape[1 - weight.ndim], *weight.shape[:2]
    if given % groups or first % groups:
        what, number = ("channels of x", given) if given % groups else ("kernels", first)
        raise ShapeError(
            f"{name}: {number} {what} do not divide into {groups} groups, with x of shape {x.shape} and "
            f"weight of shape {weight.shape}"
        )
    needed = first if transposed else second * groups
    if given != needed:
        raise ShapeError(
            f"{name}: weight of shape {weight.shape} with {groups} group{'s' * (groups > 1)} is for {needed} "
            f"channels; x of shape {x.shape} has {given}"
        )
    return second * groups if transposed else first


def _checked_bias(name: str, bias: Any, x: Tensor, weight: Tensor, outs: int) -> Tensor:
    bias = bias if isinstance(bias, Tensor) else tensor(bias, backend=x.backend)
    if bias.shape != (outs,):
        raise ShapeError(
            f"{name}: bias must be of shape ({outs},) with weight of shape {weight.shape}, not {bias.shape}"
        )
    return bias


def _reach(weight: Tensor, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """How many rows and columns of an image a kernel lies over."""
    return tuple(d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))


def _by(size: tuple[int, ...]) -> str:
    return " by ".join(map(str, size))
