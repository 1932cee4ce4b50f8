"""`trnn classify`: what a trained image classifier takes an image for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import AsJson, Checkpoint, Which
from .runs import Run, find_checkpoint
from .terminal import reader_may_leave, say_error

EXAMPLES = """Try:

trnn classify photos-model cat.png

trnn classify photos-model holiday/*.jpg --top 1"""


def classify(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    top: Annotated[int, typer.Option(help="So many of the likeliest classes.", min=1)] = 3,
    checkpoint: Checkpoint = Which.best,
    as_json: AsJson = False,
) -> None:
    """What the model of a run takes images for: the likeliest classes, and how sure it is of each.

    An image of another size or colour is made as those that the model has learnt from. A file that is no
    image is named on standard error, and the exit code is 3; the others are told all the same.
    """
    import numpy as np

    from tinygrad_rnn.engine.ops.reduction import softmax
    from tinygrad_rnn.errors import DataError
    from tinygrad_rnn.models import load_classifier
    from tinygrad_rnn.nn.module import evaluating
    from tinygrad_rnn.vision import read_image

    from .layout import print_facts, print_json

    model, notes, _ = load_classifier(find_checkpoint(run, checkpoint))
    found, broken = [], 0
    for path in images:
        try:
            pixels = read_image(path, notes.shape)
        except DataError as error:  # the other images are none the worse for it
            say_error(str(error))
            broken = error.exit_code
            continue
        with evaluating(model):
            logits = model(notes.normalised(pixels[None]))
            chances = softmax(logits, axis=-1).numpy()[0]
        likeliest = np.argsort(-chances, kind="stable")[:top]
        found.append((str(path), {notes.classes[n]: float(chances[n]) for n in likeliest}))
    with reader_may_leave():
        if as_json:
            print_json([{"file": file, "classes": classes} for file, classes in found])
        else:
            print_facts(
                (file, ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in classes.items()))
                for file, classes in found
            )
    if broken:
        raise typer.Exit(broken)
