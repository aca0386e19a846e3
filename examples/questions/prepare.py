"""Draws pictures of one shape each and asks three questions on every one: the answer needs question and picture.

Corpora of questions on medical pictures have this form: many rows share a picture, so all rows of a picture must stay
on one side of every split; the question alone says which kind of answer is wanted, not which one.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
PICTURES = 400
SIDE = 64
COLORS = {"red": (200, 45, 45), "blue": (45, 85, 190), "green": (50, 150, 75), "yellow": (225, 185, 40)}
SHAPES = {"circle": 0, "triangle": 3, "square": 4, "hexagon": 6}
SIZES = {"small": 12, "medium": 19, "large": 27}
QUESTIONS = {
    "shape": ("What shape does this picture show?", "Name the shape.", "Which figure is drawn here?"),
    "color": ("What is the main color?", "Name the color of the figure.", "In what color is it painted?"),
    "size": ("How large is the figure?", "Is it small or large?", "Which size has what is drawn?"),
}


def draw(shape: str, color: str, size: str, rng: np.random.Generator) -> Image.Image:
    """One figure, turned and moved a little, on a gray ground with noise."""
    picture = Image.new("RGB", (SIDE, SIDE), (215, 215, 210))
    x, y = SIDE / 2 + rng.uniform(-5, 5, 2)
    radius = SIZES[size] + rng.uniform(-1.5, 1.5)
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[color])
    else:
        pen.regular_polygon((x, y, radius), SHAPES[shape], rotation=rng.uniform(0, 360), fill=COLORS[color])
    noisy = np.asarray(picture) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def main(folder: Path = HERE, pictures: int = PICTURES) -> None:
    """Writes data/questions.jsonl and data/images/ in ``folder``."""
    data = folder / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(pictures):
        answers = {kind: str(rng.choice(list(values))) for kind, values in (("shape", SHAPES), ("color", COLORS))}
        answers["size"] = str(rng.choice(list(SIZES)))
        name = f"images/{number:04d}.png"
        draw(answers["shape"], answers["color"], answers["size"], rng).save(data / name)
        for kind, answer in answers.items():
            question = str(rng.choice(QUESTIONS[kind]))
            row = {"id": f"{number:04d}-{kind}", "question": question, "picture": name}
            lines.append(json.dumps(row | {"answer": answer, "base": f"{number:04d}"}))
    (data / "questions.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} questions on {pictures} pictures in {data}")


if __name__ == "__main__":
    main()
