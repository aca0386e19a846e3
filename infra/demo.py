"""A small generated shop catalog for first runs: drawn pictures, written captions, and a label that needs both."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

VERSION = 1
"""Raised whenever the same arguments would give other files."""

OCCASIONS: dict[str, tuple[str, ...]] = {
    "birthday": ("for a birthday", "for turning forty", "to blow out the candles with", "for a party with cake"),
    "wedding": ("for a wedding", "for the bride and groom", "for newlyweds", "for a marriage ceremony"),
    "winter": ("for winter", "for snowy evenings", "for the frosty season", "for cold december days"),
}
"""Half of the label, given by the text alone."""

PATTERNS = ("stripes", "bands", "checks", "dots")
"""The other half, seen in the picture alone."""

_COLORS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((200, 45, 45), ("red", "crimson")),
    "blue": ((45, 85, 190), ("blue", "navy")),
    "green": ((50, 150, 75), ("green", "emerald")),
    "yellow": ((225, 185, 40), ("yellow", "golden")),
    "purple": ((130, 65, 165), ("purple", "violet")),
}
_THINGS: dict[str, tuple[str, ...]] = {
    "plate": ("plate", "dish"),
    "cushion": ("cushion", "pillow"),
    "kite": ("kite",),
    "badge": ("badge", "star badge"),
}
_TEMPLATES = (
    "{a} {color} {thing} {occasion}",
    "{color} {thing}, {quality}, {occasion}",
    "{occasion}: {a} {quality} {thing} in {color}",
    "our {quality} {color} {thing}. made {occasion}, {extra}",
    "{thing} in {color} - {extra} - chosen {occasion}",
    "looking for something {occasion}? this {color} {thing} is {quality}",
)
_QUALITIES = ("handmade", "sturdy", "light", "elegant", "popular", "simple", "new", "well made")
_EXTRAS = ("ships tomorrow", "two in a box", "best seller", "easy to clean", "made nearby", "gift wrap on request")
_GROUNDS: dict[str, tuple[tuple[int, int, int], str]] = {
    "pale": ((238, 236, 228), "on a pale cloth"),
    "dark": ((48, 50, 58), "on a dark table"),
    "sand": ((205, 185, 150), "on sand"),
}
_FILE_FORMATS: dict[str, tuple[str, dict[str, int]]] = {
    "PNG": (".png", {"compress_level": 1}),
    "JPEG": (".jpg", {"quality": 88}),
    "WEBP": (".webp", {"quality": 85, "method": 0}),
}
_BROKEN = ("truncated", "zero bytes", "text", "missing")
_NULL_SHARE, _TYPO_SHARE, _LABEL_NOISE = 0.05, 0.03, 0.03

Generator = np.random.Generator


def write_demo_corpus(folder: Path, rows: int = 2000, seed: int = 0) -> Path:
    """Writes the corpus, or leaves it alone where the same one already stands complete.

    Captions name the thing, its color and often its ground, which the picture shows too; the occasion is in the text
    alone and the pattern in the picture alone, and the label is ``<occasion> <pattern>``. About 5 % of the captions
    and of the pictures are null, a few files are truncated, empty, no picture or missing, and a few labels are wrong.
    Rows of one ``design`` are near-copies.

    Returns:
        The path of metadata.jsonl, which lies in ``folder`` beside images/.
    """
    metadata, marker = folder / "metadata.jsonl", folder / "demo.json"
    wanted = json.dumps({"version": VERSION, "rows": rows, "seed": seed})
    if metadata.is_file() and marker.is_file() and marker.read_text() == wanted:
        return metadata
    (folder / "images").mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    lines = []
    for row, picture in _rows(rows, seed):
        if picture is not None:
            _write_if_new(folder / row["image"], picture)
        elif row["image"] is not None:
            (folder / row["image"]).unlink(missing_ok=True)
        lines.append(json.dumps(row))
    _write_if_new(metadata, ("\n".join(lines) + "\n").encode())
    _write_if_new(marker, wanted.encode())
    return metadata


def demo_job(corpus: Path, out: Path) -> dict[str, Any]:
    """The job file of the demo for the corpus that was written, as it would be read from YAML."""
    return {
        "name": "demo",
        "corpus": {"path": str(corpus), "key": "id", "keep": ["label", "design"], "rows_per_shard": 500},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"},
        },
        "alignment": {"dim": 128},
        "output": {"path": str(out)},
        "train": {"target": "label", "group_by": "design"},
    }


def _write_if_new(path: Path, content: bytes) -> None:
    """Writes at once or not at all; a file that holds ``content`` keeps its modification time."""
    if path.is_file() and path.read_bytes() == content:
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _rows(rows: int, seed: int) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Every row with the bytes of its picture, None where no file is to be written."""
    spacing = max(rows // (3 * len(_BROKEN)), 2)
    number, design = 0, 0
    while number < rows:
        rng = np.random.default_rng([seed, design])
        traits = {
            "thing": _pick(rng, tuple(_THINGS)),
            "color": _pick(rng, tuple(_COLORS)),
            "occasion": _pick(rng, tuple(OCCASIONS)),
            "pattern": _pick(rng, PATTERNS),
        }
        for _ in range(min(int(rng.integers(1, 4)), rows - number)):
            broken = _BROKEN[number // spacing % len(_BROKEN)] if number % spacing == spacing - 1 else None
            yield _row(number, design, traits, broken, rng)
            number += 1
        design += 1


def _row(
    number: int, design: int, traits: dict[str, str], broken: str | None, rng: Generator
) -> tuple[dict[str, Any], bytes | None]:
    ground = _pick(rng, tuple(_GROUNDS))
    text = _caption(traits, ground, rng)
    file_format = _pick(rng, ("PNG", "JPEG", "JPEG", "WEBP"))
    picture = _encode(_draw(traits, ground, rng), file_format)
    name = f"images/{number:05d}{'.png' if broken == 'text' else _FILE_FORMATS[file_format][0]}"
    label = f"{traits['occasion']} {traits['pattern']}"
    if rng.random() < _LABEL_NOISE:
        label = f"{_pick(rng, tuple(OCCASIONS))} {_pick(rng, PATTERNS)}"
    without_text, without_picture = rng.random(2) < _NULL_SHARE
    without_picture = without_picture and broken is None
    row = {
        "id": f"item-{number:05d}",
        "text": None if without_text else text,
        "image": None if without_picture else name,
        "label": label,
        "design": f"design-{design:04d}",
    }
    written = {
        None: picture,
        "truncated": picture[: len(picture) // 3],
        "zero bytes": b"",
        "text": b"This is no picture at all.\n",
        "missing": None,
    }
    return row, None if without_picture else written[broken]


def _pick(rng: Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _caption(traits: dict[str, str], ground: str, rng: Generator) -> str:
    color = _pick(rng, _COLORS[traits["color"]][1])
    text = _pick(rng, _TEMPLATES).format(
        a="an" if color[0] in "aeiou" else "a",
        color=color,
        thing=_pick(rng, _THINGS[traits["thing"]]),
        occasion=_pick(rng, OCCASIONS[traits["occasion"]]),
        quality=_pick(rng, _QUALITIES),
        extra=_pick(rng, _EXTRAS),
    )
    if rng.random() < 0.6:
        text += f", shown {_GROUNDS[ground][1]}"
    return " ".join(_typo(word, rng) if rng.random() < _TYPO_SHARE else word for word in text.split())


def _typo(word: str, rng: Generator) -> str:
    """Swaps two neighboring letters, or drops or doubles one."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 2))
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return _pick(rng, (swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]))


def _draw(traits: dict[str, str], ground: str, rng: Generator) -> Image.Image:
    """The thing in its color and pattern on its ground, a little off center, with noise."""
    side = int(rng.integers(64, 129))
    shift = rng.uniform(-0.05, 0.05, 2)
    where = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.meshgrid(where - 2 * shift[0], where - 2 * shift[1])
    color = np.array(_COLORS[traits["color"]][0]) + rng.normal(0, 12, 3)
    second = color * 0.35 + (255 * 0.65 if rng.random() < 0.5 else 0)
    marks = _pattern(traits["pattern"], x, y, rng)[..., None]
    behind = np.array(_GROUNDS[ground][0]) + rng.normal(0, 8, 3) + 14 * rng.uniform(-1, 1) * y[..., None]
    inside = np.asarray(_silhouette(traits["thing"], side, shift, rng), np.float32)[..., None] / 255
    pixels = inside * np.where(marks, second, color) + (1 - inside) * behind
    pixels += rng.normal(0, rng.uniform(3, 14), (side, side, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _pattern(name: str, x: NDArray[np.float32], y: NDArray[np.float32], rng: Generator) -> NDArray[np.bool_]:
    """Where the second color goes; x and y run from -1 to 1."""
    angle, waves = rng.uniform(-0.2, 0.2), rng.uniform(2.2, 3.6)
    phase = rng.uniform(0, 2 * np.pi, 2)
    across = np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase[0])
    down = np.sin(np.pi * waves * (y * np.cos(angle) - x * np.sin(angle)) + phase[1])
    marks: NDArray[np.bool_] = {
        "stripes": across > 0,
        "bands": down > 0,
        "checks": across * down > 0,
        "dots": across + down > 0.9,
    }[name]
    return marks


def _silhouette(thing: str, side: int, shift: NDArray[np.float64], rng: Generator) -> Image.Image:
    """A mask of the thing's outline, smooth at its edge."""
    large = 2 * side
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    x, y = large * (0.5 + shift)
    radius = large * rng.uniform(0.34, 0.44)
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing == "plate":
        pen.ellipse(box, fill=255)
    elif thing == "cushion":
        pen.rounded_rectangle(box, radius=radius / 4, fill=255)
    else:
        points, depth = (5, 0.55) if thing == "badge" else (2, 0.75)
        angles = np.arange(2 * points) * np.pi / points - np.pi / 2
        reach = radius * np.where(np.arange(2 * points) % 2, depth, 1.1)
        pen.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a, r in zip(angles, reach, strict=True)], fill=255)
    return mask.resize((side, side), Image.Resampling.BOX)


def _encode(picture: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **_FILE_FORMATS[file_format][1])
    return buffer.getvalue()
