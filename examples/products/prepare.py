"""Draws a small shop: a folder of pictures and a CSV file, in which every third product has no description.

The category of a product is an occasion and a pattern. Only the description names the occasion, only the picture shows
the pattern. A few pictures are broken, as in any folder that people have filled.
"""

import csv
import json
import tempfile
from pathlib import Path

from barycenter.infra.demo import write_demo_corpus

HERE = Path(__file__).parent
ROWS = 1200


def main(folder: Path = HERE, rows: int = ROWS) -> None:
    """Writes data/products.csv and data/pictures/ in ``folder``."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data) as drawn:
        lines = write_demo_corpus(Path(drawn), rows=rows, seed=1).read_text().splitlines()
        for old in (data / "pictures").glob("*"):
            old.unlink()
        (Path(drawn) / "images").rename(data / "pictures")
    products = [product(number, json.loads(line)) for number, line in enumerate(lines)]
    with (data / "products.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(products[0]))
        table.writeheader()
        table.writerows(products)
    print(f"{len(products)} products in {data}")


def product(number: int, row: dict[str, str | None]) -> dict[str, str]:
    """One line of the table; every third description is empty."""
    return {
        "sku": str(row["id"]),
        "picture": "" if row["image"] is None else row["image"].replace("images/", "pictures/"),
        "description": "" if number % 3 == 2 else row["text"] or "",
        "category": str(row["label"]),
        "design": str(row["design"]),
    }


if __name__ == "__main__":
    main()
