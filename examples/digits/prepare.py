"""Writes the UCI Multiple Features digits as one Parquet file: 2,000 digits, six numeric views of each."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import vectors_to_array

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("BARYCENTER_SHARED", HERE.parents[2] / "shared"))
VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")


def main() -> None:
    """Writes data/digits.parquet beside this script."""
    tables = {
        view: np.loadtxt(SHARED / f"data/uci_mfeat/mfeat-{view}.csv", delimiter=",", skiprows=1) for view in VIEWS
    }
    digits = next(iter(tables.values()))[:, -1].astype(int)
    columns = {view: vectors_to_array(table[:, :-1].astype(np.float32)) for view, table in tables.items()}
    keys = [f"digit-{row:04d}" for row in range(len(digits))]
    path = HERE / "data" / "digits.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": keys, "digit": [str(digit) for digit in digits]} | columns), path)
    print(f"{len(digits)} rows in {path}")


if __name__ == "__main__":
    main()
