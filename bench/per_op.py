"""What one op costs, forward and backward, beyond its arithmetic: engines side by side.

    python -m bench.per_op [--rounds 15] [--json]

The work: 1,000 times h = tanh(h @ W + b), with h and b of 4x16, W of 16x16, float32, then the gradients of
h, W and b. That is 3,000 ops, small enough that the time is the engine's own. "By hand" is the same in plain
NumPy without an engine: the floor. PyTorch and HIPS autograd take part where they are installed. The engines
run in alternation in one process; shown are medians, and each engine's gradient of W is first compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import tinygrad_rnn as tg

from .environment import without_settings
from .works import OURS

STEPS = 1000
OPS = 3 * STEPS
rng = np.random.default_rng(0)
H0 = rng.standard_normal((4, 16)).astype(np.float32)
W = (0.2 * rng.standard_normal((16, 16))).astype(np.float32)
B = rng.standard_normal((4, 16)).astype(np.float32)
ONES = np.ones_like(H0)


def by_hand() -> tuple[float, np.ndarray]:
    hs = [H0]
    for _ in range(STEPS):
        hs.append(np.tanh(hs[-1] @ W + B))
    middle = time.perf_counter()
    g, dw, db = ONES, np.zeros_like(W), np.zeros_like(B)
    for before, h in zip(hs[-2::-1], hs[:0:-1], strict=True):
        g = (g + g * h) * (1 - h)
        db += g
        dw += before.T @ g
        g = g @ W.T
    return middle, dw


def ours() -> tuple[float, np.ndarray]:
    h, w, b = (tg.tensor(a, requires_grad=True) for a in (H0, W, B))
    for _ in range(STEPS):
        h = tg.tanh(h @ w + b)
    middle = time.perf_counter()
    h.backward(ONES)
    assert w.grad is not None
    return middle, w.grad.array


def pytorch() -> Callable[[], tuple[float, np.ndarray]]:
    import torch

    torch.set_num_threads(1)

    def run() -> tuple[float, np.ndarray]:
        h, w, b = (torch.tensor(a, requires_grad=True) for a in (H0, W, B))
        for _ in range(STEPS):
            h = torch.tanh(h @ w + b)
        middle = time.perf_counter()
        h.backward(torch.from_numpy(ONES))
        return middle, w.grad.numpy()

    return run


def hips_autograd() -> Callable[[], tuple[float, np.ndarray]]:
    import autograd.numpy as anp
    from autograd import make_vjp

    def forward(arguments: tuple) -> np.ndarray:
        h, w, b = arguments
        for _ in range(STEPS):
            h = anp.tanh(h @ w + b)
        return h

    def run() -> tuple[float, np.ndarray]:
        vjp, _ = make_vjp(forward)((H0, W, B))
        middle = time.perf_counter()
        return middle, vjp(ONES)[1]

    return run


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds an op, of each engine: forward, backward, together."""
    engines: dict[str, Callable[[], tuple[float, np.ndarray]]] = {"NumPy by hand": by_hand, OURS: ours}
    for name, make in (("PyTorch", pytorch), ("HIPS autograd", hips_autograd)):
        try:
            engines[name] = make()
        except ImportError:
            print(f"({name} is not installed)", file=sys.stderr)
    expected = by_hand()[1]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for number in range(rounds + 3):
        for name, run in engines.items():
            start = time.perf_counter()
            middle, dw = run()
            end = time.perf_counter()
            if number < 3:  # warming up
                np.testing.assert_allclose(dw, expected, rtol=1e-3, atol=1e-4, err_msg=name)
            else:
                times[name].append((middle - start, end - middle))
    return {
        name: {
            "forward": statistics.median(f for f, _ in pairs) / OPS,
            "backward": statistics.median(b for _, b in pairs) / OPS,
            "together": statistics.median(f + b for f, b in pairs) / OPS,
        }
        for name, pairs in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="seconds an op, as one JSON object")
    given = parser.parse_args()
    without_settings()
    engines = measure(given.rounds)
    if given.json:
        print(json.dumps(engines))
        return
    versions = f"Python {sys.version.split()[0]}, NumPy {np.__version__}"
    print(f"{versions}; us per op, medians of {given.rounds} rounds")
    print(f"{'':16s}{'forward':>10s}{'backward':>10s}{'together':>10s}")
    for name, engine in engines.items():
        print(f"{name:16s}" + "".join(f"{engine[part] * 1e6:10.2f}" for part in engine))


if __name__ == "__main__":
    main()
