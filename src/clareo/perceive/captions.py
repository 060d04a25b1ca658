"""Captions: what is in a photo, in sentences. From LLaVA, from a file, or none.

DaLPSR (arXiv 2406.16477) calls the caption p_s, and steers it by naming tags in the instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from clareo.checkpoints import find
from clareo.errors import CheckpointError
from clareo.io import to_picture
from clareo.io.photo import Photo
from clareo.latents import enlarge
from clareo.perceive.answers import Entry, image_hash, look_up, read_answers, reopen, write_answers
from clareo.perceive.published import load_network, transformers
from clareo.perceive.tags import Tagger, in_words, no_tags
from clareo.types import Image

MOST_TOKENS = 256  # of an answer
LLAVA_1_5 = "USER: <image>\n{} ASSISTANT:"
Ask = Callable[[tuple[str, ...]], str]  # tags -> what LLaVA is asked


class Captioner(Protocol):
    """Describe a photo."""

    def __call__(self, photo: Image, tags: tuple[str, ...] = ()) -> str:
        """(1, 3, H, W), [0, 1], and the words to describe it around -> sentences."""


def no_caption(photo: Image, tags: tuple[str, ...] = ()) -> str:  # noqa: ARG001 - a captioner
    """Say nothing."""
    return ""


@dataclass(frozen=True)
class FileCaptions:
    """Captions from a file of answers (`answers`) or a folder of them, for whatever tags they were written."""

    path: Path
    answers: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", read_answers(self.path))

    def __call__(self, photo: Image, tags: tuple[str, ...] = ()) -> str:  # noqa: ARG002
        """Look the photo up."""
        return str(look_up(self.answers, "caption", photo, self.path))


@dataclass(frozen=True)
class Kept:
    """A tagger and a captioner that are asked once about a photo; what they say is kept in a file of answers.

    `tags` is a tagger and `caption` a captioner. A caption holds for the tags that it was asked around. Other networks
    want another file: it does not know who spoke.
    """

    path: Path
    tagger: Tagger = no_tags
    captioner: Captioner = no_caption
    answers: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", reopen(self.path))

    def tags(self, photo: Image) -> tuple[str, ...]:
        """Return the tags that are kept, or ask for them."""
        entry = self.answers.get(image_hash(photo), {})
        if "tags" not in entry:
            entry = self._keep(photo, {"tags": list(self.tagger(photo))})
        return tuple(entry["tags"])

    def caption(self, photo: Image, tags: tuple[str, ...] = ()) -> str:
        """Return the caption that is kept for these tags, or ask for one."""
        entry = self.answers.get(image_hash(photo), {})
        around = entry.get("around", entry.get("tags", list(tags)))  # a person's caption holds for the tags beside it
        if "caption" not in entry or around != list(tags):
            entry = self._keep(photo, {"caption": self.captioner(photo, tags), "around": list(tags)})
        return str(entry["caption"])

    def _keep(self, photo: Image, said: Entry) -> Entry:
        """Add to what the file says by now: other processes write to it as well."""
        key = image_hash(photo)
        self.answers.update(reopen(self.path))
        self.answers[key] = {**self.answers.get(key, {}), **said}
        write_answers(self.path, self.answers)
        return self.answers[key]


# --- LLaVA -----------------------------------------------------------------------------------------------------------


def instruction(tags: tuple[str, ...] = ()) -> str:
    """Return what LLaVA is asked where nothing else is wanted: DaLPSR's question.

    >>> instruction(("cat", "sofa"))
    'Describe this image and its style in a very detailed manner around the following tags: cat, sofa.'
    """
    around = f" around the following tags: {in_words(tags)}" if tags else ""
    return f"Describe this image and its style in a very detailed manner{around}."


@dataclass(frozen=True)
class LlavaCaptioner:
    """LLaVA from transformers, asked for its likeliest words."""

    network: Any  # transformers' LlavaForConditionalGeneration
    processor: Any  # its AutoProcessor
    most_tokens: int = MOST_TOKENS
    strip: bool = False  # leave out what it says about blur, noise and the like
    ask: Ask = instruction

    @torch.inference_mode()
    def __call__(self, photo: Image, tags: tuple[str, ...] = ()) -> str:
        """Describe one photo; a photo smaller than the network's view is enlarged first, as clareo enlarges."""
        view = int(self.network.config.vision_config.image_size)
        picture = enlarged(photo.cpu(), view)
        given = self.processor(
            images=to_picture(picture, Photo(picture)), text=self._put(self.ask(tags)), return_tensors="pt"
        ).to(self.network.device, self.network.dtype)
        written = self.network.generate(**given, do_sample=False, num_beams=1, max_new_tokens=self.most_tokens)
        answer = written[0, given["input_ids"].shape[1] :]
        caption = str(self.processor.tokenizer.decode(answer, skip_special_tokens=True)).strip()
        return strip_degradation(caption) if self.strip else caption

    def _put(self, question: str) -> str:
        """Put a question as the network was taught to be asked; where its folder does not say, as LLaVA-1.5 was."""
        if not getattr(self.processor, "chat_template", None):
            return LLAVA_1_5.format(question)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(turns, add_generation_prompt=True))


