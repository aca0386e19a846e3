"""Writes a corpus of questions on pictures: several questions a picture, the answer needs both.

It replaces questions on medical pictures, of which there are no free ones here: the pictures are EmojiTwo's, the
questions are made from templates and the answers from the pictures' categories and pixels. What it shares with such
corpora is their shape: many rows share one picture, so all rows of a picture (and of its skin-tone variants, `base`)
must stay on one side of every split, and the question alone says which kind of answer is wanted, not which one.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("BARYCENTER_SHARED", HERE.parents[2] / "shared"))
PICTURES = 400
QUESTIONS = {
    "category": (
        "What kind of thing does this picture show?",
        "Which category does the picture belong to?",
        "Name the class of what can be seen here.",
        "What is this a picture of, in general?",
    ),
    "colour": (
        "What is the main colour?",
        "Which colour covers most of the drawing?",
        "Name the dominant colour of the picture.",
        "In what colour is most of it painted?",
    ),
    "filling": (
        "How much of the square does the drawing fill?",
        "Is the drawing large or small within the picture?",
        "How big is what is shown, compared with the picture?",
        "Does the object fill the frame?",
    ),
}


def color(picture: Image.Image) -> str:
    """Name of the most frequent hue of the opaque pixels."""
    pixels = np.asarray(picture.convert("RGBA"))
    opaque = Image.fromarray(pixels[pixels[..., 3] > 128][None, :, :3]).convert("HSV")
    hue, saturation, value = np.asarray(opaque)[0].astype(int).T
    gray = np.where(value > 200, "white", np.where(value < 80, "black", "grey"))
    names = np.array(["red", "yellow", "green", "blue", "purple", "red"])
    hues = names[np.digitize(hue, [15, 45, 115, 180, 225])]
    found, counts = np.unique(np.where(saturation < 60, gray, hues), return_counts=True)
    return str(found[counts.argmax()])


def filling(picture: Image.Image) -> str:
    """How much of the picture is opaque, in three steps."""
    share = float((np.asarray(picture.convert("RGBA"))[..., 3] > 128).mean())
    return "most of it" if share > 0.6 else "about half" if share > 0.35 else "a small part"


def main() -> None:
    """Writes data/metadata.jsonl and data/images/ beside this script."""
    source, data = SHARED / "data" / "emojitwo", HERE / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()]
    labeled = [row for row in rows if row["label"]]
    lines = []
    for at in np.sort(rng.permutation(len(labeled))[:PICTURES]):
        row = labeled[at]
        shutil.copyfile(source / "images" / row["image"], data / "images" / row["image"])
        picture = Image.open(source / "images" / row["image"])
        answers = {"category": row["label"], "colour": color(picture), "filling": filling(picture)}
        for kind, answer in answers.items():
            question = str(rng.choice(QUESTIONS[kind]))
            line = {"id": f"{row['id']}-{kind}", "question": question, "picture": row["image"]}
            lines.append(json.dumps(line | {"answer": answer, "base": row["base"]}))
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} questions on {PICTURES} pictures in {data}")


if __name__ == "__main__":
    main()
