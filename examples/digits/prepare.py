"""Writes scikit-learn's digits as one Parquet file: 1,797 digits of 8 x 8 pixels, six numeric views of each."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from barycenter.fusion.dataset.schema import vectors_to_array

HERE = Path(__file__).parent

Floats = NDArray[np.floating]


def fourier(pictures: Floats) -> Floats:
    """Magnitudes of the two-dimensional Fourier transform, (n, 40): no trace of where the digit is."""
    return np.abs(np.fft.rfft2(pictures)).reshape(len(pictures), -1)


def profiles(pictures: Floats) -> Floats:
    """Ink of every row and every column, (n, 16)."""
    return np.hstack([pictures.sum(1), pictures.sum(2)])


def gradients(pictures: Floats) -> Floats:
    """How steep the ink is in eight directions in each quarter of the picture, (n, 32)."""
    down, across = np.gradient(pictures, axis=(1, 2))
    steepness, direction = np.hypot(down, across), np.arctan2(down, across)
    octant = ((direction + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    columns = []
    for rows in (slice(0, 4), slice(4, 8)):
        for cells in (slice(0, 4), slice(4, 8)):
            part, where = steepness[:, rows, cells], octant[:, rows, cells]
            columns += [(part * (where == turn)).sum((1, 2)) for turn in range(8)]
    return np.stack(columns, 1)


def shape(pictures: Floats) -> Floats:
    """Ink, center, spread and slant, (n, 6)."""
    y, x = np.mgrid[0:8, 0:8]
    ink = pictures.sum((1, 2))

    def mean(values: Floats) -> Floats:
        return (pictures * values).sum((1, 2)) / ink

    middle_x, middle_y = mean(x), mean(y)
    offset_x, offset_y = x - middle_x[:, None, None], y - middle_y[:, None, None]
    spread = [(pictures * part).sum((1, 2)) / ink for part in (offset_x**2, offset_y**2, offset_x * offset_y)]
    return np.stack([ink, middle_x, middle_y, *spread], 1)


def main(folder: Path = HERE) -> None:
    """Writes data/digits.parquet in ``folder``."""
    digits = load_digits()
    pictures = digits.images
    views = {
        "pix": pictures.reshape(len(pictures), -1),
        "fou": fourier(pictures),
        "pro": profiles(pictures),
        "gra": gradients(pictures),
        "pca": PCA(30, svd_solver="full").fit_transform(pictures.reshape(len(pictures), -1)),
        "mor": shape(pictures),
    }
    columns = {view: vectors_to_array(values.astype(np.float32)) for view, values in views.items()}
    keys = [f"digit-{row:04d}" for row in range(len(pictures))]
    path = folder / "data" / "digits.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": keys, "digit": [str(digit) for digit in digits.target]} | columns), path)
    print(f"{len(pictures)} rows in {path}")


if __name__ == "__main__":
    main()
