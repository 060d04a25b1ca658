"""The picture of the README: damaged, restored, original. Run the demo first."""

from pathlib import Path

import PIL.Image

HERE = Path(__file__).parent
NAMES = ("noisy", "shaken", "out-of-focus", "small", "blocky")
SIDE = 300


def main() -> None:
    """Write docs/pictures/demo.jpg."""
    sheet = PIL.Image.new("RGB", (len(NAMES) * SIDE, 3 * SIDE), "white")
    for column, name in enumerate(NAMES):
        rows = (HERE / "photos" / f"{name}.png", HERE / "out" / f"{name}.png", HERE / "clean" / f"{name}.jpg")
        for row, path in enumerate(rows):
            with PIL.Image.open(path) as picture:
                shown = picture.convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)
                sheet.paste(shown, (column * SIDE, row * SIDE))
    out = HERE.parent / "docs" / "pictures" / "demo.jpg"
    out.parent.mkdir(exist_ok=True)
    sheet.save(out, quality=90)


if __name__ == "__main__":
    main()
