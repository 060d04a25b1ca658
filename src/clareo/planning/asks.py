"""Wishes in words: "remove the noise, keep the grain, it is shaken" moves the blend the way a person expects.

A text falls into clauses. A clause has topics (`SAYINGS`), a turn (more of the work, less, or as it is: `_turn`) and an
amount (`AMOUNTS`); `MOVES` says what follows. To teach a word, write it into its table, where a hyphen stands for any
ending: "grain-" is grain and grainy. What nobody understood is said, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clareo.errors import UsageError
from clareo.planning.plans import towards
from clareo.types import KEEP


@dataclass(frozen=True)
class Move:
    """One direction: a part of the blend, and how far towards it (above 0) or away from it (below 0)."""

    part: str  # an expert or KEEP
    share: float


@dataclass(frozen=True)
class Wishes:
    """What was asked, in order, and the clauses that nobody understood, in the user's own words."""

    moves: tuple[Move, ...]
    unknown: tuple[str, ...] = ()

    def told(self) -> str:
        """Say it back.

        >>> understand("denoise, too much detail, make it pop").told()
        "asked: more denoise, less detail, more of the photo as it came; not understood: 'make it pop'"
        """
        names = {KEEP: "of the photo as it came"}
        asked = [f"{'more' if move.share > 0 else 'less'} {names.get(move.part, move.part)}" for move in self.moves]
        unknown = f"; not understood: {', '.join(map(repr, self.unknown))}" if self.unknown else ""
        return f"asked: {', '.join(asked)}{unknown}"


def _any(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})(?!\w)".replace("-", r"\w*"))  # whole words, but for the hyphens


@dataclass(frozen=True)
class Saying:
    """What people call a topic, unless a more particular topic came up in the same clause."""

    topic: str
    kind: str
    words: re.Pattern[str]
    unless: tuple[str, ...] = ()


