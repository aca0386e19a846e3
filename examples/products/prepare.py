"""Writes a corpus of groceries: photographs, of which every second one has its product's description.

The Grocery Store Dataset has one description a fine class, so a description alone gives the label; half of them are
left out here, as in a shop whose articles are not all described. At most sixteen photographs a class are taken for
training and eight for the test of the original split.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("BARYCENTER_SHARED", HERE.parents[2] / "shared"))
PER_CLASS = {"train": 16, "test": 8}


def main() -> None:
    """Writes data/metadata.jsonl, data/images/ and the encoders' weights beside this script."""
    source, data = SHARED / "data" / "grocery", HERE / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    taken: Counter[tuple[str, str]] = Counter()
    lines = []
    for line in (source / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        row["split"] = "test" if row["split"] == "test" else "train"
        kind = (row["split"], row["label"])
        taken[kind] += 1
        if taken[kind] > PER_CLASS[row["split"]]:
            continue
        if len(lines) % 2:
            row["text"] = None
        shutil.copyfile(source / "images" / row["image"], data / "images" / row["image"])
        lines.append(json.dumps(row))
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    subprocess.run([SHARED / "get-minilm", HERE / "models" / "all-MiniLM-L6-v2"], check=True)
    shutil.copyfile(SHARED / "weights/mobilenet_v2/mobilenet_v2.safetensors", HERE / "models/mobilenet_v2.safetensors")
    print(f"{len(lines)} rows in {data}")


if __name__ == "__main__":
    main()
