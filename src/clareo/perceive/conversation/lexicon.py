"""What people call each kind of damage: nouns, adjectives, and what is to be done about it.

One table for both directions: texts are made of these phrases, and read by looking for them. The longest phrase counts,
so that "motion blur" is no "blur". To teach a word, write it into its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clareo.degrade import words
from clareo.degrade.degrees import KINDS as ALL
from clareo.degrade.degrees import SAME

KINDS = tuple(kind for kind in ALL if kind not in SAME)  # what can be told apart by looking
BLUR = ("motion", "defocus")  # what "blur" alone means
ORDER = ("jpeg", "low_resolution", "noise", "low_light", "motion", "defocus", "raindrop", "rain", "haze")  # of repair

NOUNS: Mapping[str, tuple[str, ...]] = {
    "noise": ("noise", "grain", "speckle", "sensor noise", "graininess"),
    "jpeg": ("compression artefacts", "JPEG artefacts", "blocks", "blockiness", "compression"),
    "motion": ("motion blur", "camera shake", "shake", "smearing"),
    "defocus": ("defocus", "defocus blur", "out of focus blur", "softness"),
    "low_resolution": ("low resolution", "pixelation", "coarse pixels"),
    "low_light": ("darkness", "underexposure", "low light", "dim light"),
    "haze": ("haze", "fog", "mist", "veil", "milky veil"),
    "rain": ("rain", "rain streaks", "streaks", "falling rain"),
    "raindrop": ("raindrops", "drops", "water drops", "drops on the lens"),
}
ADJECTIVES: Mapping[str, tuple[str, ...]] = {
    "noise": ("noisy", "grainy", "speckled"),
    "jpeg": ("blocky", "compressed"),
    "motion": ("shaken", "shaky", "smeared"),
    "defocus": ("out of focus", "unfocused", "soft"),
    "low_resolution": ("pixelated", "coarse"),
    "low_light": ("dark", "underexposed", "dim", "murky"),
    "haze": ("hazy", "foggy", "misty", "washed out", "milky"),
    "rain": ("rainy", "streaky"),
    "raindrop": ("full of drops", "covered in drops"),
}
WORK: Mapping[str, tuple[str, ...]] = {
    "noise": ("denoise it", "smooth the speckles"),
    "jpeg": ("deblock it",),
    "motion": ("steady it", "undo the movement"),
    "defocus": ("bring it into focus", "refocus it"),
    "low_resolution": ("raise the resolution", "upscale it"),
    "low_light": ("brighten it", "lift the shadows", "make it brighter", "light it up"),
    "haze": ("dehaze it", "clear the air", "cut through the fog"),
    "rain": ("derain it", "stop the rain"),
    "raindrop": ("wipe the lens", "dry the lens"),
}
STORIES: Mapping[str, tuple[str, ...]] = {  # how it came about, or what it is like
    "noise": ("the iso was too high", "flat areas look like sand"),
    "jpeg": ("it was saved too small", "my phone squeezed it"),
    "motion": ("my hand moved", "i did not hold still", "the camera moved"),
    "defocus": ("the focus is wrong", "the lens missed", "it was focused behind"),
    "low_resolution": ("it has too few pixels", "it was shrunk", "it needs more pixels"),
    "low_light": ("it was night", "i can not see anything", "there was not enough light", "it needs more light"),
    "haze": ("the air was thick", "i can not see far", "the contrast is gone"),
    "rain": ("it was raining", "the weather was wet"),
    "raindrop": ("there was water on the lens", "the lens was wet", "water sits on the glass"),
}
BLURRED = ("blur", "blurry", "blurred", "deblur it", "sharpen it", "make it sharper")  # either of `BLUR`, or both


def _phrases() -> dict[str, tuple[str, ...]]:
    """Return every phrase with the kinds that it names."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(BLURRED, BLUR)
    for kind in KINDS:
        names = (*words.NAMES[kind], *NOUNS[kind], *ADJECTIVES[kind], *WORK[kind], *STORIES[kind])
        found |= {plain(name): (kind,) for name in names}
    return found


def plain(text: str) -> str:
    """Bring a text to lower case, short forms to their long ones, and everything between words to single spaces.

    >>> plain("Don't touch the JPEG-artefacts!")
    'do not touch the jpeg artefacts !'
    """
    text = text.lower().replace("\u2019", "'").replace("artifact", "artefact")
    text = re.sub(r"\bcan't\b", "can not", re.sub(r"\bwon't\b", "will not", text))
    for short, long in (("n't", " not"), ("'s", " is"), ("'m", " am"), ("'ve", " have"), ("'d", " would")):
        text = re.sub(rf"{short}\b", long, text)
    return re.sub(r"\s+", " ", re.sub(r"([,.;:!?])", r" \1 ", re.sub(r"[^\w.,;:!?]+|_", " ", text))).strip()


PHRASES: Mapping[str, tuple[str, ...]] = _phrases()
_OBJECT = "(?:it|(?:the|this|my) (?:photo|picture|image))"


def pattern_of(phrase: str) -> str:
    """Return a regular expression for a phrase, whose "it" may be said in full, or at the end be left out."""
    middle = re.sub(r" it ", f" {_OBJECT} ", phrase)
    return re.sub(r" it$", f"(?: {_OBJECT})?", middle)


_LONGEST_FIRST = sorted(PHRASES, key=len, reverse=True)
MENTION = re.compile(r"\b(?:" + "|".join(f"({pattern_of(phrase)})" for phrase in _LONGEST_FIRST) + r")\b")


@dataclass(frozen=True)
class Mention:
    """A phrase that names damage: its kinds, and where it stands in a plain text."""

    kinds: tuple[str, ...]
    start: int
    end: int


def mentions(said: str) -> Iterator[Mention]:
    """Find what a plain text names, in order.

    >>> [mention.kinds for mention in mentions(plain("Hazy, and out of focus; there's camera shake."))]
    [('haze',), ('defocus',), ('motion',)]
    """
    for match in MENTION.finditer(said):
        phrase = _LONGEST_FIRST[(match.lastindex or 1) - 1]
        yield Mention(PHRASES[phrase], *match.span())
