"""Wishes in words: "remove the noise, keep the grain, it is shaken" moves the blend the way a person expects.

A text falls into clauses. A clause has topics (`SAYINGS`), a turn (more of the work, less, or as it is: `_turn`) and an
amount (`AMOUNTS`); `MOVES` says what follows. To teach a word, write it into its table, where a hyphen stands for any
ending: "grain-" is grain and grainy. What nobody understood is said, never guessed; so is other editing (`FOREIGN`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
    """What was asked, in order, and the clauses not (wholly) understood, in the user's own words."""

    moves: tuple[Move, ...]
    unknown: tuple[str, ...] = ()

    def told(self) -> str:
        """Say it back.

        >>> understand("denoise, too much detail, make it pop").told()
        "asked: more denoise, less detail, more of the photo as it came; not understood: 'make it pop'"
        """
        names = {KEEP: "of the photo as it came"}
        asked = [f"{'more' if move.share > 0 else 'less'} {names.get(move.part, move.part)}" for move in self.moves]
        unknown = [f"{each!r}{' (--upscale does that)' if SIZE.search(each.lower()) else ''}" for each in self.unknown]
        return f"asked: {', '.join(asked)}{'; not understood: ' if unknown else ''}{', '.join(unknown)}"


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
    Saying("detail", EXCESS, _any("(?:too|over) ?(?:detail-|textur-|crisp-)")),
    Saying("detail", WORK, _any("detail-|textur-|crisp-|finer|invent-|hallucinat-|fabricat-|ma(?:k|d)- (?:- )?up")),
    Saying("gentle", WORK, _any("gentl-|subtl-|careful-|(?:light|soft) touch|alone|as (?:it )?is|as little"), OTHERS),
    Saying("gentle", WORK, _any("not (?:change|touch|alter|edit)(?: .*)?|not over ?do it|character|mood"), OTHERS),
    Saying("gentle", WORK, _any(f"not do(?:{MUCH}| anything)|minimal|go easy|hold- back|conservative-"), OTHERS),
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
    "not|no|never|neither|without|avoid-|less|fewer|stop|skip|weaker|lower|minim-|hate|dislike|(?:too|so) much|drop|"
    "over ?do-|rather than|instead of|(?:keep|turn|tone|dial|cut|hold|scale) .*(?:low|down|back|minimum)|limit-|"
    "too many|refrain-|barely|hardly|scarcely|(?<!a )(?<!the )(?<!too )(?<!so )little"
)
EASY = _any("(?:easy|lightly) (?:on|with)|eas(?:e|ing) (?:off|up)|(?:back|lay|hands) off|let .* be")
SPARE = _any(
    "(?:keep|leav)-(?!.* (?:low|down|away|out|free|minimum))|preserv-|retain-|maintain-|protect-|stay-|remain-|ignore|"
    "except|apart from|love|i like|(?:is|are|looks?) (?:not )?(?:fine|ok|okay|nice|good|great|beautiful|acceptable)|"
    "(?:happy|fine|ok|okay|content|live) with|part of|charm-|character|atmospher-|intentional-|deliberate-|on purpose"
)
ADD = _any(
    "add-|more|extra|(?:bring|give|put) .*back|(?:make|making|give|want|prefer|needs?) "  # "I want a soft look"
    "(?:(?:it|this|me|the|photo|image|picture|to|be|look|an?|some|bit|even|very) )*_(?=$| (?:look|feel|again|as|in))"
)
MEND = _any(  # of which the last: "but not the grain", where the verb is understood
    "remov-|reduc-|fix-|clean-|rid|eliminat-|suppress-|eras-|filter-|tak(?:e|ing)|correct-|repair-|kill-|touch-|chang-|"
    "alter-|affect-|los(?:e|ing)|destroy-|smooth-|denois-|sharpen-|deblur-|blurring|blur (?:the|my|his|her|out)|"
    "^not (?:the|its|all)"
)
UNDO = _any("reduc-|remov-|undo-")  # "reduce the sharpening"
THIS = r"(?:it|this|that|there|photo|image|picture|shot|(?:the|this|my|his|her) \w+)"
FEW = "(?:barely|hardly|scarcely|almost no|next to no|(?:very |so |too )?little)"
ABSENT = re.compile(  # tells, does not ask: "it is not noisy", "I can hardly see any detail"
    rf"^(?:{THIS} (?:is|was|are|has|have|shows|does)|(?:i|you|we)(?: can| could| do)?(?: see)?) "
    rf"(?:not|no|neither|{FEW}) (?:(?:see|have|show|very|really|so|that|too|much|any|an?|the|visible|fine) )*_"
    rf"|^(?:the )?_ (?:.* )?(?:is|are) (?:not|{FEW}) (?:visible|noticeable|there)\b"
)
STRONG = "very|strong-|a lot|lots|heav-|complete-|(?<!too )(?<!so )much|really|extreme-|(?<!at )all|bad|badly|severe-"
AMOUNTS = (  # the first that fits
    (_any("a (?:little|bit|touch|tad|small amount)|slight-|somewhat|mild-|gentl-|subtl-|lightly|partly|some"), 0.5),
    (_any(f"(?:not|no|without|less) (?:.* )?(?:{STRONG})"), 0.5),  # "do not remove all the noise"
    (_any(STRONG), 1.5),
)

