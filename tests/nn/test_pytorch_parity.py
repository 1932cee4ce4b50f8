"""Weights travel both ways: PyTorch's names, shapes and gate order give PyTorch's numbers.

The figures below were computed once with PyTorch 2.13.0 (CPU, float64): two layers, the state given, weights
filled by `fill`, the loss the sum of the squared outputs.
"""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn

PYTORCH = {
    "RNN": {
        "output": [0.229177385426, 0.636570079035, 0.621116951244, 0.701865352738],
        "x_grad": [-0.022170680232, -0.044359783959, -0.045685788148],
        "bias_hh_l0_grad": [-0.911080833926, 0.980074240825],
        "weight_hh_l1_grad": [1.913211419703, 3.624643249114],
    },
    "LSTM": {
        "output": [-0.303368146382, 0.153390004131, 0.19885031577, 0.173799087668],
        "x_grad": [0.002042071488, -0.014092840111, -0.023599668799],
        "bias_hh_l0_grad": [
            -0.055697798917,
            -0.026552160634,
            0.005145620436,
            -0.183040938168,
            -0.124053012848,
            -0.017536676383,
        ],
        "weight_hh_l1_grad": [
            0.059176294775,
            0.004564142692,
            0.021779944368,
            0.133641780592,
            0.051909855804,
            0.039625432522,
        ],
    },
    "GRU": {
        "output": [-0.191516966104, -0.082649533861, 0.650416340521, 0.46491835775],
        "x_grad": [-0.024057112623, 0.012639579473, 0.043391679844],
        "bias_hh_l0_grad": [0.002628339285, 0.020496452727, -0.005390731589, -0.137136378935],
        "weight_hh_l1_grad": [-0.004186789638, -0.044760356372, 0.032457517506, 0.058721098548],
    },
}
ORDER = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]  # PyTorch's order of the parameters
NAMES = [*ORDER, *(name.replace("l0", "l1") for name in ORDER)]


def fill(shape, offset):
    return (0.5 * np.sin(np.arange(np.prod(shape)) * 0.7 + offset)).reshape(shape)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", PYTORCH)
def test_outputs_and_gradients_are_pytorchs(kind, fused):
    stack = getattr(nn, kind)(3, 4, 2)
    stack.fused = fused
    assert [name for name, _ in stack.named_parameters()] == NAMES
    for i, (name, p) in enumerate(list(stack.named_parameters())):
        setattr(stack, name, nn.Parameter(fill(p.shape, i)))
    x = tg.tensor(fill((5, 2, 3), 9), requires_grad=True)
    h, c = (tg.tensor(fill((2, 2, 4), k)) for k in (10, 11))
    outputs, _ = stack(x, (h, c) if kind == "LSTM" else h)
    (outputs * outputs).sum().backward()
    ours = {
        "output": outputs.numpy()[-1, 1],
        "x_grad": x.grad.numpy()[0, 0],
        "bias_hh_l0_grad": stack.bias_hh_l0.grad.numpy()[::3],
        "weight_hh_l1_grad": stack.weight_hh_l1.grad.numpy()[::3, 1],
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value, PYTORCH[kind][name], rtol=1e-9, atol=1e-11, err_msg=name)
