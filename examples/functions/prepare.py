"""Writes two tables of SciPy's functions: their documentation, and vectors of their source code made elsewhere.

The tables are joined on the name. Not every function is in both: one in ten lacks its vector, another one in ten
its documentation. The label is the part of SciPy that a function is from.
"""

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from barycenter.fusion.dataset.schema import vectors_to_array

HERE = Path(__file__).parent
PARTS = ("fft", "integrate", "interpolate", "linalg", "ndimage", "optimize", "signal", "sparse", "spatial", "stats")
WIDTH = 64


def functions(parts: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Name, part, first paragraphs of the documentation, and source of every public function and class."""
    for part in parts:
        module = import_module(f"scipy.{part}")
        for name in sorted(module.__all__):
            value = getattr(module, name)
            text = re.split(r"\n(?:Parameters|Returns|See Also)\n", inspect.getdoc(value) or "")[0]
            try:
                source = inspect.getsource(value)
            except (OSError, TypeError):
                continue
            if callable(value) and len(text) > 20:
                yield f"{part}.{name}", part, text, without_documentation(source)


def without_documentation(source: str) -> str:
    """The source without its strings in triple quotes."""
    return re.sub(r'r?"""(?s:.)*?"""', "", source)


def main(folder: Path = HERE, parts: Sequence[str] = PARTS) -> None:
    """Writes data/documents.jsonl and data/vectors.parquet in ``folder``."""
    names, labels, texts, sources = zip(*functions(parts), strict=True)
    words = TfidfVectorizer(token_pattern=r"[A-Za-z]{2,}", sublinear_tf=True, min_df=2).fit_transform(sources)
    vectors = TruncatedSVD(WIDTH, random_state=0).fit_transform(words)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    rows = range(len(names))
    documents = [
        {"name": names[row], "part": labels[row], "text": texts[row] if row % 10 != 3 else None} for row in rows
    ]
    (data / "documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    there = [row for row in np.random.default_rng(0).permutation(len(names)).tolist() if row % 10 != 7]
    table = {"function": [names[row] for row in there], "code": vectors_to_array(vectors[there].astype(np.float32))}
    pq.write_table(pa.table(table), data / "vectors.parquet")
    print(f"{len(names)} functions, {len(there)} of them with a vector, in {data}")


if __name__ == "__main__":
    main()
