"""Experiments about deep networks: each asks a question, measures, and says whether a claim holds, by which
number.

    >>> from tinygrad_rnn.labs import LABS
    >>> print(LABS["residual-identity"].run(seeds=[0]).view())

A lab is a function `run(seeds, report, ...)`, whose other arguments are its sizes, and returns a Finding
(finding.py): tables, curves, numbers, a verdict. What decides is said in the lab's docstring, beforehand.
figure.py draws a finding, by matplotlib. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import batchnorm_depth, gradient_by_depth, l2_pull, residual_depth, residual_identity
from .finding import Finding

__all__ = ["LABS", "Finding", "Lab"]


@dataclass(frozen=True)
class Lab:
    """run(seeds, report, ...) is called with the seeds, and with what is told of its progress: the part that
    is done, 0 to 1, and what is being done. takes: about how long, on two cores."""

    question: str
    takes: str
    run: Callable[..., Finding]


LABS = {
    "residual-identity": Lab(residual_identity.QUESTION, "10 seconds", residual_identity.run),
    "l2-pull": Lab(l2_pull.QUESTION, "2 minutes", l2_pull.run),
    "gradient-by-depth": Lab(gradient_by_depth.QUESTION, "15 seconds", gradient_by_depth.run),
    "batchnorm-depth": Lab(batchnorm_depth.QUESTION, "5 minutes", batchnorm_depth.run),
    "residual-depth": Lab(residual_depth.QUESTION, "3 minutes", residual_depth.run),
}