DAMAGE, WORK, EXCESS = "damage", "work", "excess"  # is to go; is to be done; a sign that too much was done
BLURS, OTHERS = ("motion", "defocus"), ("noise", "motion", "defocus", "blur", "sr", "detail")
MUCH = "(?: (?:it|this|things|anything|the photo|the look))?(?: (?:too|that|so|very))? (?:much|a lot)"
SAYINGS = (  # the first row of a topic that fits a clause decides
    Saying("noise", EXCESS, _any("too smooth|over ?smooth-|over ?denois-|plastic-|wax-|airbrush-|painterly")),
    Saying("noise", WORK, _any("denois-|de nois-|noise (?:reduc-|remov-)|smooth-")),
    Saying("noise", DAMAGE, _any("(?:(?:sharpen-|amplif-) (?:the )?)?(?:nois-|grain-|speckl-)|(?:high )?iso")),
    Saying("motion", DAMAGE, _any("(?:shak-|shook|smear-|jitter-|motion|moving|moved|movement-)(?: blur-)?")),
    Saying("defocus", WORK, _any("refocus-|(?<!not )in(?:to)? focus")),
    Saying("defocus", DAMAGE, _any("(?:not in |out of |un|mis|de)? ?focus-(?: blur-)?|(?:bokeh|lens) blur|soft lens")),
    Saying("blur", EXCESS, _any("too sharp|over ?sharp-|already sharp|sharp enough|halo-|crunchy")),
    Saying("blur", DAMAGE, _any("unsharp-|not (?:very |really |so )?sharp|fuzz-|bokeh|soft(?:ness)?(?! touch)"), BLURS),
    Saying("blur", DAMAGE, _any("blur-(?! (?:the|my|his|her|out))|unclear"), BLURS),  # to blur a wall is another wish
    Saying("blur", WORK, _any("sharp-|(?:de|un) ?blur-|clearer"), BLURS),
    Saying("sr", DAMAGE, _any("low(?:er)? res-|pixel-|(?:de ?)?(?:block|jpe?g)-|compress-|art[ei]fact-|upscaled|tiny")),
    Saying("sr", DAMAGE, _any("small(?! (?:amount|bit|touch|detail|thing|change)s?)|thumbnail-")),
    Saying("sr", WORK, _any("enlarg-|upscal-|super ?res-|resolution|bigger|larger")),
    Saying("detail", EXCESS, _any("faithful-|(?:un)?natural-|(?:it|stay) real|realis-|true to|fake-|artificial-")),
    Saying("detail", WORK, _any("detail-|textur-|crisp-|finer|invent-|hallucinat-|fabricat-|ma(?:k|d)- (?:- )?up")),
    Saying("gentle", WORK, _any("gentl-|subtl-|careful-|(?:light|soft) touch|alone|as (?:it )?is|as little"), OTHERS),
    Saying("gentle", WORK, _any(f"not (?:change|touch|alter|edit|do){MUCH}|not over ?do it|character|mood"), OTHERS),
)
MORE, LESS, HELD = "more", "less", "held"  # turns of phrase; held: "keep the detail"
MOVES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "noise": {MORE: {"denoise": 0.4}, LESS: {"denoise": -0.4, KEEP: 0.3}},
    "motion": {MORE: {"motion": 0.4}, LESS: {"motion": -0.4, KEEP: 0.1}},
    "defocus": {MORE: {"defocus": 0.4}, LESS: {"defocus": -0.4, KEEP: 0.1}},
    "blur": {MORE: {"motion": 0.2, "defocus": 0.2}, LESS: {"motion": -0.4, "defocus": -0.4, KEEP: 0.1}},
    "sr": {MORE: {"sr": 0.4}, LESS: {"sr": -0.4, KEEP: 0.1}},
    "detail": {MORE: {"detail": 0.4}, LESS: {"detail": -0.4, KEEP: 0.1}},
    "gentle": {MORE: {KEEP: 0.4}, LESS: {KEEP: -0.4}},
}
AS_IT_IS = {KEEP: 0.2}
MOST = 0.8  # no single wish takes over the blend
HELP = (
    "say what is wrong (noise, it is shaken, out of focus, blurry, low resolution, JPEG artefacts), what to do "
    "(more detail, less denoising, keep the grain, do not sharpen), or ask for restraint (stay faithful, a light touch)"
)

NOT = _any(
    "not|no|never|neither|without|avoid-|less|fewer|stop|skip|weaker|lower|minimi-|hate|dislike|too much|so much|"
    "over ?do-|rather than|instead of|(?:keep|turn|tone|dial) .*(?:low|down|minimum)"
)
SPARE = _any(
    "(?:keep|leav)-(?!.* (?:low|down|away|out|free|minimum))|preserv-|retain-|maintain-|protect-|stay-|remain-|ignore|"
    "except|apart from|love|i like|(?:is|are) (?:not )?(?:fine|ok|okay|nice|good|beautiful)"
)
ADD = _any("add-|more|extra|(?:bring|give|put) .*back")
MEND = _any(  # of which the last: "but not the grain", where the verb is understood
    "remov-|reduc-|fix-|clean-|rid|eliminat-|suppress-|eras-|filter-|tak(?:e|ing)|correct-|repair-|kill-|touch-|chang-|"
    "alter-|affect-|los(?:e|ing)|destroy-|smooth-|denois-|sharpen-|deblur-|blurring|blur (?:the|my|his|her|out)|"
    "^not (?:the|its|all)"
)
UNDO = _any("reduc-|remov-|undo-")  # "reduce the sharpening"
THIS = "(?:it|this|that|there|(?:the |this |my )?(?:photo|image|picture|shot)) (?:is|was|are)"
ABSENT = re.compile(rf"^{THIS} (?:not|no) (?:(?:very|really|so|that|too|much|any|a|visible) )*_")  # tells, does not ask
STRONG = "very|strong-|a lot|lots|heav-|complete-|(?<!too )(?<!so )much|really|extreme-|(?<!at )all|bad|badly|severe-"
AMOUNTS = (  # the first that fits
    (_any("a (?:little|bit|touch|tad|small amount)|slight-|somewhat|mild-|gentl-|subtl-|lightly|partly|some"), 0.5),
    (_any(f"(?:not|no|without|less) (?:.* )?(?:{STRONG})"), 0.5),  # "do not remove all the noise"
    (_any(STRONG), 1.5),
)

