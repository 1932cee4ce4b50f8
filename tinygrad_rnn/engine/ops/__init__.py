"""The op tables, one file a family. Importing this package fills the table and `Tensor`'s methods."""

from . import (  # noqa: F401 - each enters its ops
    convolution,
    elementwise,
    indexing,
    language_model,
    linalg,
    loss,
    methods,
    normalization,
    plumbing,
    pooling,
    recurrent,
    reduction,
    resampling,
    shape,
)
