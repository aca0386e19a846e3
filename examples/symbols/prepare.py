"""Draws the symbols of the font that comes with matplotlib: a name, a picture and a kind for each of them.

Names are Unicode's, pictures 64 pixels wide, kinds the blocks that Unicode sorts symbols into. Symbols that differ by
their last words alone ("domino tile horizontal-03-05") share a `base`, so that near-copies stay together.
"""

import json
import unicodedata
from pathlib import Path

import matplotlib
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
SIDE = 64
BLOCKS = {
    "arrows": ((0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2900, 0x297F), (0x2B00, 0x2B1A)),
    "mathematics": ((0x2200, 0x22FF), (0x27C0, 0x27EF), (0x2980, 0x2AFF)),
    "technical": ((0x2300, 0x23FF),),
    "box drawing": ((0x2500, 0x259F),),
    "geometric shapes": ((0x25A0, 0x25FF),),
    "everyday symbols": ((0x2600, 0x26FF),),
    "dingbats": ((0x2700, 0x27BF),),
    "domino tiles": ((0x1F030, 0x1F093),),
    "playing cards": ((0x1F0A0, 0x1F0F5),),
    "faces": ((0x1F600, 0x1F64F),),
}


def symbols() -> list[tuple[int, str]]:
    """Code point and kind of every symbol that the font has and Unicode names."""
    drawn = TTFont(FONT).getBestCmap()
    return [
        (code, kind)
        for kind, ranges in BLOCKS.items()
        for first, last in ranges
        for code in range(first, last + 1)
        if code in drawn and unicodedata.name(chr(code), None)
    ]


def draw(code: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The symbol in the middle, dark on light."""
    picture = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), chr(code), font=font, fill=0, anchor="mm")
    return picture


def main(folder: Path = HERE) -> None:
    """Writes data/metadata.jsonl and data/images/ in ``folder``."""
    data = folder / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    font = ImageFont.truetype(FONT, 44)
    lines = []
    for code, kind in symbols():
        name = unicodedata.name(chr(code)).lower()
        picture = f"images/{code:05x}.png"
        draw(code, font).save(data / picture)
        row = {"id": f"{code:05x}", "text": name, "image": picture, "label": kind}
        lines.append(json.dumps(row | {"base": " ".join(name.split("-")[0].split()[:3])}))
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} symbols in {data}")


if __name__ == "__main__":
    main()
