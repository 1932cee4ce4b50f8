"""Networks of several kinds side by side: `compare`."""

from __future__ import annotations

import argparse

from ..engine import random
from ..errors import UsageError
from ..models import CharLM
from ..models.char_lm import KINDS
from .command import command, option, run
from .flow import decay, state_norms
from .session import Session
from .view import Heat, Table, View


@command(
    "Through time",
    "compare rnn lstm gru",
    option("kinds", nargs="*", metavar="KIND", complete=lambda session: list(KINDS)),
    option("--seed", type=int, default=0, metavar="SEED"),
    option("--train", type=int, default=0, metavar="STEPS", help="let each learn for so long first"),
)
def compare(session: Session, arguments: argparse.Namespace) -> View:
    """RNN, LSTM and GRU on one window, from one seed, of the same sizes: new, or equally long trained.

    The rows are the norm of dL/dh_t of the last layer, where L is the loss of the last prediction alone, on
    one scale: how far back each hears of it.

        compare                 all three
        compare --train 200     each after 200 steps on the same text (see `train`)
        compare lstm gru --seed 3
    """
    rows, table, data = {}, [], {}
    config = session.model.config()
    for kind in dict.fromkeys(arguments.kinds or KINDS):
        if kind not in KINDS:
            raise UsageError(f"compare: no kind of network is called {kind!r}; there are {', '.join(KINDS)}")
        with random.replay(random.snapshot()):
            random.manual_seed(arguments.seed)
            model = CharLM(**(config | {"kind": kind}))
        if arguments.train:
            text = session.vocabulary, session.symbols, kind, session.corpus
            other = Session(model, *text, length=session.length)
            other.progress = session.progress
            run(other, f"train {arguments.train}")
        recording = session.run(model=model)
        last = recording.length - 1
        norms = state_norms(recording, recording.gradients_of(recording.loss_at(last)))
        row = norms[f"h_l{recording.layers - 1}"]
        rows[kind], factor = row, decay(row)
        share = float(row[0] / row[-1]) if row[-1] else float("nan")
        table.append([kind, recording.model.num_parameters(), float(recording.loss.item()), factor, share])
        data[kind] = {"norms": row, "decay": factor, "loss": float(recording.loss.item())}
    learnt = f"after {arguments.train} steps" if arguments.train else "nothing learnt yet"
    return View(
        f"compare: the gradient of the last prediction's loss in h, seed {arguments.seed}, {learnt}",
        [
            Heat(rows, session.text, cuts=session.recording.cuts[1:]),
            Table(["kind", "parameters", "loss", "decay a step", "first/last"], table, spare=["parameters"]),
        ],
        {"seed": arguments.seed, "train": arguments.train, "kinds": data},
    )