SENTENCES = re.compile(r"(?i)[;!?:()\n]|\.(?!\d)|\s[-\u2013\u2014]+\s|\b(?:but|however)\b")
AFTER = "(?<=noise)|(?<=noisy)|(?<=grain)|(?<=blur)|(?<=blurry)|(?<=detail)|(?<=texture)|(?<=sharper)"
CLAUSES = re.compile(
    r"(?i),|&|/|(?<!salt)(?<!black)\s+and\s+|\b(?:then|also|while|because|though)\b|\s+with\s+(?=(?:less|fewer|no|more)\b)"
    r"|\s+(?=(?:without|except|apart from|rather than|instead of|or|nor)\b)"
    rf"|(?:{AFTER})\s+(?=(?:more|less|no|keep|keeping|preserving|remove|fix)\s)"  # "less noise more detail"
)
LISTED = re.compile(  # takes its verb from the clause before: "keep the grain and the blur"
    r"(?:or|nor) .*|(?:(?:the|its|any|all|my|film|fine|natural|motion|jpe?g|compression) )*"
    r"(?:noise|grain|blur|bokeh|details?|textures?|sharpness|softness|art[ei]facts?|compression|shake)"
)
PLAIN = {  # spellings, and idioms that say no where they mean yes
    r"(?:n['\u2019]t|(?<=\bdo)nt|(?<=\bdoes)nt)\b": " not",
    r"['\u2019]s\b": " is",
    r"\bi(?:['\u2019]d| would) (?:really )?like\b": "i want",
    r"\W+": " ",
    r"\bnot (?:only|just)\b|\bfeel free to\b": "",
    r"\bnot (?:mind|care about|worry about|bother|an? (?:problem|issue))\b|\bnever mind\b|\bforget\b": "ignore",
    r"\bnot (\w+ )?enough\b": r"needs \1",
}
FILLERS = _any(
    "please|kindly|thanks|thank|you|cheers|hi|hello|hey|yes|no|ok|okay|well|just|now|so|very|much|also|all|the|a|an|this|"
    "that|its?|is|i|my|me|we|us|to|for|of|in|do|can|could|would|will|want|like|photo|image|picture|restore|fix"
)


def understand(text: str) -> Wishes:
    """Read what a person asks for; refuse a text of which nothing is understood.

    >>> understand("it is a bit shaken, make it pop")
    Wishes(moves=(Move(part='motion', share=0.2),), unknown=('make it pop',))
    >>> [(move.part, move.share) for move in understand("don't remove the grain, thanks").moves]
    [('denoise', -0.4), ('keep', 0.3)]
    """
    moves: dict[tuple[str, bool], Move] = {}  # a wish that is repeated counts once, at its strongest
    unknown = []
    for typed, plain, before in _clauses(text):
        found = _found(plain)
        if not found and FILLERS.sub("", plain).strip():
            unknown.append(typed)
        for saying in found:
            for move in _moves(saying, before + saying.words.sub("_", plain)):
                key = (move.part, move.share > 0)
                moves[key] = max(moves.get(key, move), move, key=lambda each: abs(each.share))
    if not moves:
        msg = f"nothing in {text.strip()!r} was understood: {HELP}" if text.strip() else f"nothing was asked: {HELP}"
        raise UsageError(msg)
    return Wishes(tuple(moves.values()), tuple(unknown))


