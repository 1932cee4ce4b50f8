"""Stepping through a backward pass: every number against another way to it."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tests.inspect.conftest import small
from tinygrad_rnn.engine.annotate import annotate
from tinygrad_rnn.engine.node import Node
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.engine.ops.loss import cross_entropy
from tinygrad_rnn.engine.tensor import Tensor, apply
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, View, run
from tinygrad_rnn.inspect.jacobian import explicit, flattened, jacobian
from tinygrad_rnn.inspect.operands import Values
from tinygrad_rnn.inspect.tape import on_host
from tinygrad_rnn.inspect.visit import Visit

FUSED = {"rnn", "lstm", "gru", "language_model", "checkpoint"}  # more than one equation each
ELSEWHERE = {"transfer"}  # needs a second array library

# --- graphs with every op -------------------------------------------------------------------------


def leaves() -> dict[str, Tensor]:
    rng = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {
        "x": (2, 3),
        "y": (2, 3),
        "W": (4, 3),
        "v": (3,),
        "u": (3,),
        "z": (2, 2, 3),
    }
    found = {name: tg.tensor(rng.normal(size=shape), requires_grad=True) for name, shape in shapes.items()}
    found["p"] = tg.tensor(rng.uniform(0.5, 2, (2, 3)), requires_grad=True)
    found["s"] = tg.tensor(rng.normal(size=(2, 1)), requires_grad=True)
    return found


GRAPHS: dict[str, Callable[..., Any]] = {
    "add": lambda x, v, **_: x + v,
    "add a number": lambda x, **_: x + 1.5,
    "subtract": lambda x, s, **_: x - s,
    "subtract from a number": lambda x, **_: 1 - x,
    "multiply": lambda x, v, **_: x * v,
    "multiply by itself": lambda x, **_: x * x,
    "divide": lambda x, p, **_: x / p,
    "power": lambda p, y, **_: p**y,
    "power of a number": lambda x, **_: x**2,
    "negative": lambda x, **_: -x,
    "abs": lambda x, **_: abs(x),
    "sqrt": lambda p, **_: p.sqrt(),
    "exp": lambda x, **_: x.exp(),
    "expm1": lambda x, **_: x.expm1(),
    "log": lambda p, **_: p.log(),
    "log1p": lambda p, **_: p.log1p(),
    "sin": lambda x, **_: x.sin(),
    "cos": lambda x, **_: x.cos(),
    "tanh": lambda x, **_: x.tanh(),
    "sigmoid": lambda x, **_: x.sigmoid(),
    "relu": lambda x, **_: x.relu(),
    "leaky_relu": lambda x, **_: apply(TABLE["leaky_relu"], (x,), {"negative_slope": 0.1}),
    "softplus": lambda x, **_: apply(TABLE["softplus"], (x,), {}),
    "maximum": lambda x, y, **_: apply(TABLE["maximum"], (x, y), {}),
    "minimum": lambda x, v, **_: apply(TABLE["minimum"], (x, v), {}),
    "clip": lambda x, **_: x.clip(-0.5, 0.6),
    "where": lambda x, v, y, **_: tg.where(y > 0, x, v),
    "dropout_mask": lambda x, **_: tg.dropout(x, 0.5, key=(1, 2, 3)),
    "identity": lambda x, **_: apply(TABLE["identity"], (x,), {}),
    "astype": lambda x, **_: x.astype("float32"),
    "getitem a row": lambda x, **_: x[1],
    "getitem twice": lambda x, **_: x[np.array([0, 1, 0])],
    "getitem slices": lambda z, **_: z[:, 0, 1:],
    "scatter": lambda x, **_: apply(TABLE["scatter"], (x,), {"index": np.array([3, 1]), "shape": (5, 3)}),
    "matmul": lambda x, W, **_: x @ W.T,
    "matmul vectors": lambda v, u, **_: v @ u,
    "matmul with a vector": lambda x, v, **_: x @ v,
    "matmul of a vector": lambda v, W, **_: v @ W.T,
    "matmul of many rows": lambda z, W, **_: z @ W.T,
    "matmul of many and a vector": lambda z, v, **_: z @ v,
    "matmul of many": lambda z, y, **_: z @ tg.stack([y.T, y.T * 2]),
    "matmul stretched": lambda x, z, **_: x @ z.swapaxes(1, 2),
    "einsum": lambda x, W, **_: tg.einsum("ij,kj->ik", x, W),
    "cross_entropy": lambda x, **_: cross_entropy(x, tg.tensor(np.array([2, 0]))),
    "cross_entropy of each": lambda x, **_: cross_entropy(x, tg.tensor(np.array([2, 0])), reduction="none"),
    "mse": lambda x, y, **_: apply(TABLE["mse"], (x, y), {"reduction": "mean"}),
    "mse of each": lambda x, y, **_: apply(TABLE["mse"], (x, y), {"reduction": "none"}),
    "binary cross entropy": lambda x, p, **_: apply(
        TABLE["binary_cross_entropy_with_logits"], (x, p), {"reduction": "sum"}
    ),
    "sum": lambda x, **_: x.sum(),
    "sum along an axis": lambda z, **_: z.sum(axis=1),
    "mean along axes": lambda z, **_: z.mean(axis=(0, 2)),
    "mean keeping dimensions": lambda z, **_: z.mean(axis=-1, keepdims=True),
    "var": lambda x, **_: x.var(axis=1, ddof=1),
    "max": lambda x, **_: x.max(axis=0),
    "min": lambda x, **_: x.min(axis=1),
    "prod": lambda x, **_: x.prod(axis=1),
    "logsumexp": lambda x, **_: x.logsumexp(axis=1),
    "softmax": lambda z, **_: tg.softmax(z, axis=1),
    "log_softmax": lambda x, **_: tg.log_softmax(x),
    "cumsum": lambda v, **_: apply(TABLE["cumsum"], (v,), {"axis": None}),
    "cumsum along an axis": lambda x, **_: apply(TABLE["cumsum"], (x,), {"axis": 1}),
    "norm": lambda x, **_: apply(TABLE["norm"], (x,), {"ord": None, "axis": 1, "keepdims": False}),
    "reshape": lambda x, **_: x.reshape(3, 2),
    "transpose": lambda z, **_: z.transpose(1, 2, 0),
    "swapaxes": lambda z, **_: z.swapaxes(0, 2),
    "moveaxis": lambda z, **_: apply(TABLE["moveaxis"], (z,), {"source": 0, "destination": 2}),
    "expand_dims": lambda x, **_: apply(TABLE["expand_dims"], (x,), {"axis": 1}),
    "squeeze": lambda s, **_: apply(TABLE["squeeze"], (s,), {"axis": 1}),
    "broadcast_to": lambda s, **_: apply(TABLE["broadcast_to"], (s,), {"shape": (2, 3)}),
    "flip": lambda x, **_: apply(TABLE["flip"], (x,), {"axis": 1}),
    "concatenate": lambda x, y, **_: tg.concatenate([x, y], axis=1),
    "concatenate flat": lambda x, v, **_: tg.concatenate([x, v], axis=None),
    "stack": lambda x, y, **_: tg.stack([x, y], axis=1),
    "split": lambda x, **_: tg.split(x, 3, axis=1)[2],
    "split, two used": lambda z, **_: (lambda a, b, c: a * c)(*tg.split(z, 3, axis=-1)),
    "pad": lambda x, **_: apply(
        TABLE["pad"], (x,), {"pad_width": ((1, 0), (2, 1)), "mode": "constant", "constant_values": 7}
    ),
    "conv2d": lambda z, W, v, **_: tg.conv2d(image(z), W.reshape(3, 2, 1, 2), v, padding=(1, 0)),
    "conv2d in groups": lambda z, W, **_: tg.conv2d(image(z), W.reshape(6, 1, 1, 2), stride=2, groups=2),
    "conv2d_input": lambda z, W, **_: apply(
        TABLE["conv2d_input"], (image(z), W.reshape(2, 3, 1, 2)), {"size": (2, 4), **SIDE_BY_SIDE}
    ),
    "conv2d_weight": lambda z, y, **_: apply(
        TABLE["conv2d_weight"], (image(z), y.reshape(1, 3, 1, 2)), {"kernel_size": (2, 2), **SIDE_BY_SIDE}
    ),
    "batch_norm": lambda z, u, **_: tg.batch_norm(z, None, None, u[:2], u[1:], training=True),
    "max_pool2d": lambda z, **_: tg.max_pool2d(image(z), (1, 2), stride=1),
    "take_winners": lambda z, **_: apply(TABLE["take_winners"], (image(z), WINNERS), PAIRS),
    "put_winners": lambda y, **_: apply(
        TABLE["put_winners"], (y[:, :2].reshape(1, 2, 1, 2), WINNERS), {"size": (1, 3), **PAIRS}
    ),
    "avg_pool2d": lambda z, **_: tg.avg_pool2d(image(z), (1, 2), padding=(0, 1), count_include_pad=False),
    "avg_pool2d_gradient": lambda z, **_: apply(
        TABLE["avg_pool2d_gradient"], (image(z),), {"size": (2, 4), **PAIRS}
    ),
    "interpolate": lambda z, **_: tg.interpolate(image(z), (3, 2), mode="bilinear"),
    "interpolate_gradient": lambda z, **_: apply(
        TABLE["interpolate_gradient"], (image(z),), {"size": (2, 2), "mode": "nearest"}
    ),
}
SIDE_BY_SIDE = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
PAIRS = {"kernel_size": (1, 2), "stride": (1, 1)}
WINNERS = np.array([[[[0, 1]], [[1, 0]]]])


def image(z: Tensor) -> Tensor:
    """One of two channels, two rows and three columns."""
    return z.reshape(1, 2, 2, 3)


def looked_at(session: Session, name: str) -> None:
    """Look at one of these graphs, each element of the result with a weight of its own."""
    with annotate(session.observer):
        given = leaves()
        out = GRAPHS[name](**given)
        weights = np.random.default_rng(2).normal(size=out.shape)
        root = (out * tg.tensor(weights.astype(out.dtype))).sum()
    session.namespace.update(given)
    session.look_at(root)


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Session:
    """A session that looks at one of them."""
    session = small("rnn", layers=1, length=2)
    looked_at(session, request.param)
    return session


def test_every_op_has_a_graph() -> None:
    session, seen = small("rnn", layers=1, length=2), set()
    for name in GRAPHS:
        looked_at(session, name)
        seen |= {node.op.name for node in session.focus.nodes if node.op is not None}
    built_in = {name for name, op in TABLE.items() if op.differentiable and op.source == "built-in"}
    assert seen == built_in - FUSED - ELSEWHERE


# --- Jacobians ------------------------------------------------------------------------------------


def central_differences(session: Session, node: Node, number: int, eps: float = 1e-6) -> np.ndarray:
    """The Jacobian by the op's forward alone."""
    op = node.op
    assert op is not None
    inputs = [one.value for one in Values(session).operands(node)]
    at = np.array(inputs[number], np.float64)

    def forward(x: np.ndarray) -> np.ndarray:
        arrays = [x if i == number else value for i, value in enumerate(inputs)]
        params = node.params | ({"dtype": "float64"} if op.name == "astype" else {})
        out = node.backend.forward[op](*arrays, **params)
        if op.has_residuals:
            out, _ = out
        return flattened(node, on_host(node, out))

    columns = []
    for place in range(at.size):
        shift = eps * (np.arange(at.size) == place).reshape(at.shape)
        columns.append((forward(at + shift) - forward(at - shift)) / (2 * eps))
    return np.array(columns).T