def enlarged(photo: Image, least: int) -> Image:
    """Bring the shorter side to ``least`` px; a photo that has them stays as it is."""
    height, width = photo.shape[-2:]
    factor = least / min(height, width)
    return photo if factor <= 1 else enlarge(photo, (round(height * factor), round(width * factor)))


def load_llava(
    name: str | Path, device: str | torch.device = "cpu", *, strip: bool = False, ask: Ask = instruction
) -> LlavaCaptioner:
    """Load LLaVA from a folder or the hub (`llava-hf/llava-1.5-7b-hf`), in the number format that it was saved in."""
    library = transformers()
    folder = find(str(name))
    network = load_network(library.LlavaForConditionalGeneration, folder, dtype="auto")
    try:
        processor = library.AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        msg = f"{folder}: has no processor that can be loaded ({error})"
        raise CheckpointError(msg) from error
    return LlavaCaptioner(network.to(device), processor, strip=strip, ask=ask)


# --- what is not wanted in a prompt ----------------------------------------------------------------------------------

_DAMAGE = re.compile(
    r"\b(?:blur\w*|noise|noisy|grainy|graininess|film grain|pixel+at\w+|compress\w*|jpe?g|arti?e?facts?"
    r"|(?:un)?focus\w*|low[- ](?:resolution|quality|res)|poor quality|lack\w* (?:of )?(?:detail|clarity)\w*)\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_CLAUSES = re.compile(r"(\s*[,;]\s+|\s+(?=(?:with|but|although|though|while)\b))")
_LEANING = re.compile(r"(?:which|making|giving|creating|adding|suggesting|due|because|so|as)\b", re.IGNORECASE)
_JOINTS = re.compile(r"^(?:and|but|although|though|while)\s+", re.IGNORECASE)


def strip_degradation(caption: str) -> str:
    """Drop what a caption says about blur, noise, compression, focus and low resolution: clauses, or whole sentences.

    A caption of a degraded photo tells of the damage, and a text-to-image network would paint it.

    >>> strip_degradation("A cat sits on a sofa, the image is blurry. Noise is visible. It looks calm.")
    'A cat sits on a sofa. It looks calm.'
    """
    kept = (_stripped(sentence) for sentence in _SENTENCES.split(caption.strip()))
    return " ".join(filter(None, kept))


def _stripped(sentence: str) -> str:
    if not _DAMAGE.search(sentence):
        return sentence
    kept, dropped = "", False
    parts = ["", *_CLAUSES.split(sentence.rstrip(".!? "))]  # joint, clause, joint, clause ...
    for joint, clause in zip(parts[::2], parts[1::2], strict=True):
        # a clause that leans on one that went ("making it hard to see") goes as well
        dropped = bool(_DAMAGE.search(clause) or (dropped and _LEANING.match(clause)))
        if not dropped:
            kept += joint + clause if kept else _JOINTS.sub("", clause)
    return f"{kept[0].upper()}{kept[1:]}." if kept else ""
