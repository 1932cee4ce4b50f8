"""The op tables, one file a family. Importing this package fills the table and `Tensor`'s methods."""

from . import (  # noqa: F401 - each enters its ops
    elementwise,
    indexing,
    linalg,
    loss,
    plumbing,
    recurrent,
    reduction,
    shape,
)
from . import methods  # noqa: F401, I001 - attaches them to Tensor, once they are all there
