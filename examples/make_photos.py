"""Make the photos of the demo: five free photos that scikit-image carries, clean and damaged.

    pip install scikit-image && python examples/make_photos.py

astronaut (NASA, public domain), chelsea, coffee, rocket and text (all CC0).
"""

from pathlib import Path

import numpy as np
import PIL.Image
from skimage import data

import clareo

HERE = Path(__file__).parent
SIDE = 300
PHOTOS = {  # name -> (photo, top, left, recipe, seed)
    "noisy": (data.chelsea, 0, 60, "noise-25", 1),
    "shaken": (data.rocket, 60, 190, "motion-line", 5),
    "out-of-focus": (data.astronaut, 0, 90, "defocus-disk", 4),
    "small": (data.coffee, 40, 150, "x4", 2),
    "blocky": (data.astronaut, 180, 180, "jpeg-20", 3),
}


def main() -> None:
    """Write examples/clean and examples/photos."""
    for folder in ("clean", "photos"):
        (HERE / folder).mkdir(exist_ok=True)
    for name, (load, top, left, recipe, seed) in PHOTOS.items():
        clean = np.ascontiguousarray(load()[top : top + SIDE, left : left + SIDE])
        PIL.Image.fromarray(clean).save(HERE / "clean" / f"{name}.jpg", quality=96, subsampling=0)
        made = clareo.degrade(clean, recipe, seed)
        made.image.save(HERE / "photos" / f"{name}.png")
        print(name, made.record.prompt())


if __name__ == "__main__":
    main()
