"""The mixture of transformers: packed as one by one, remembered as read anew, noised images that nobody else sees."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from clareo.backbones.dit import positions as places_of
from clareo.backbones.mot import Cache, MoT, MoTSettings, Rotation, rotation
from clareo.backbones.mot_ends import LatentEnds, Table, patchify, unpatchify
from clareo.backbones.mot_packing import Document, Packing, Split, end_of, length_of, mask_of, positions_of
from clareo.backbones.mot_speech import UNLIKELY, Numbers, choose, expected, generate, hear
from clareo.errors import UsageError

SMALL = MoTSettings(vocabulary=40, width=32, depth=3, heads=4, groups=2, hidden=48)
TEXT, VIEW, CLEAN, NOISED = Split("text", 4), Split("view", 6), Split("clean", 8), Split("noised", 7)
RESTORING: Document = (CLEAN, VIEW, TEXT, NOISED)
ANSWERING: Document = (VIEW, VIEW, TEXT, Split("text", 5))
BETWEEN: Document = (VIEW, NOISED, TEXT, CLEAN, NOISED)  # what comes behind a noised image
pytestmark = pytest.mark.usefixtures("same_start")


def network(settings: MoTSettings = SMALL) -> MoT:
    """Return a network in which everything says something, other things in every layer and expert."""
    mot = MoT(settings)
    with torch.no_grad():
        for name, value in mot.named_parameters():
            value.normal_(std=0.25).add_(1.0 if "norm" in name or "before" in name or "between" in name else 0.0)
    return mot.eval()


def tokens(*documents: Document) -> torch.Tensor:
    return torch.randn(sum(length_of(document) for document in documents), SMALL.width)


# --- what stands where -----------------------------------------------------------------------------------------------


def test_positions_of_words_images_and_what_was_dropped() -> None:
    assert positions_of(RESTORING).tolist() == [*[0] * 8, *[1] * 6, 2, 3, 4, 5, *[6] * 7]
    dropped_view = (CLEAN, Split("view", 0), TEXT, NOISED)
    assert positions_of(dropped_view).tolist() == [*[0] * 8, 2, 3, 4, 5, *[6] * 7]
    dropped_text = (CLEAN, VIEW, Split("text", 0), NOISED)
    assert positions_of(dropped_text).tolist() == [*[0] * 8, *[1] * 6, *[2] * 7]
    put_in_again = (TEXT, NOISED, CLEAN, TEXT)  # a made image, clean, stands where it stood while it was noised
    assert positions_of(put_in_again, place=3).tolist() == [3, 4, 5, 6, *[7] * 7, *[7] * 8, 8, 9, 10, 11]
    assert end_of(put_in_again, place=3) == 12
    both = Packing((RESTORING, ANSWERING))
    assert both.positions.tolist() == [*positions_of(RESTORING).tolist(), *positions_of(ANSWERING).tolist()]


def test_only_latents_go_to_the_generation_expert_and_their_marks_do_not() -> None:
    packing = Packing((RESTORING, ANSWERING))
    wanted = [*[0], *[1] * 6, *[0], *[0] * 6, *[0] * 4, *[0], *[1] * 5, *[0], *[0] * length_of(ANSWERING)]
    assert packing.generated.tolist() == [bool(value) for value in wanted]


def explicit(document: Document) -> torch.Tensor:
    """Who sees whom, token by token, in the words of the rule."""
    kinds = [(place, split.kind) for place, split in enumerate(document) for _ in range(split.length)]
    seen = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    for row, (mine, kind) in enumerate(kinds):
        for column, (theirs, other) in enumerate(kinds):
            if mine == theirs:
                seen[row, column] = kind != "text" or column <= row
            else:
                seen[row, column] = theirs < mine and other != "noised"
    return seen


@pytest.mark.parametrize("document", [RESTORING, ANSWERING, BETWEEN, (TEXT,), (TEXT, Split("view", 0), NOISED)])
def test_who_sees_whom(document: Document) -> None:
    mask = mask_of(document)
    assert mask is not None
    assert torch.equal(mask, explicit(document))
    behind = mask_of(document, seen=3)
    assert behind is not None
    assert torch.equal(behind[:, 3:], mask)
    assert behind[:, :3].all()


def test_an_image_or_a_word_alone_needs_no_mask() -> None:
    assert mask_of((NOISED,), seen=9) is None
    assert mask_of((Split("text", 1),), seen=9) is None


@pytest.mark.parametrize(("kind", "length"), [("view", 2), ("noised", 1), ("text", -1), ("sound", 3)])
def test_impossible_splits_are_refused(kind: str, length: int) -> None:
    with pytest.raises(UsageError, match="impossible split"):
        Split(kind, length)  # type: ignore[arg-type]


# --- attention -------------------------------------------------------------------------------------------------------


def turned(x: torch.Tensor, by: Rotation) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * by[0] + torch.cat([-second, first], dim=-1) * by[1]


def one_by_one(mot: MoT, x: torch.Tensor, document: Document) -> torch.Tensor:
    """The network written out: token by token, head by head, one softmax a time."""
    where, seen = positions_of(document), explicit(document)
    making = Packing((document,)).generated.tolist()
    rows = list(x)
    for layer in mot.layers:
        experts = [layer.generate if made else layer.understand for made in making]
        asked = []
        for expert, row, position in zip(experts, rows, where, strict=True):
            h, by = expert.before(row), rotation(position[None], mot.settings)
            query = turned(expert.query_norm(expert.query(h).view(mot.settings.heads, -1)), by)
            key = turned(expert.key_norm(expert.key(h).view(mot.settings.groups, -1)), by)
            asked.append((query, key, expert.value(h).view(mot.settings.groups, -1)))
        said = []
        for place, (query, _, _) in enumerate(asked):
            columns = seen[place].nonzero()[:, 0].tolist()
            heads = []
            for number, head in enumerate(query):
                group = number // (mot.settings.heads // mot.settings.groups)
                keys, values = (torch.stack([asked[c][k][group] for c in columns]) for k in (1, 2))
                heads.append(torch.softmax(keys @ head / mot.settings.head**0.5, dim=0) @ values)
            said.append(torch.cat(heads))
        rows = [row + expert.leave(heads) for expert, row, heads in zip(experts, rows, said, strict=True)]
        rows = [
            row + expert.down(F.silu(expert.gate(expert.between(row))) * expert.up(expert.between(row)))
            for expert, row in zip(experts, rows, strict=True)
        ]
    return torch.stack([(mot.generated if made else mot.understood)(r) for made, r in zip(making, rows, strict=True)])


@torch.no_grad()
def test_packed_attention_is_one_by_one_attention_with_explicit_masks() -> None:
    mot, documents = network(), (RESTORING, RESTORING, ANSWERING, BETWEEN, RESTORING)
    x = tokens(*documents)
    packed, start = mot(x, Packing(documents)), 0
    for document in documents:
        stop = start + length_of(document)
        alone = one_by_one(mot, x[start:stop], document)
        assert float(alone.std()) > 0.1
        assert torch.allclose(packed[start:stop], alone, atol=1e-5)
        start = stop


@torch.no_grad()
def test_a_noised_image_is_seen_by_nobody_else() -> None:
    mot = network()
    x, packing = tokens(BETWEEN, RESTORING), Packing((BETWEEN, RESTORING))
    before = mot(x, packing)
    for span in packing.of("noised"):
        changed = x.clone()
        changed[span.all] += 1
        after = mot(changed, packing)
        others = torch.ones(packing.length, dtype=torch.bool)
        others[span.all] = False
        assert torch.equal(before[others], after[others])
        assert not torch.allclose(before[span.all], after[span.all], atol=1e-2)
    for span in packing.of("clean", "view"):
        changed = x.clone()
        changed[span.all] += 1
        last = slice(packing.length - 7, packing.length) if span.document else packing.of("noised")[1].all
        assert not torch.allclose(before[last], mot(changed, packing)[last], atol=1e-3)  # but these are seen


@torch.no_grad()
def test_only_distances_between_positions_count() -> None:
    """What is left of a sample says the same whether or not dropped images in front of it keep their positions."""
    mot, left = network(), (TEXT, NOISED)
    x = tokens(left)
    kept = (Split("clean", 0), Split("view", 0), *left)
    assert Packing((kept,)).positions.tolist() != Packing((left,)).positions.tolist()
    assert torch.allclose(mot(x, Packing((kept,))), mot(x, Packing((left,))), atol=1e-5)
    apart = (TEXT, Split("view", 0), NOISED)
    assert not torch.allclose(mot(x, Packing((apart,))), mot(x, Packing((left,))), atol=1e-3)


@torch.no_grad()
def test_every_expert_speaks_for_its_own_tokens_alone() -> None:
    mot = network(MoTSettings(**{**SMALL.__dict__, "depth": 1}))
    x, packing = tokens(RESTORING), Packing((RESTORING,))
    before = mot(x, packing)
    for expert, own in ((mot.layers[0].understand, ~packing.generated), (mot.layers[0].generate, packing.generated)):
        for part in (expert.query, expert.leave, expert.down, expert.between):  # what others do not hear of
            kept = part.weight.clone()
            part.weight.add_(0.1 * torch.randn_like(part.weight))
            after = mot(x, packing)
            part.weight.copy_(kept)
            changed = (before - after).abs().amax(1) > 0
            assert torch.equal(changed, own)
    mot.layers[0].generate.value.weight.mul_(2)  # keys and values are everybody's who sees the token
    assert ((before - mot(x, packing)).abs().amax(1) > 0).all()


# --- memory ----------------------------------------------------------------------------------------------------------


def remembered(mot: MoT, x: torch.Tensor, document: Document, batch: int = 1) -> tuple[torch.Tensor, Cache]:
    """Read a document split by split; return what was said, and the memory."""
    cache: Cache | None = None
    said, rows = [], x.reshape(batch, -1, x.shape[-1])
    edges = [0, *torch.tensor([split.length for split in document]).cumsum(0).tolist()]
    for split, (start, stop) in zip(document, pairwise(edges), strict=True):
        packing = Packing(((split,),) * batch, 0 if cache is None else cache.place)
        hidden, cache = mot.extend(rows[:, start:stop].flatten(0, 1), packing, cache)
        said.append(hidden.reshape(batch, -1, x.shape[-1]))
    assert cache is not None
    return torch.cat(said, dim=1).flatten(0, 1), cache


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_reading_split_by_split_is_reading_at_once(batch: int) -> None:
    mot, document = network(), (CLEAN, VIEW, TEXT, Split("text", 3))
    x = tokens(*[document] * batch)
    parts, cache = remembered(mot, x, document, batch)
    assert torch.allclose(parts, mot(x, Packing((document,) * batch)), atol=1e-5)
    assert (cache.length, cache.place) == (length_of(document), end_of(document))


@torch.no_grad()
def test_denoising_behind_what_is_remembered_is_reading_everything_anew() -> None:
    mot = network()
    told = RESTORING[:3]
    context = tokens(told)
    _, cache = mot.extend(context, Packing((told,)), None)
    kept = [each.clone() for each in (*cache.keys, *cache.values)]
    for _ in range(3):  # three steps, each with another noised image
        x = torch.randn(NOISED.length, SMALL.width)
        anew = mot(torch.cat([context, x]), Packing((RESTORING,)))[-NOISED.length :]
        assert torch.allclose(mot(x, Packing(((NOISED,),), cache.place), cache), anew, atol=1e-5)
    assert all(torch.equal(old, new) for old, new in zip(kept, (*cache.keys, *cache.values), strict=True))


def test_what_cannot_be_remembered_is_refused() -> None:
    mot, x = network(), tokens((NOISED,))
    with pytest.raises(UsageError, match="seen by nobody"):
        mot.extend(x, Packing(((NOISED,),)), None)
    _, cache = mot.extend(tokens((TEXT,)), Packing(((TEXT,),)), None)
    with pytest.raises(UsageError, match="does not follow"):
        mot(x, Packing(((NOISED,),), 1), cache)
    with pytest.raises(UsageError, match="built alike"):
        mot.extend(tokens((TEXT,), (VIEW,)), Packing(((TEXT,), (VIEW,))), None)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_words_said_from_memory_are_those_said_from_everything(temperature: float) -> None:
    mot = network()
    context = tokens((VIEW, TEXT))
    _, cache = mot.extend(context, Packing(((VIEW, TEXT),)), None)
    rng = torch.Generator().manual_seed(3)
    quick = generate(mot, 1, 12, cache, end=0, temperature=temperature, rng=rng)
    slow, ids, rng = [], [1], torch.Generator().manual_seed(3)
    for _ in range(12):
        x = torch.cat([context, mot.embed(torch.tensor(ids))])
        hidden = mot(x, Packing(((VIEW, TEXT, Split("text", len(ids))),)))
        ids.append(choose(mot.speak(hidden[-1:])[0], temperature, rng))
        if ids[-1] == 0:
            break
        slow.append(ids[-1])
    assert quick == slow
    assert len(set(quick)) > 1
    stop = quick[2]
    assert (
        generate(mot, 1, 12, cache, end=stop, temperature=temperature, rng=torch.Generator().manual_seed(3))
        == (quick[: quick.index(stop)])
    )


def said_by(mot: MoT, cache: Cache, numbers: Numbers) -> dict[int, float]:
    """How likely every number of two digits is, both said."""
    found = {}
    for first in range(10):
        logits, behind = hear(mot, 1, cache)
        share = torch.softmax(logits[list(numbers.digits)], 0)[first]
        _, behind = hear(mot, numbers.digits[first], behind)
        tenths = torch.softmax(hear(mot, numbers.point, behind)[0][list(numbers.digits)], 0)
        found |= {10 * first + tenth: float(share * tenths[tenth]) for tenth in range(10)}
    return found


@torch.no_grad()
def test_a_number_is_what_is_expected_of_it() -> None:
    mot = network()
    mot.speak.weight.mul_(0.3)  # it doubts: every digit is followed up
    _, cache = mot.extend(tokens((VIEW, TEXT)), Packing(((VIEW, TEXT),)), None)
    numbers = Numbers(tuple(range(4, 14)), 14, 0.0, 9.999)
    shares = said_by(mot, cache, numbers)
    assert min(sum(shares[10 * first + tenth] for tenth in range(10)) for first in range(10)) > UNLIKELY
    logits, behind = hear(mot, 1, cache)
    mean = sum(share * (number / 10 + 0.05) for number, share in shares.items())
    assert expected(mot, logits, behind, numbers) == pytest.approx(mean, abs=1e-5)


@torch.no_grad()
def test_a_number_is_said_whole_and_within_its_bounds() -> None:
    mot = network()
    mot.speak.weight.zero_()
    mot.speak.bias = torch.nn.Parameter(torch.zeros(len(mot.speak.weight)))
    mot.speak.bias[9] = 9.0  # whatever it is asked, it says five
    _, cache = mot.extend(tokens((VIEW, TEXT)), Packing(((VIEW, TEXT),)), None)
    numbers = Numbers(tuple(range(4, 14)), 14, 1.0, 5.0)
    assert generate(mot, 1, 7, cache, end=0, numbers=numbers)[:5] == [9, 14, 4, 4, 4]
    assert generate(mot, 1, 3, cache, end=0) == [9, 9, 9]


@torch.no_grad()
def test_half_precision_says_nearly_the_same() -> None:
    mot, x = network(), tokens(RESTORING)
    whole = mot(x, Packing((RESTORING,)))
    with torch.autocast("cpu", torch.bfloat16):
        cast = mot(x, Packing((RESTORING,))).float()
    half = mot.to(torch.bfloat16)(x.bfloat16(), Packing((RESTORING,))).float()
    for rough in (cast, half):
        assert float((rough - whole).abs().mean() / whole.abs().mean()) < 0.1


# --- ends ------------------------------------------------------------------------------------------------------------


def test_patches_are_read_row_by_row_with_channels_last() -> None:
    image = torch.randn(2, 5, 4, 6)
    tokens = patchify(image, 2)
    assert tokens.shape == (2, 6, 20)
    assert torch.equal(tokens[1, 4], image[1, :, 2:4, 2:4].permute(1, 2, 0).flatten())  # second row, second column
    assert torch.equal(unpatchify(tokens, (2, 3), 2), image)


def test_places_are_those_of_the_square_table() -> None:
    table = Table(9, 16)
    assert torch.equal(table((3, 5)), places_of((9, 9), 16).reshape(9, 9, 16)[:3, :5].flatten(0, 1))
    with pytest.raises(UsageError, match="does not fit the table of 9 x 9"):
        table((4, 10))


def test_untrained_ends_predict_nothing_and_know_the_time() -> None:
    ends, latent = LatentEnds(4, 16, 2, 8), torch.randn(2, 4, 6, 8)
    early, late = (ends.tokens(latent, torch.full((2,), t)) for t in (0.0, 0.9))
    assert early.shape == (2, 12, 16)
    assert not torch.allclose(early, late, atol=1e-3)
    velocity = ends.velocity(early, ends.grid(latent))
    assert velocity.shape == latent.shape
    assert not velocity.any()


@pytest.mark.parametrize("changes", [{"heads": 3}, {"groups": 3}, {"depth": 0}, {"width": 36, "heads": 4, "groups": 2}])
def test_impossible_shapes_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="impossible mixture"):
        MoTSettings(**{**SMALL.__dict__, **changes})