def _clauses(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield every clause as typed, in plain words, and what it shares with the one before."""
    for sentence in SENTENCES.split(text):
        last = ""
        for typed in CLAUSES.split(sentence):
            plain = typed.lower()
            for pattern, instead in PLAIN.items():
                plain = re.sub(pattern, instead, plain)
            if plain := plain.strip():
                before = f"{last} " if LISTED.fullmatch(plain) else ""
                yield typed.strip(), plain, before
                for saying in _found(plain):
                    plain = saying.words.sub("_", plain)
                last = before + plain


def _found(plain: str) -> list[Saying]:
    found: dict[str, Saying] = {}
    for saying in SAYINGS:
        if saying.words.search(plain) and found.keys().isdisjoint((saying.topic, *saying.unless)):
            found[saying.topic] = saying
    return list(found.values())


def _moves(saying: Saying, said: str) -> list[Move]:
    amount = next((amount for words, amount in AMOUNTS if words.search(said)), 1.0)
    shares = MOVES[saying.topic].get(_turn(saying.kind, said), AS_IT_IS)
    return [Move(part, max(-MOST, min(MOST, round(share * amount, 3)))) for part, share in shares.items()]


def _turn(kind: str, said: str) -> str:
    """Tell whether a clause, with its topic blanked, asks for more of the work, less, or neither."""
    no, spare, mend = (bool(words.search(said)) for words in (NOT, SPARE, MEND))
    if kind == EXCESS:
        return LESS
    if ABSENT.search(said):
        return LESS if kind == DAMAGE else MORE
    if kind == WORK:
        if mend if no else spare:
            return HELD
        return LESS if no or UNDO.search(said) else MORE
    spare = spare or (bool(ADD.search(said)) and not mend)
    if no:  # "no noise" is to go, as is what should not be kept; what should not be mended stays
        return LESS if mend and not spare else MORE
    return LESS if spare else MORE


def follow(
    wishes: Wishes,
    weights: Mapping[str, float],
    experts: Sequence[str],
    detail: Mapping[str, float] = MappingProxyType({"detail": 1.0}),
) -> dict[str, float]:
    """Move a blend as wished, in the order of asking. Sums stay what they are, to six digits.

    ``detail`` says which experts bring it out, and their shares.
    """
    refused = {move.part for move in wishes.moves if move.share < 0}
    blend = dict(weights)
    for move in _shared_out(wishes.moves, detail):
        if move.part not in (*experts, KEEP):
            msg = f"this system has no {move.part} expert: there are {', '.join(experts)}"
            raise UsageError(msg)
        if move.share < 0:
            blend = _away(blend, move, [expert for expert in experts if expert not in refused])
        elif blend.get(move.part, 0.0) < 1:  # beyond that part alone, "towards" would lead back
            blend = towards(blend, move.part, move.share)
    largest = max(blend, key=blend.__getitem__)
    blend[largest] = round(blend[largest] + sum(weights.values()) - sum(blend.values()), 6)
    return blend


def _shared_out(moves: Sequence[Move], detail: Mapping[str, float]) -> Iterator[Move]:
    """Put the experts that bring out detail in the place of a wish for it."""
    for move in moves:
        if move.part == "detail" and move.share > 0:
            yield from (Move(name, move.share * share) for name, share in detail.items())
        else:
            yield move


def _away(blend: Mapping[str, float], move: Move, others: Sequence[str]) -> dict[str, float]:
    """Take a share of a positive weight, and give it to the other positive experts, or to the photo as it came."""
    freed = max(0.0, blend.get(move.part, 0.0)) * -move.share
    if not freed:
        return dict(blend)
    takers = {name: blend[name] for name in others if name != move.part and blend.get(name, 0.0) > 0} or {KEEP: 1.0}
    moved = {**blend, move.part: blend[move.part] - freed}
    for name, weight in takers.items():
        moved[name] = moved.get(name, 0.0) + freed * weight / sum(takers.values())
    return {part: round(weight, 6) for part, weight in moved.items()}
