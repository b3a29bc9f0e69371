"""The small tables bundled with scikit-learn, read from its files, because importing it takes a second of CPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILES = {"digits": ("digits.csv.gz", 0), "breast_cancer": ("breast_cancer.csv", 1), "wine": ("wine_data.csv", 1)}
"""Table -> its file, and the number of header lines; the last column is the target."""


def table(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """X [n, d] and y [n] of `sklearn.datasets.load_NAME`, which is called only if its file is missing."""
    file, above = FILES.get(name, ("", 0))
    spec = find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(places[0], "datasets", "data", file) if places else Path(file)
    if not path.is_file():
        from sklearn import datasets

        raw = getattr(datasets, f"load_{name}")()
        return raw.data, raw.target
    rows = np.loadtxt(path, delimiter=",", skiprows=above)
    return rows[:, :-1], rows[:, -1].astype(np.int64)
