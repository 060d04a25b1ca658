"""A closed vocabulary: words, digits and marks to numbers and back.

It holds every word that the generators can say. Of other words those are heard that differ in their ending only
("streaking"), or have a synonym in it (`SYNONYMS`); the rest become `UNKNOWN`, and `Tokens.unknown` names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from clareo.degrade import words as spoken
from clareo.perceive.conversation import answers, wishes
from clareo.perceive.conversation.lexicon import ADJECTIVES, BLURRED, NOUNS, STORIES, WORK, plain

END, UNKNOWN, POINT, LINE = "<end>", "<unknown>", "<point>", "<line>"
START, IMAGE, IMAGE_END = "<start>", "<image>", "</image>"  # around a text, and around a photo
MARKS = (".", ",", ";", ":", "!", "?")
QUESTIONS: Mapping[str, tuple[str, ...]] = {  # what a network is asked, besides what a person wishes; the first in use
    "describe": ("describe this photo", "what is wrong with it", "tell me about the quality of the photo"),
    "score": ("describe this photo briefly and score it", "how good is it", "rate this photo", "give it a score"),
    "compare": ("compare photo A and photo B with the original", "which is better", "which of the two do you prefer"),
}
DESCRIBE, SCORE, COMPARE = (questions[0] for questions in QUESTIONS.values())
ANALYSE = "analyse this photo and plan its restoration"
RESTORE = wishes.GENERAL[0]  # a wish where nobody wishes anything
SYNONYMS: Mapping[str, str] = {  # heard as
    **dict.fromkeys(("erase", "delete", "strip", "kill", "banish", "scrub", "lose"), "remove"),
    **dict.fromkeys(("gloomy", "black", "shadowy", "dusky", "unlit", "nighttime"), "dark"),
    **dict.fromkeys(("lighten", "illuminate", "relight"), "brighten"),
    **dict.fromkeys(("smog", "smoke", "smoggy", "cloudy", "fogginess"), "fog"),
    **dict.fromkeys(("droplets", "droplet", "spots", "splashes"), "drops"),
    **dict.fromkeys(("rainfall", "drizzle", "downpour", "raining"), "rain"),
    **dict.fromkeys(("iso", "static", "snow", "dots"), "noise"),
    **dict.fromkeys(("jittery", "wobbly", "trembling", "jerky", "shook", "trembled"), "shaky"),
    **dict.fromkeys(("fuzzy", "unsharp", "unclear", "blurriness"), "blurry"),
    **dict.fromkeys(("pixels", "pixelly", "lowres"), "pixelated"),
    **dict.fromkeys(("artifacts", "mosquito", "ringing"), "artefacts"),
    **dict.fromkeys(("shot", "snapshot", "pic", "frame"), "photo"),
    **dict.fromkeys(("maintain", "save", "protect", "respect"), "preserve"),
    **dict.fromkeys(("horrible", "awful", "annoying", "distracting"), "ugly"),
    **dict.fromkeys(("super", "extremely", "terribly", "so", "very", "really", "rather", "pretty"), "quite"),
    **dict.fromkeys(("skip", "ignore", "spare"), "leave"),
}
CAPITALS = {"i": "I", "jpeg": "JPEG"}
ENDINGS = ("s", "e", "es", "ed", "d", "ing", "er", "y", "ly", "iness", "ness", "up")
_SAID = re.compile(r"\d+\.\d+|\d|[.,:;!?]|\n|[^\W\d_]+")
_LABEL = re.compile(r"\b((?:[Pp]hoto|Conclusion:) )([AB])\b")


def vocabulary_words() -> tuple[str, ...]:
    """Return every word that the generators can say, in the order of the alphabet."""
    return tuple(
        sorted({word for text in _texts() for word in plain(text.replace("{}", "")).split() if word.isalpha()})
    )


def _texts() -> Iterator[str]:
    """Yield every phrase that texts are made of."""
    tables = (spoken.NAMES, spoken.EFFECTS, NOUNS, ADJECTIVES, WORK, STORIES, answers.REASON)
    yield from (phrase for table in tables for phrases in table.values() for phrase in phrases)
    yield from (phrase for group in (*spoken.AMOUNTS, *spoken.VERDICTS) for phrase in group)
    yield from (*spoken.OPENINGS, *spoken.REASONS, *spoken.CLEAN, *answers.SCORES, *answers.SHOWS, *answers.NOTHING)
    yield from (*wishes.GENERAL, *wishes.MENDS, *wishes.COMPLAINTS, *wishes.SIGHTS, *wishes.KEEPS, *wishes.EXCEPT)
    yield from (*wishes.BEFORE, *wishes.AFTER, *wishes.JOINS, *BLURRED, *answers.STAYS)
    yield from (question for questions in QUESTIONS.values() for question in questions)
    yield from (answers.PLAN, answers.IDLE, "Conclusion: tie", "but then", "score", ANALYSE)
    yield "could would should photo picture image my this the a it is are was were very not do can"
    yield wishes.FILLERS


@dataclass(frozen=True)
class Tokens:
    """Text to numbers and back."""

    words: tuple[str, ...] = field(default_factory=vocabulary_words)
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)
    all: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        marks = (START, END, IMAGE, IMAGE_END, UNKNOWN, POINT, LINE, *MARKS, *answers.LABELS)
        every = (*marks, *"0123456789", *self.words)
        object.__setattr__(self, "all", every)
        object.__setattr__(self, "index", {word: place for place, word in enumerate(every)})

    def __len__(self) -> int:
        return len(self.all)

    @property
    def ends(self) -> tuple[int, int]:
        """Return what a text starts and ends with."""
        return self.index[START], self.index[END]

    @property
    def marks(self) -> tuple[int, int]:
        """Return what stands before a photo and behind it."""
        return self.index[IMAGE], self.index[IMAGE_END]

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the numbers of the labels of two photos."""
        return tuple(self.index[label] for label in answers.LABELS)

    @property
    def numerals(self) -> tuple[tuple[int, ...], int]:
        """Return the numbers of the digits 0 to 9, and of the point."""
        return tuple(self.index[digit] for digit in "0123456789"), self.index[POINT]

    def marked(self, text: str) -> list[int]:
        """Return the numbers of a text with its marks; of no text, none."""
        start, end = self.ends
        return [start, *self.encode(text), end] if text.strip() else []

    def encode(self, text: str) -> list[int]:
        r"""Return the numbers of a text; words that are not heard are `UNKNOWN`.

        >>> tokens = Tokens()
        >>> tokens.decode(tokens.encode("Photo A is clean. The score is 3.250.\nConclusion: A"))
        'Photo A is clean. The score is 3.250.\nConclusion: A'
        """
        return [self.index[self.heard(word) or UNKNOWN] for word in _split(text)]

    def decode(self, numbers: Iterable[int]) -> str:
        """Write numbers out, with capitals where sentences begin."""
        text = ""
        for word in (self.all[number] for number in numbers):
            if word == END:
                break
            if word in (START, IMAGE, IMAGE_END):
                continue
            text = _appended(text, word)
        return text

    def heard(self, word: str) -> str | None:
        """Return the word of the vocabulary that a word is heard as; None: it is not heard.

        >>> tokens = Tokens()
        >>> [tokens.heard(word) for word in ("grain", "gloomy", "streaking", "bicycle")]
        ['grain', 'dark', 'streaks', None]
        """
        if word in self.index:
            return word
        if SYNONYMS.get(word) in self.index:
            return SYNONYMS[word]
        stem = _stem(word)
        return next((known for known in self.words if len(stem) > 3 and _stem(known) == stem), None)

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that are not heard, once each.

        >>> Tokens().unknown("remove the bicycle, please")
        ['bicycle']
        """
        return list(dict.fromkeys(word for word in _split(text) if word.isalpha() and self.heard(word) is None))


def _split(text: str) -> Iterator[str]:
    """Yield words in lower case, marks, digits one by one, and labels behind "photo" and "Conclusion:"."""
    marked = _LABEL.sub(lambda match: f"{match[1]}{'@' if match[2] == 'A' else '#'}", text)
    spaced = "\n".join(plain(line.replace("@", " labela ").replace("#", " labelb ")) for line in _points(marked))
    for word in _SAID.findall(spaced):
        if word == "\n":
            yield LINE
        elif word[0].isdigit():
            yield from word
        else:
            yield {"labela": "A", "labelb": "B", "point": POINT}.get(word, word)


def _points(text: str) -> list[str]:
    """Cut a text into lines, and spell out the points in numbers."""
    return re.sub(r"(\d)\.(?=\d)", r"\1 point ", text).split("\n")


def _stem(word: str) -> str:
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _appended(text: str, word: str) -> str:
    if word == LINE:
        return text + "\n"
    if word == POINT:
        return text + "."
    if word in MARKS or (word.isdigit() and re.search(r"\d\.?\d*$", text)):
        return text + word
    begins = not text or text[-1] in ".!?\n"
    written = CAPITALS.get(word, word)
    written = written[0].upper() + written[1:] if begins else written
    return text + ("" if not text or text.endswith("\n") else " ") + written