SENTENCES = re.compile(r"(?i)[;!?:()\n]|\.(?!\d)|\s[-\u2013\u2014]+\s|\b(?:but|however)\b")
VERBS = "sharpen|deblur|denoise|enlarge|upscale|brighten|darken|lighten|crop|rotate|straighten|recolou?r|colou?ri[sz]e"
AFTER = "(?<=noise)|(?<=noisy)|(?<=grain)|(?<=blur)|(?<=blurry)|(?<=detail)|(?<=texture)|(?<=sharper)"
CLAUSES = re.compile(
    r"(?i),|&|/|(?<!salt)(?<!black)\s+and\s+|\b(?:then|also|while|because|though)\b|\s+with\s+(?=(?:less|fewer|no|more)\b)"
    r"|\s+(?=(?:without|except|apart from|rather than|instead of|or|nor)\b)"
    rf"|(?:{AFTER})\s+(?=(?:more|less|no|keep|keeping|preserving|remove|fix|{VERBS})\s)"  # "less noise more detail"
)
DAMAGES = "noise|grain|blur|bokeh|details?|textures?|sharpness|softness|art[ei]facts?|compression|shake"
LISTED = re.compile(  # takes its verb from the clause before: "keep the grain and the blur"
    rf"(?:or|nor) .*|(?:(?:the|its|any|all|my|film|fine|natural|motion|jpe?g|compression) )*(?:{DAMAGES})"
)
PLAIN = {  # spellings, and idioms that say no where they mean yes
    r"\bcan(?:['\u2019]?t|not)\b": "can not",
    r"(?:n['\u2019]t|(?<=\bdo)nt|(?<=\bdoes)nt)\b": " not",
    r"['\u2019]s\b": " is",
    r"\bi(?:['\u2019]d| would) (?:really )?like\b": "i want",
    r"\W+": " ",
    r"\bnot (?:only|just)\b|\bfeel free to\b|\b(?:can|could) not you\b": "",
    r"\bnot (?:mind|care about|worry about|bother|matter|disturb)\b|\bnever mind\b|\bforget\b": "ignore",
    r"\b(?:no|not (?:an?|the|my)) (?:big |real )?(?:problem|issue|deal)\b|\b(?:nothing|not) (?:is )?wrong\b": "ignore",
    r"\bnot (\w+ )?enough\b": r"needs \1",
    r"\b(?:do|change|touch|alter|edit) nothing\b": "not change anything",
    r"\bsofter\b(?! than)": "more soft",
    r"^ ?(?=(?:not|neither) (?:(?:very|really|too|so|that) )?(?:nois|grain|blurr|fuzz|shak|smear|pixel)\w*(?:y|ed|en)\b"
    rf"(?!.* please)|{FEW} (?:any )?(?:nois|grain|blur|detail|textur)\w*(?! [rs])"
    r"|no (?:details?|textures?) (?:\w+ )?(?:in|on)\b)": "it is ",  # tells, in short
}
OBJECTS = "person|people|m[ae]n|wom[ae]n|child|children|boys?|girls?|dogs?|cars?|objects?|things?|background|sky|parts?"
COLOURS = "red|green|blue|yellow|orange|purple|pink|brown|gr[ae]y|golden|sepia|monochrome|black|white"
FOREIGN = _any(  # wishes for other kinds of editing; of the first, a topic only says which object is meant
    "(?:remov-|eras-|delet-|replac-|swap-|hid(?:e|ing)|move|rid of|tak(?:e|ing)|cut|crop-|trim-|add-|blur(?= the| out))"
    f"(?: (?!(?:from|in|on|of|to|with|{DAMAGES})\\b)\\w+)*? (?:{OBJECTS})(?! (?:is |motion )?(?:{DAMAGES})\\b)|"
    f"(?:turn|make|paint|dye|tint|colou?r|convert) (?:.* )?(?:{COLOURS})$|(?:into|like|as) an? (?:cartoon|painting)|"
    "(?:bright|dark|light|straight|whit)en-|brighter|darker(?! (?:area|part|tone)s?)|crop-|rotat-|flip-|-saturat-|"
    "vivid-|-contrast-|(?<!long )exposure|(?:over|under) ?expos-|(?:re|de)colou?r-|colou?ri[sz]-|colou?rful|faded|"
    "warmer|cooler|(?:warm|cool) (?:it|the|up|down)|more colou?rs?|white balance|red eyes?|-haz[ey]|scratch-|watermark-"
)
TIMES = r"(?:\d+ ?(?:x|times|k|mp|px|pixels)\b|\d+ ?[%\u00d7]|x ?\d|twice|doubl|tripl|(?:two|three|four) times)"
LARGE = "(?:enlarg|upscal|resiz|super ?res|big|large|resolution|size)"
SIZE = re.compile(rf"\b(?:{LARGE}.*{TIMES}|{TIMES}.* {LARGE}|make it {TIMES}$)")  # in numbers: no matter of the blend
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
        if "#" in plain or SIZE.search(typed.lower()) or (not found and FILLERS.sub("", plain).strip()):
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
    """Yield every clause as typed, in plain words (# for foreign wishes), and what it shares with the one before."""
    for sentence in SENTENCES.split(text):
        last = ""
        for typed in CLAUSES.split(sentence):
            plain = typed.lower()
            for pattern, instead in PLAIN.items():
                plain = re.sub(pattern, instead, plain)
            if plain := FOREIGN.sub("#", plain).strip():
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
    if kind == EXCESS or (EASY.search(said) and not no):
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
    reach: float = 1.0,
) -> dict[str, float]:
    """Move a blend as wished, in the order of asking. Sums stay what they are, to six digits.

    ``reach`` says how far a wish for all the detail there is goes towards the `detail` expert, or away from it.
    """
    refused = {move.part for move in wishes.moves if move.share < 0}
    blend = dict(weights)
    for move in wishes.moves:
        if move.part not in (*experts, KEEP):
            msg = f"this system has no {move.part} expert: there are {', '.join(experts)}"
            raise UsageError(msg)
        if move.part == "detail" and move.share > 0:
            blend = towards(blend, "detail", move.share * reach)
        elif move.share < 0:
            blend = _away(blend, move, [expert for expert in experts if expert not in refused])
        elif blend.get(move.part, 0.0) < 1:  # beyond that part alone, "towards" would lead back
            blend = towards(blend, move.part, move.share)
    largest = max(blend, key=blend.__getitem__)
    blend[largest] = round(blend[largest] + sum(weights.values()) - sum(blend.values()), 6)
    return blend


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
