"""Draw the pictures of the README anew: `make pictures`.

It trains the model that the README talks of, unless that run is there, and saves what its commands show as a
terminal would show it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tinygrad_rnn.inspect import Session, run

HERE = Path(__file__).parent
RUN = Path("runs/tales-lstm")
TRAIN = ["train", "harbour", "--kind", "lstm", "--epochs", "15", "--seed", "0", "--run", str(RUN)]
WIDTH = 88


def main() -> None:
    if not RUN.exists():
        subprocess.run([Path(sys.executable).with_name("trnn"), *TRAIN], check=True)
    session = Session.load(RUN)
    unit = run(session, "cells --find quote").data["order"][0]  # another machine may train another one
    pictures = {
        "flow": "flow --from 40",
        "cells": "cells --find quote",
        "gates": f"gates {unit}",
        "compare": "compare rnn lstm gru",
    }
    for name, line in pictures.items():
        file = HERE / f"{name}.svg"
        file.write_text(
            run(session, line).svg(WIDTH, f"trnn inspect tales-lstm -c '{line}'"), encoding="utf-8"
        )
        print(file)


if __name__ == "__main__":
    main()
