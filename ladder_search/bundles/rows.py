"""Classification of raw rows by a bundle: its schema encodes them, its network gives the probabilities.

This module is also the loader of registered models (``_load_pyfunc``), which MLflow calls without pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ladder_search.bundles.bundle import Bundle, read_bundle
from ladder_search.errors import SettingError

if TYPE_CHECKING:  # pandas comes with MLflow, and predictions to a file do without
    import pandas

CLASS, PROBABILITY = "class", "probability_"
"""Name of the column of classes, and prefix of the columns of probabilities."""
_ROWS_AT_ONCE = 4096


class RowClassifier:
    """A bundle of data from files as a classifier of raw rows.

    Raises ``SettingError`` if the bundle has no schema, because it was trained on a data set of the table.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.schema is None:
            raise SettingError(
                f"raw rows are classified by a bundle with a schema of its columns, and {bundle.folder}, of "
                f"{bundle.spec.data.name}, has none; call its network on arrays, see ladder_search.bundles.load."
            )
        self.schema = bundle.schema
        self._network = bundle.module()
        self._dtype = next(self._network.parameters()).dtype

    @property
    def classes(self) -> tuple[str | int, ...]:
        return self.schema.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of ``predict``: the class, then the probability of each class."""
        return (CLASS, *(f"{PROBABILITY}{name}" for name in self.classes))

    def probabilities(self, rows: Any, *, start: int = 0) -> NDArray[np.float32]:
        """Return the probabilities of raw rows, [n, classes].

        Args:
            rows: a table with the columns of the training rows, see ``RowSchema.encode``; others are ignored.
            start: number of rows before these, for messages.

        Raises ``DataError`` if a column is missing, or a value is of another type or an unseen category.
        """
        inputs = torch.from_numpy(self.schema.encode(rows, start=start))
        with torch.inference_mode():
            parts = [self._network(part.to(self._dtype)) for part in torch.split(inputs, _ROWS_AT_ONCE)]
        return np.concatenate([part.float().numpy() for part in parts])

    def predict(self, model_input: Any, params: Any = None) -> pandas.DataFrame:
        """Return a data frame with ``columns`` for raw rows; the name and the arguments are those of MLflow."""
        import pandas as pd

        found = self.probabilities(model_input)
        best = np.array(self.classes, object)[found.argmax(axis=1)].tolist()
        columns = {CLASS: best} | {name: found[:, i].astype(float) for i, name in enumerate(self.columns[1:])}
        return pd.DataFrame(columns)


def _load_pyfunc(folder: str) -> RowClassifier:
    """Return the model of a registered bundle; MLflow calls this with the folder of the data."""
    return RowClassifier(read_bundle(Path(folder)))
