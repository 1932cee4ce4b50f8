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


def deep(library):
    """The same network of layers in either library, and the state it starts from."""
    net = library.Sequential(
        library.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        library.BatchNorm2d(4),
        library.ReLU(),
        library.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
        library.GroupNorm(3, 6),
        library.MaxPool2d(3, 2, 1),
        library.Conv2d(6, 6, (2, 3), padding=(1, 2), dilation=(1, 2)),
        library.BatchNorm2d(6, momentum=None, affine=False),
        library.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        library.LayerNorm((3, 2)),
        library.Flatten(),
        library.Linear(36, 3),
        library.BatchNorm1d(3, eps=1e-3, momentum=0.3),
    )
    state = {
        name: value if "num" in name else fill(value.shape, i) + (1.0 if "var" in name else 0.0)
        for i, (name, value) in enumerate(net.state_dict().items())
    }
    return net, state


def trained():
    """Our layers after four steps of gradient descent, in float64: losses, states, outputs in evaluation."""
    net, state = deep(nn)
    for _, module in net.named_modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, (nn.Parameter, nn.Buffer)) and value.dtype == np.float32:
                setattr(module, name, type(value)(value.numpy().astype(np.float64)))
    net.load_state_dict(state)
    descent = tg.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    losses = []
    for step in range(4):
        out = net(tg.tensor(fill((5, 2, 7, 7), 0.3 * step)))
        loss = ((out - tg.tensor(fill((5, 3), 1))) ** 2).sum()
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    evaluated = net.eval()(tg.tensor(fill((2, 2, 7, 7), 5))).numpy()
    return losses, net.state_dict(), evaluated


PYTORCH_DEEP = {  # by PyTorch 2.13.0 (CPU, float64), as in the test at the end of this file
    "losses": [7.117637278655, 2.605795861749, 2.381098321388, 3.665102618127],
    "evaluated": [-0.20401137449, -0.691434357511, -0.796079606174],
    "1.running_mean": [-0.105252173078, -0.158115676977, -0.13736058225, -0.052285490367],
    "1.running_var": [0.390357180704, 0.526014404429, 0.745774377416, 0.94999533764],
    "7.running_mean": [
        -1.132310426885,
        -1.579458095118,
        -0.315694827294,
        -0.362524121128,
        -1.049225615764,
        0.069988139613,
    ],
    "7.running_var": [
        0.421730158597,
        0.905698021969,
        0.914100676998,
        0.414441713289,
        1.281330024931,
        1.213873037331,
    ],
    "12.running_var": [0.286974489179, 0.242344824547, 0.190330343538],
    "0.weight": [0.027726949, 0.161331532743, 0.150873972759, 0.171033160497],
    "3.weight": [0.516596688849, 0.433300368985, 0.392071988758, 0.401261381714],
}


def test_deep_layers_train_as_pytorchs():
    losses, state, evaluated = trained()
    ours = {
        "losses": losses,
        "evaluated": evaluated[1],
        "1.running_mean": state["1.running_mean"],
        "1.running_var": state["1.running_var"],
        "7.running_mean": state["7.running_mean"],
        "7.running_var": state["7.running_var"],
        "12.running_var": state["12.running_var"],
        "0.weight": state["0.weight"][:, 0, 1, 1],
        "3.weight": state["3.weight"][:, 1, 0, 2],
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value, PYTORCH_DEEP[name], rtol=1e-8, atol=1e-10, err_msg=name)


def test_deep_layers_train_as_the_pytorch_at_hand():
    torch = pytest.importorskip("torch")
    net, state = deep(torch.nn)
    net = net.double()
    named = [(name, tuple(value.shape)) for name, value in deep(nn)[1].items()]
    assert [(name, tuple(value.shape)) for name, value in state.items()] == named
    net.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    descent = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    expected = []
    for step in range(4):
        out = net(torch.as_tensor(fill((5, 2, 7, 7), 0.3 * step)))
        loss = ((out - torch.as_tensor(fill((5, 3), 1))) ** 2).sum()
        descent.zero_grad()
        loss.backward()
        descent.step()
        expected.append(loss.item())
    with torch.no_grad():
        after = net.eval()(torch.as_tensor(fill((2, 2, 7, 7), 5))).numpy()
    losses, ours, evaluated = trained()
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(evaluated, after, rtol=1e-8, atol=1e-10)
    net.load_state_dict({name: torch.as_tensor(value) for name, value in ours.items()})  # theirs take ours
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(ours[name], value.numpy(), rtol=1e-9, atol=1e-11, err_msg=name)
