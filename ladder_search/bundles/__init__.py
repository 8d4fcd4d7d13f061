"""Bundles (trained networks in folders), networks of earlier stages, and the export of a search's best trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # PyTorch takes seconds to import, and commands that train nothing read this package
    from torch import nn


def load(path: str | Path) -> nn.Module:
    """Return the network of the bundle at ``path``, ready for inference: ``probabilities = load(path)(x)``.

    ``x`` has the shape (n, d) with pixels in 0..1, the probabilities (n, classes). Nothing in the bundle is executed,
    and every file is checked against its manifest; raise ``CheckpointError`` if the bundle is missing or damaged.
    """
    # Imported here, because final training imports this package on machines without PyYAML.
    from ladder_search.bundles.bundle import read_bundle

    return read_bundle(Path(path)).module()
