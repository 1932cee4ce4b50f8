"""Draw the pictures of the README anew: `make pictures`.

It trains the model that the README talks of, unless that run is there, and saves what its commands show as a
terminal would show it; and it runs a lab whose picture is shown.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tinygrad_rnn.inspect import Session, run
from tinygrad_rnn.labs import LABS, figure

HERE = Path(__file__).parent
RUN = Path("runs/tales-lstm")
TRAIN = ["train", "harbour", "--kind", "lstm", "--epochs", "15", "--seed", "0", "--run", str(RUN)]
WIDTH = 88


def main() -> None:
    if not RUN.exists():
        subprocess.run([Path(sys.executable).with_name("trnn"), *TRAIN], check=True)
    session = Session.load(RUN)
    for name, line in {"cells": "cells --find quote", "compare": "compare rnn lstm gru"}.items():
        file = HERE / f"{name}.svg"
        picture = run(session, line).svg(WIDTH, f"trnn inspect tales-lstm -c '{line}'")
        file.write_text(picture, encoding="utf-8")
        print(file)
    [file] = figure.save(LABS["gradient-by-depth"].run(seeds=range(3)), HERE, ["svg"])
    print(file)


if __name__ == "__main__":
    main()
