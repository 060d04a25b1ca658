"""Captions without a network: the tags put into a sentence or two, always the same for the same tags.

The whole vocabulary is known (`caption_words`), so that a small text encoder can hold every word of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from clareo.backbones.text import vocabulary
from clareo.perceive.attributes import TAGS, attributes
from clareo.types import Image

LOOKS = ("dark", "bright", "colourful", "black and white")  # said of the photo itself
PROPERTIES = (  # what it has; every other tag is what it shows
    "fine texture",
    "smooth areas",
    "straight edges",
    "shallow focus",
    "high contrast",
    "low contrast",
    "warm colours",
    "cool colours",
    "muted colours",
)
FRAME = "a photo of and it has"  # the words around the tags


def caption_by_template(photo: Image, tags: tuple[str, ...] = ()) -> str:  # noqa: ARG001 - a captioner
    """Describe a photo around tags, without a look at it."""
    return template_caption(tags)


def caption_by_formula(clean: Image) -> str:
    """Describe a clean photo (1, 3, H, W) by what formulas say of it."""
    return template_caption(attributes(clean.cpu()))


def template_caption(tags: Sequence[str]) -> str:
    """Put every tag into one sentence or two, in the order given; nothing is said of a photo without tags.

    >>> template_caption(("dark", "colourful", "foliage", "blue sky", "fine texture"))
    'A dark, colourful photo of foliage and blue sky. It has fine texture.'
    >>> template_caption(("smooth areas", "low contrast", "cool colours"))
    'A photo. It has smooth areas, low contrast and cool colours.'
    """
    if not tags:
        return ""
    looks, has = ([tag for tag in tags if tag in group] for group in (LOOKS, PROPERTIES))
    shows = [tag for tag in tags if tag not in (*LOOKS, *PROPERTIES)]
    photo = " ".join(filter(None, ("A", ", ".join(looks), "photo")))
    sentences = [f"{photo} of {listed(shows)}." if shows else f"{photo}."]
    return " ".join([*sentences, f"It has {listed(has)}."] if has else sentences)


def listed(things: Sequence[str]) -> str:
    """Enumerate things.

    >>> listed(["foliage", "a cat", "blue sky"])
    'foliage, a cat and blue sky'
    """
    return " and ".join(filter(None, (", ".join(things[:-1]), things[-1])))


def caption_words() -> tuple[str, ...]:
    """Return every word that a caption of `TAGS` can hold, in the order of the alphabet."""
    return vocabulary(FRAME, *TAGS)
