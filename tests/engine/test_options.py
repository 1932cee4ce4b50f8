"""Options that are numbers: every op reads them by one rule, and refuses what is none with the same words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import DtypeError, ShapeError, UsageError

IMAGES, ROWS = tg.ones((2, 4, 6, 6)), tg.ones((2, 4, 6))
KERNEL, LINE = tg.ones((4, 4, 2, 2)), tg.ones((4, 4, 2))

# An op by its name, what it is called with, and each option that is a whole number: how many of them there
# are, and the least.
CONVOLUTION = {"stride": (2, 1), "padding": (2, 0), "dilation": (2, 1), "groups": (1, 1)}
IN_ONE_DIRECTION = {name: (1, least) for name, (_, least) in CONVOLUTION.items()}
WHOLE: dict[str, tuple[tuple, dict[str, Any], dict[str, tuple[int | None, int | None]]]] = {
    "conv2d": ((IMAGES, KERNEL), {}, CONVOLUTION),
    "conv1d": ((ROWS, LINE), {}, IN_ONE_DIRECTION),
    "conv_transpose2d": ((IMAGES, KERNEL), {}, {**CONVOLUTION, "output_padding": (2, 0)}),
    "max_pool2d": (
        (IMAGES,),
        {"kernel_size": 2},
        {"kernel_size": (2, 1), "stride": (2, 1), "padding": (2, 0), "dilation": (2, 1)},
    ),
    "avg_pool2d": (
        (IMAGES,),
        {"kernel_size": 2},
        {"kernel_size": (2, 1), "stride": (2, 1), "padding": (2, 0)},
    ),
    "interpolate": ((IMAGES,), {}, {"size": (2, 1)}),
    "crop": (
        (IMAGES,),
        {"top": 0, "left": 0, "height": 2, "width": 2},
        {"top": (1, None), "left": (1, None), "height": (1, 1), "width": (1, 1)},
    ),
    "layer_norm": ((IMAGES,), {}, {"normalized_shape": (None, None)}),
    "group_norm": ((IMAGES,), {}, {"num_groups": (1, 1)}),
}
CASES = [(name, option) for name, (_, _, options) in WHOLE.items() for option in options]


def refused(name: str, option: str, value: Any, error: type) -> str:
    inputs, others, _ = WHOLE[name]
    with pytest.raises(error) as caught:
        getattr(tg, name)(*inputs, **{**others, option: value})
    said = str(caught.value)
    assert said.startswith(f"{name}: {option} must be ") and "\n" not in said
    return said


@pytest.mark.parametrize("name, option", CASES)
def test_what_is_no_integer_is_a_dtype_error(name: str, option: str) -> None:
    count = WHOLE[name][2][option][0]
    wanted = "an integer" + ("" if count == 1 else f" or {count or 'several'} of them")
    for value in (1.5, 2.0, True, "2", {2}, np.float32(2), np.True_, 1j):
        assert f"{wanted}, not {value!r}" in refused(name, option, value, DtypeError)
    if count != 1:
        for value in ((2, 2.0), (True, 1), (None, 2)):
            assert f"{wanted}, not {value!r}" in refused(name, option, value, DtypeError)
    long = refused(name, option, ("no number",) * 99, DtypeError)
    assert long.endswith("not a tuple")


@pytest.mark.parametrize(
    "name, option", [case for case in CASES if case[0] not in ("max_pool2d", "avg_pool2d")]
)
def test_a_tensor_is_no_option(name: str, option: str) -> None:
    """It would get no gradient, and be read back from wherever it is."""
    assert "not tensor(2)" in refused(name, option, tg.tensor(2), DtypeError)


@pytest.mark.parametrize("name, option", CASES)
def test_integers_too_small_too_many_or_too_few_are_a_shape_error(name: str, option: str) -> None:
    count, least = WHOLE[name][2][option]
    if least is not None:
        assert f"at least {least}, not {least - 1}" in refused(name, option, least - 1, ShapeError)
    if count == 2:
        for value in ((2,), (2, 2, 2), ()):
            assert f"an integer or 2 of them, not {value!r}" in refused(name, option, value, ShapeError)
        assert f"at least {least}, not (1, -5)" in refused(name, option, (1, -5), ShapeError)


@pytest.mark.parametrize("name, option", CASES)
def test_numpys_integers_are_integers(name: str, option: str) -> None:
    inputs, others, options = WHOLE[name]
    value = {"normalized_shape": 6, "padding": 0, "output_padding": 0}.get(option, 1)
    call: Callable = getattr(tg, name)
    outs = [
        call(*inputs, **{**others, option: same}) if option != "groups" else call(*inputs, groups=same)
        for same in (value, np.int64(value), np.uint8(value))
    ]
    if options[option][0] == 2:
        outs.append(call(*inputs, **{**others, option: [np.int32(value), value]}))
    for out in outs[1:]:
        np.testing.assert_array_equal(out.numpy(), outs[0].numpy())


NORMS: dict[str, Callable] = {
    "batch_norm": lambda **options: tg.batch_norm(IMAGES, tg.zeros(4), tg.ones(4), **options),
    "layer_norm": lambda **options: tg.layer_norm(IMAGES, 6, **options),
    "group_norm": lambda **options: tg.group_norm(IMAGES, 2, **options),
}


@pytest.mark.parametrize("name", NORMS)
def test_eps_is_a_number_of_at_least_0(name: str) -> None:
    for value in (None, "1e-5", True, (1e-5,), tg.tensor(1e-5)):
        with pytest.raises(DtypeError, match=rf"^{name}: eps must be a number, not "):
            NORMS[name](eps=value)
    for value in (-1, -1e-9, float("nan"), float("inf")):
        with pytest.raises(
            UsageError, match=rf"^{name}: eps .* at least 0, and cannot be {re.escape(str(float(value)))}"
        ):
            NORMS[name](eps=value)


@pytest.mark.parametrize("training", [True, False])
def test_momentum_is_a_finite_number(training: bool) -> None:
    for value in (None, "0.1", True):
        with pytest.raises(DtypeError, match=f"^batch_norm: momentum must be a number, not {value!r}"):
            NORMS["batch_norm"](momentum=value, training=training)
    with pytest.raises(UsageError, match=r"momentum is a part of the way, such as 0.1, and cannot be nan"):
        NORMS["batch_norm"](momentum=float("nan"), training=training)


def test_numpys_numbers_are_numbers_and_change_no_dtype() -> None:
    mean, var = tg.zeros(4), tg.ones(4)
    x = tg.tensor(np.random.default_rng(0).normal(size=(3, 4)).astype("float32"))
    for training in (True, False):
        out = tg.batch_norm(x, mean, var, training=training, momentum=np.float64(0.5), eps=np.float64(1e-3))
        assert out.dtype == mean.dtype == var.dtype == "float32"
    assert tg.layer_norm(x, 4, eps=np.float64(1e-3)).dtype == tg.group_norm(x, 2, eps=np.float64(1)).dtype