def kinds_of_nodes(session: Session) -> list[tuple[Node, int]]:
    """A node and an input of each kind that there is in a graph."""
    found: dict[Any, tuple[Node, int]] = {}
    for node in session.focus.order:
        for delivery in Visit(session, node).deliveries:
            key = node.op.name, delivery.number, node.module, str(node.shape)  # type: ignore[union-attr]
            found.setdefault(key, (node, delivery.number))
    return [*found.values()]


def check(session: Session, node: Node, number: int) -> None:
    found = jacobian(node, number)
    full, pushed = found.matrix(), explicit(node, number)
    assert full.shape == pushed.shape == (found.rows, found.columns)
    np.testing.assert_allclose(pushed, central_differences(session, node, number), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(full, pushed, rtol=1e-12, atol=1e-14)
    for place in range(found.columns):
        rows, values = found.column(place)
        column = np.zeros(found.rows)
        column[rows] = values
        np.testing.assert_array_equal(column, full[:, place])
    assert STRUCTURES[found.kind](pushed, found.text)


def ones(matrix: np.ndarray) -> bool:
    return bool(((matrix == 0) | (matrix == 1)).all())


STRUCTURES: dict[str, Callable[[np.ndarray, str], bool]] = {
    "identity": lambda m, said: (m == np.eye(len(m)) * (-1 if "minus" in said else 1)).all(),
    "diagonal": lambda m, said: (m == np.diag(np.diag(m))).all(),
    "permutation": lambda m, said: ones(m) and (m.sum(0) == 1).all() and (m.sum(1) == 1).all(),
    "selection": lambda m, said: (
        ones(m) and (m.sum(1) <= 1).all() and ("in each row" in said) == (m.sum(1) == 1).all()
    ),
    "broadcast": lambda m, said: (np.count_nonzero(m, axis=1) <= 1).all() and m.shape[0] > m.shape[1],
    "row": lambda m, said: m.shape[0] == 1,
    "reduction": lambda m, said: (np.count_nonzero(m, axis=0) <= 1).all(),
    "b^T": lambda m, said: True,  # as "kron" and "softmax", compared with the matrices below
    "kron": lambda m, said: True,
    "softmax": lambda m, said: np.allclose(m.sum(1), 0),
    "triangular": lambda m, said: (m == np.tri(len(m))).all(),
    "dense": lambda m, said: True,
}


def test_jacobians_of_a_window(each: Session) -> None:
    each.show(0, 4, None)
    for node, number in kinds_of_nodes(each):
        check(each, node, number)


def test_jacobians_of_every_op(graph: Session) -> None:
    for node, number in kinds_of_nodes(graph):
        check(graph, node, number)


def test_jacobian_of_a_matrix_product(session: Session) -> None:
    node = next(
        n for n in session.focus.order if n.op is not None and n.op.name == "matmul" and n.module == "output"
    )
    a, b = (one.value for one in Values(session).operands(node))
    rows = a.reshape(-1, a.shape[-1])
    np.testing.assert_array_equal(jacobian(node, 0).matrix(), np.kron(np.eye(len(rows)), b.T))
    np.testing.assert_array_equal(jacobian(node, 1).matrix(), np.kron(rows, np.eye(b.shape[1])))
    assert (jacobian(node, 0).kind, jacobian(node, 1).kind) == ("b^T", "kron")


def test_a_users_op_is_searched_for_its_structure(session: Session) -> None:
    @tg.custom_op(lambda F, g, out, x: g * 3 * x * x)
    def cubed_here(xp: Any, x: Any) -> Any:
        """x^3"""
        return x * x * x

    try:
        x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
        session.look_at(cubed_here(x).sum())
        node = session.focus.order[1]
        assert jacobian(node, 0).kind == "diagonal"
        np.testing.assert_array_equal(jacobian(node, 0).matrix(), np.diag([3.0, 12.0]))
    finally:
        del TABLE["cubed_here"]


# --- the walk -------------------------------------------------------------------------------------


def test_steps_end_with_the_gradients_of_backward(each: Session) -> None:
    """Of the kernel over the whole window, which has nothing in common with the graph stepped through."""
    visited, arrived = [], {}
    for count in range(1, len(each.focus.order) + 1):
        view = run(each, "step")
        assert view.data["step"] == count
        visited.append(view.data["node"])
        for one in view.data["inputs"]:
            arrived[one["into"]] = one["after"]
    assert len(set(visited)) == len(visited)
    logits, _ = each.model(each.recording.symbols[:, None])
    each.model.zero_grad()
    cross_entropy(logits, tg.tensor(each.recording.targets[:, None])).backward()
    for name, parameter in each.model.named_parameters():
        assert parameter.grad is not None
        wanted = parameter.grad.numpy()
        assert arrived[name]["norm"] == pytest.approx(np.linalg.norm(wanted), rel=1e-9)
        assert arrived[name]["max"] == pytest.approx(wanted.max(), rel=1e-9)
        last = [
            d
            for n in each.focus.order
            for d in Visit(each, n).deliveries
            if n.parents[d.number] is parameter.node
        ]
        np.testing.assert_allclose(last[-1].after, wanted, rtol=1e-9, atol=1e-15)
    with pytest.raises(UsageError, match="is over"):
        run(each, "step")


def test_accumulators(each: Session) -> None:
    """Each sum begins where the last one ended, and ends as the gradient that its node is visited with."""
    sums: dict[tuple[Node, int], np.ndarray] = {}
    for node in each.focus.order:
        g = each.focus.gradients[node]
        for output, one in enumerate(g if node.outputs is not None else [g]):
            if node is not each.focus.root.node and one is not None:
                np.testing.assert_array_equal(sums[node, output], one)
        for delivery in Visit(each, node).deliveries:
            key = node.parents[delivery.number], node.output_used(delivery.number)
            if delivery.place == 1:
                assert delivery.before is None and key not in sums
            else:
                np.testing.assert_array_equal(delivery.before, sums[key])
                np.testing.assert_array_equal(delivery.after, sums[key] + delivery.gradient)
            sums[key] = delivery.after


def test_what_a_stop_shows(session: Session, say: Callable[[str], View]) -> None:
    t = 12
    view = say(f"until c[{t}]")
    text, data = view.text(200), view.data
    own = np.asarray(session.recording.gradients("c", 1)[t])
    np.testing.assert_allclose(data["gradient"]["values"][0], own)
    assert data["node"] == f"c_l1[{t}]" and data["op"] == "add" and data["time_step"] == t
    assert "the sum of 2 contributions" in text and data["stopped"] is None
    first, second = data["inputs"]
    assert first["jacobian"]["kind"] == second["jacobian"]["kind"] == "identity"
    np.testing.assert_allclose(first["contribution"]["values"], own[None])
    say("restart")
    h = say(f"until h[{t}]").data
    o, c = session.recording.values("o", 1)[t], session.recording.values("c", 1)[t]
    np.testing.assert_allclose(h["inputs"][0]["jacobian"]["values"], np.diag(np.tanh(c)))
    np.testing.assert_allclose(h["inputs"][1]["jacobian"]["values"], np.diag(o))


def test_the_second_of_two_contributions(session: Session, say: Callable[[str], View]) -> None:
    """c[t] is used by h[t] through tanh, and by c[t+1]: in the backward pass c[t+1] comes first."""
    t = 12
    say(f"until h[{t}]")
    [into] = say("step").data["inputs"]
    assert (into["into"], into["place"], into["count"]) == (f"c_l1[{t}]", 2, 2)
    f = session.recording.values("f", 1)[t + 1]
    later = session.recording.gradients("c", 1)[t + 1]
    np.testing.assert_allclose(into["before"]["values"][0], f * later)
    np.testing.assert_allclose(into["after"]["values"][0], session.recording.gradients("c", 1)[t])
    assert "2nd of 2 contributions" in say("where").text()


def test_back_and_again(each: Session) -> None:
    run(each, "step 7")
    there = run(each, "step")
    run(each, "step 5")
    run(each, "back 5")
    again = run(each, "where")
    assert again.text() == there.text() and again.to_dict() == there.to_dict()
    run(each, "back")
    assert run(each, "step").to_dict() == there.to_dict()
    run(each, "restart")
    assert run(each, "where").data["step"] == 0
    with pytest.raises(UsageError, match="no node was visited"):
        run(each, "back")
    run(each, "step 3")
    with pytest.raises(UsageError, match="3 nodes were visited"):
        run(each, "back 4")


def test_gradients_of_parameters_are_left_alone(session: Session, say: Callable[[str], View]) -> None:
    before = {
        name: p.grad.numpy().copy() for name, p in session.model.named_parameters() if p.grad is not None
    }
    say("continue")
    say("back 20")
    say("continue")
    for name, parameter in session.model.named_parameters():
        np.testing.assert_array_equal(parameter.grad.numpy(), before[name])  # type: ignore[union-attr]


def test_next_goes_to_another_module_or_time_step(each: Session) -> None:
    order = each.focus.order
    scopes = [(node.op is None, node.module, node.time_step) for node in order]
    wanted = [1] + [k + 2 for k, (a, b) in enumerate(pairwise(scopes)) if a != b]
    run(each, "step")
    stops = [1]
    while run(each, "where").data["step"] < wanted[-1]:
        stops.append(run(each, "next").data["step"])
    assert stops == wanted
    assert run(each, "next").data["step"] == len(order)


# --- breakpoints ----------------------------------------------------------------------------------


def norm_of(gradient: Any) -> float:
    parts = gradient if isinstance(gradient, list) else [gradient]
    return float(np.sqrt(sum((np.asarray(p, float) ** 2).sum() for p in parts if p is not None)))


def entering(holds: list[bool]) -> list[int]:
    return [k + 1 for k, here in enumerate(holds) if here and not (k and holds[k - 1])]


@pytest.mark.parametrize(
    "condition", ["op tanh", "op add", "module rnn.l0", "module rnn", "t 3", "norm<1e-2", "norm > 0.1"]
)
def test_breakpoints_stop_where_a_scan_says(each: Session, condition: str) -> None:
    tape = each.focus
    what, _, value = condition.partition(" ")
    if what == "op":
        wanted = [k + 1 for k, n in enumerate(tape.order) if n.op is not None and n.op.name == value]
    elif what == "module":
        wanted = entering(
            [n.module is not None and re.match(rf"{value}(\.|$)", n.module) is not None for n in tape.order]
        )
    elif what == "t":
        wanted = entering([n.time_step == 3 for n in tape.order])
    elif "<" in condition:
        wanted = entering([norm_of(tape.gradients[n]) < 1e-2 for n in tape.order])
    else:
        wanted = entering([norm_of(tape.gradients[n]) > 0.1 for n in tape.order])
    assert len(wanted) > (0 if what == "module" else 1), "nothing is tested"
    said = run(each, f"break {condition}")
    assert said.data["steps"] == wanted
    stops = []
    while True:
        view = run(each, "continue")
        if view.data["stopped"] is None:
            break
        assert view.data["stopped"].startswith("breakpoint 1")
        stops.append(view.data["step"])
        if view.data["step"] == len(tape.order):
            break
    assert stops == wanted


def test_break_nan_stops_where_it_is_born(session: Session, say: Callable[[str], View]) -> None:
    with annotate(session.observer), np.errstate(all="ignore"):
        x = tg.tensor(np.array([0.0, 4.0]), requires_grad=True)
        y = x * 1.0
        root = y.sqrt().sum() * 0.0  # 0 times the infinite slope of sqrt at 0
    session.look_at(root)
    bad = [not np.isfinite(session.focus.gradients[n]).all() for n in session.focus.order]
    say("break nan")
    view = say("continue")
    assert view.data["op"] == "sqrt" and view.data["step"] == bad.index(
        True
    )  # the node before, counted from 1
    assert "not finite" in view.text()


def test_every_way_to_go_on_stops_at_a_breakpoint(say: Callable[[str], View]) -> None:
    at = say("break op tanh").data["steps"][0]
    for line in ("step 500", "until weight_hh_l0", "continue"):
        say("restart")
        assert say(line).data["step"] == at
    say("break delete 1")
    say("restart")
    assert say("step 50").data["step"] == 50


def test_until(session: Session, say: Callable[[str], View]) -> None:
    order = session.focus.order
    node = session.recording.node("h", 0, 4)
    assert node is not None
    view = say("until h_l0[4]")
    assert order[view.data["step"] - 1] is node and view.data["node"] == "h_l0[4]"
    with pytest.raises(UsageError, match="has just been visited"):
        say("until h_l0[4]")
    with pytest.raises(UsageError, match="was visited at step"):
        say("until h[7]")
    assert say("until weight_hh_l0").data["op"] is None


def test_lists(say: Callable[[str], View]) -> None:
    assert "no breakpoint" in say("break").title
    say("break op tanh")
    say("break t 3")
    assert say("break").data["entries"] == {1: "op tanh", 2: "t 3"}
    say("break delete 1")
    say("break nan")
    assert say("break").data["entries"] == {2: "t 3", 3: "nan"}
    with pytest.raises(UsageError, match="is breakpoint 2 already"):
        say("break t 3")
    assert "no watch" in say("watch").title
    say("watch norm(g)")
    assert say("watch").data["entries"] == {1: "norm(g)"}
    say("watch delete 1")
    assert say("watch").data["entries"] == {}


def test_watches(session: Session, say: Callable[[str], View]) -> None:
    say("watch norm(g)")
    say("watch g * b")
    say("watch np.abs(out).max()")
    view = say("until h[12]")
    seen = view.data["watches"]
    rec = session.recording
    g = rec.gradients("h", 1)[12]
    assert seen["norm(g)"] == pytest.approx(np.linalg.norm(g))
    np.testing.assert_allclose(seen["g * b"]["values"][0], g * np.tanh(rec.values("c", 1)[12]))
    assert seen["np.abs(out).max()"] == pytest.approx(np.abs(rec.values("h", 1)[12]).max())
    view = say("step")  # tanh has no b
    assert view.data["watches"]["g * b"] is None and "no 'b' here" in view.text(200)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("step 0", "1 or more"),
        ("step x", "invalid int"),
        ("back 0", "1 or more"),
        ("until nowhere", "there is no 'nowhere'"),
        ("break op foo", "the ops of this graph: add"),
        ("break module foo", "rnn.l0"),
        ("break t 99", "0 to 19"),
        ("break t x", "0 to 19"),
        ("break t ²", "0 to 19"),
        ("break delete ²", "there are none"),
        ("watch delete ²", "there are none"),
        ("break norm<x", "x is no number"),
        ("break bla", "say op NAME"),
        ("break delete 1", "there are none"),
        ("watch 3 *", "invalid syntax"),
        ("watch delete x", "there are none"),
    ],
)
def test_bad_input_is_one_line(say: Callable[[str], View], line: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        say(line)
    assert "\n" not in str(error.value)


# --- graphs of the user's -------------------------------------------------------------------------


def test_every_graph_can_be_stepped_through(graph: Session) -> None:
    for _ in graph.focus.order:
        view = run(graph, "step")
        assert view.to_dict() and view.text(80) and view.html()
    wanted = {name: x for name, x in graph.namespace.items() if x.node in graph.focus.numbers}
    graph.focus.root.backward(retain_graph=True)
    for _, x in wanted.items():
        deliveries = [
            d for n in graph.focus.order for d in Visit(graph, n).deliveries if n.parents[d.number] is x.node
        ]
        np.testing.assert_allclose(deliveries[-1].after, x.grad.numpy(), rtol=1e-12)


def test_a_value_used_twice_by_one_op(session: Session, say: Callable[[str], View]) -> None:
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    session.namespace["x"] = x
    session.look_at((x * x).sum())
    first, second = say("step 2").data["inputs"]
    assert (first["into"], first["place"], second["place"], second["count"]) == ("x", 1, 2, 2)
    np.testing.assert_array_equal(second["before"]["values"], [2.0, 3.0])
    np.testing.assert_array_equal(second["after"]["values"], [4.0, 6.0])


def test_looking_adds_nothing_to_a_retained_gradient(session: Session) -> None:
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    y = x * 2
    y.retain_grad()
    z = y.sum()
    z.backward(retain_graph=True)
    session.look_at(z)
    run(session, "step 3")
    run(session, "back 3")
    run(session, "continue")
    for value, wanted in ((y, [1, 1]), (x, [2, 2])):
        assert value.grad is not None
        np.testing.assert_array_equal(value.grad.numpy(), wanted)


def test_another_graph_begins_anew(session: Session, say: Callable[[str], View]) -> None:
    say("step 9")
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    session.look_at(x.sum())
    assert say("where").data == {"step": 0, "steps": 2, "next": "#2"}
    with pytest.raises(UsageError, match="no time steps"):
        say("break t 3")


def test_what_the_user_said_stays_and_the_place_does_not(
    session: Session, say: Callable[[str], View]
) -> None:
    for line in ("break nan", "break op tanh", "watch norm(g)", "step 9"):
        say(line)
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    for look in (lambda: session.look_at(x.tanh().sum()), session.record, lambda: session.look_at(None)):
        look()
        assert say("where").data["step"] == 0
        assert say("break").data["entries"] == {1: "nan", 2: "op tanh"}
        assert say("watch").data["entries"] == {1: "norm(g)"}
        stopped = say("continue")
        assert stopped.data["stopped"] == "breakpoint 2: op tanh" and "norm(g)" in stopped.data["watches"]


def test_nothing_of_an_old_graph_is_kept(session: Session, say: Callable[[str], View]) -> None:
    """Another graph frees the tape of the last one, whatever is remembered."""
    for line in ("break op tanh", "break t 3", "break module rnn", "break norm>10", "break nan", "quiz h[3]"):
        say(line)
    old = weakref.ref(session.recording)
    session.record()
    assert old() is None


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: x.sum(),
        lambda x, y: x.sum(axis=1).sum(),
        lambda x, y: (x * y).sum(),
        lambda x, y: x * y,
        lambda x, y: (x @ y.T).sum(),
        lambda x, y: tg.concatenate([x, y]).sum(),
        lambda x, y: tg.softmax(x, axis=1).sum(),
        lambda x, y: tg.split(x, 3, axis=1)[0],
        lambda x, y: x,
    ],
)
def test_empty_arrays(session: Session, say: Callable[[str], View], make: Callable[..., Tensor]) -> None:
    x, y = (tg.tensor(np.zeros((0, 3)), requires_grad=True) for _ in "xy")
    with annotate(session.observer):
        root = make(x, y)
    session.look_at(root)
    say("restart").text()
    for number in range(1, len(session.focus.nodes) + 1):
        say("step").text()
        for line in (f"derive #{number}", f"check #{number}"):
            say(line).text()
    assert "empty" in say(f"derive #{session.focus.numbers[x.node]}").text()  # type: ignore[index]
    assert "wrong" not in say("check all").title


def test_one_of_several_outputs_as_the_root(session: Session, say: Callable[[str], View]) -> None:
    x = tg.tensor(np.ones((2, 4)), requires_grad=True)
    session.look_at(tg.split(x, 2, axis=1)[0])
    text = say("restart").text()
    assert "g[0]  dL/d#2.0, (2, 2): 1 1 1 1" in text and "g[1]  dL/d#2.1, none" in text
    [into] = say("step").data["inputs"]
    np.testing.assert_array_equal(into["contribution"]["values"], [[1, 1, 0, 0], [1, 1, 0, 0]])


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["h[12]", "c[12]", "f[12]", "weight_hh_l0"])
def test_picture_of_a_stop(say: Callable[[str], View], golden: Callable[[View], None], node: str) -> None:
    golden(say(f"until {node}"))


def test_picture_of_a_matrix_product(
    session: Session, say: Callable[[str], View], golden: Callable[[View], None]
) -> None:
    say("watch norm(g)")
    say("break op matmul")
    say("continue")
    golden(say("continue"))
