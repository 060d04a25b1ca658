"""The diffusion transformer: places and times as published, blocks that start closed, windows, control from beside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from clareo.backbones.dit import (
    FRAME,
    Attention,
    DiTSettings,
    LatentDiT,
    TimeEmbedding,
    places_in_frame,
    positions,
    stretches,
)
from clareo.backbones.dit_control import ControlledDiT, TransformerControl
from clareo.backbones.dit_pixels import Finish, PixelDiT
from clareo.backbones.features import recorded
from clareo.errors import UsageError
from clareo.types import Condition

TINY = DiTSettings(entering=4, leaving=4, width=16, depth=3, heads=2, classes=0)
pytestmark = pytest.mark.usefixtures("same_start")


def dit(**changes: Any) -> LatentDiT:
    return LatentDiT(DiTSettings(**{**TINY.__dict__, **changes}))


def speak(network: torch.nn.Module) -> torch.nn.Module:
    """Give everything that starts as nothing something to say, always the same."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            if not value.any():
                torch.nn.init.normal_(value, std=0.3, generator=rng)
    return network


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


# --- where and when --------------------------------------------------------------------------------------------------


def test_places_are_those_of_the_published_table() -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    table = embeddings.get_2d_sincos_pos_embed(48, 6, base_size=6)
    assert torch.allclose(positions((6, 6), 48), table.float(), atol=1e-6)


def test_a_grid_of_any_shape_is_a_piece_of_a_larger_one() -> None:
    whole = positions((9, 9), 16).reshape(9, 9, 16)
    assert torch.equal(positions((3, 5), 16).reshape(3, 5, 16), whole[:3, :5])
    assert torch.equal(positions((3, 5), 16, (2, 4)).reshape(3, 5, 16), whole[2:5, 4:9])
    column, row = whole[2, 5, :8], whole[2, 5, 8:]
    assert torch.equal(column, whole[7, 5, :8])  # the first half tells the column alone
    assert torch.equal(row, whole[2, 0, 8:])


@pytest.mark.parametrize("late", [0, 1])
def test_times_are_embedded_as_published_or_as_in_diffusers(late: int) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    time, step = TimeEmbedding(16, late), torch.tensor([0, 17, 999])
    wanted = embeddings.get_timestep_embedding(step, 256, flip_sin_to_cos=True, downscale_freq_shift=late)
    heard: list[torch.Tensor] = []
    time.first.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    time(step)
    assert torch.allclose(heard[0], wanted, atol=1e-4)


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_an_untrained_transformer_says_nothing_and_its_blocks_pass_everything_on() -> None:
    network, x = dit(), torch.randn(2, 4, 6, 10)
    with torch.no_grad(), recorded(network, list(network.blocks)) as heard:
        said = network(x, torch.tensor([0.2, 1.0]), Condition())
        tokens, grid = network.tokens(x)
    assert said.shape == x.shape
    assert not said.any()
    assert (grid, len(heard)) == ((3, 5), 3)
    for each in heard:
        assert torch.equal(each, tokens)
        assert each.shape == (2, 15, 16)
    network(x, torch.ones(2), Condition())
    assert len(heard) == 3  # nobody listens any more


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("size", [(2, 2), (2, 14), (10, 6), (26, 22)])
def test_any_grid_goes_through(size: tuple[int, int], window: int) -> None:
    network, x = speak(dit(window=window)), torch.randn(1, 4, *size)
    said = network(x, torch.ones(1), Condition())
    assert said.shape == x.shape
    assert torch.isfinite(said).all()
    said.sum().backward()
    assert all(value.grad is not None for value in network.parameters())


def test_patches_lie_where_they_were_cut() -> None:
    network = dit()
    network.enter.weight.data = torch.eye(16).reshape(16, 4, 2, 2)
    torch.nn.init.zeros_(network.enter.bias)
    # rows of the last layer are ordered (p, q, C), those of the first (C, p, q)
    network.leave.linear.weight.data = torch.eye(16).reshape(4, 4, 16).transpose(0, 1).reshape(16, 16)
    x, grid = torch.randn(1, 4, 6, 4), (3, 2)
    entered = network.enter(x).flatten(2).transpose(1, 2)
    wanted = F.layer_norm(entered, (16,), eps=1e-6)
    left = network.leave(entered, torch.zeros(1, 16), grid)
    assert torch.allclose(network.enter(left).flatten(2).transpose(1, 2), wanted, atol=1e-6)


def test_whole_attention_is_everybodys() -> None:
    attention = Attention(16, 2)
    tokens = torch.randn(2, 12, 16)
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = attention.enter.weight.data, attention.enter.bias.data
    theirs.out_proj.load_state_dict(attention.leave.state_dict())
    assert torch.allclose(attention(tokens, (3, 4)), theirs(tokens, tokens, tokens)[0], atol=1e-6)


@pytest.mark.parametrize("shift", [0, 2])
def test_attention_stays_in_its_window(shift: int) -> None:
    attention, whole = Attention(16, 2, window=4, shift=shift), Attention(16, 2)
    whole.load_state_dict(attention.state_dict())
    tokens = torch.randn(2, 11 * 9, 16)
    seen = attention(tokens, (11, 9)).reshape(2, 11, 9, 16)
    laid = tokens.reshape(2, 11, 9, 16)
    covered = 0
    for top, bottom, height in stretches(11, 4, shift):
        for left, right, width in stretches(9, 4, shift):
            for down in range(top, bottom, height):
                for across in range(left, right, width):
                    piece = laid[:, down : down + height, across : across + width].flatten(1, 2)
                    alone = whole(piece, (height, width)).reshape(2, height, width, 16)
                    assert torch.allclose(seen[:, down : down + height, across : across + width], alone, atol=1e-6)
                    covered += height * width
    assert covered == 11 * 9
    small = tokens[:, :12]
    assert torch.equal(attention(small, (3, 4)), whole(small, (3, 4)))  # one window holds them all


@pytest.mark.parametrize("extent", [1, 2, 3, 7, 8, 21])
@pytest.mark.parametrize("shift", [0, 2, 4])
def test_stretches_cover_an_extent(extent: int, shift: int) -> None:
    cuts = stretches(extent, 8, shift)
    assert [cuts[0][0], *(end for _, end, _ in cuts)] == [0, *(start for start, _, _ in cuts[1:]), extent]
    assert all((end - start) % side == 0 and 0 < side <= 8 for start, end, side in cuts)


@pytest.mark.parametrize("changes", [{"heads": 3}, {"depth": 0}, {"width": 18, "heads": 2}, {"window": -1}])
def test_impossible_shapes_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="impossible transformer"):
        dit(**changes)


def test_xl_2_is_as_large_as_published() -> None:
    """675,129,632 are counted with the fixed table of 256 places, and with rows for the variance."""
    with torch.device("meta"):
        network = LatentDiT(DiTSettings(leaving=8))
        said = network(torch.empty(2, 4, 64, 64), torch.ones(2), Condition())
    assert said.shape == (2, 8, 64, 64)
    assert parameters(network) == 675_129_632 - 256 * 1152


# --- control ---------------------------------------------------------------------------------------------------------


def asked() -> tuple[torch.Tensor, torch.Tensor, Condition]:
    x, control = torch.randn(2, 2, 4, 6, 8).unbind(0)
    return x, torch.tensor([0.3, 1.0]), Condition(control=control)


def test_a_silent_branch_leaves_its_original_alone() -> None:
    network, (x, t, condition) = speak(dit()), asked()
    controlled = ControlledDiT(network, TransformerControl(network, 2, 4))
    with torch.no_grad():
        bare = network(x, t, Condition())
        assert torch.equal(controlled(x, t, condition), bare)
        speak(controlled.branch)
        assert not torch.allclose(controlled(x, t, condition), bare, atol=1e-3)
        controlled.strength = 0.0
        assert torch.equal(controlled(x, t, condition), bare)


@pytest.mark.parametrize("reach", [0, 1])
def test_control_is_what_its_equations_say(reach: int) -> None:
    network, (x, t, condition) = speak(dit()), asked()
    branch = speak(TransformerControl(network, 2, 4, reach))
    controlled = ControlledDiT(network, branch)
    with torch.no_grad(), recorded(controlled, [controlled.layer(k) for k in (1, 2, 3)]) as heard:
        said = controlled(x, t, condition, (1, 2))
        (h, grid), vector = network.tokens(x, (1, 2)), network.vector(t)
        c = h + branch.begin(branch.enter(condition.control).flatten(2).transpose(1, 2))
        for number, block in enumerate(network.blocks):
            h = block(h, vector, grid)
            if number < 2:
                c = branch.blocks[number](c, vector, grid)
                h = h + branch.joins[number].zero(c)
            assert torch.allclose(heard[number], h, atol=1e-6)  # heard with what control has added
        assert torch.allclose(said, network.picture(h, vector, grid), atol=1e-6)


def test_a_branch_begins_as_a_copy_of_its_own() -> None:
    network = speak(dit())
    branch = TransformerControl(network, 2, 3, reach=1)
    assert torch.equal(branch.enter.weight[..., 1:3, 1:3], network.enter.weight[:, :3])
    assert int(branch.enter.weight.count_nonzero()) == network.enter.weight[:, :3].numel()  # beyond it sees nothing yet
    for ours, theirs in zip(branch.blocks.parameters(), network.blocks[:2].parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours is not theirs


@pytest.mark.parametrize("count", [0, 4])
def test_more_copies_than_blocks_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="copies 1 to 3 blocks"):
        TransformerControl(dit(), count, 4)


def test_a_branch_without_anything_to_see_says_so() -> None:
    network = dit()
    with pytest.raises(ValueError, match="something to see"):
        ControlledDiT(network, TransformerControl(network, 1, 4))(torch.rand(1, 4, 4, 4), torch.ones(1), Condition())


# --- pixels ----------------------------------------------------------------------------------------------------------


def pixels(channels: int) -> PixelDiT:
    network = dit(entering=channels, leaving=channels)
    return PixelDiT(ControlledDiT(network, TransformerControl(network, 2, 48)), Finish(channels, channels // 48), 4)


@pytest.mark.parametrize("channels", [48, 96])
def test_an_untrained_pixel_transformer_returns_what_it_is_given(channels: int) -> None:
    network = pixels(channels)
    x, control = torch.rand(2, channels, 4, 6), torch.rand(2, 48, 4, 6)
    with torch.no_grad():
        assert torch.equal(network(x, torch.ones(2), Condition(control=control)), x)
        speak(network)
        assert not torch.allclose(network(x, torch.ones(2), Condition(control=control)), x, atol=1e-3)


def test_grey_enters_as_nothing_and_small_detail_as_much() -> None:
    network, seen = pixels(96), []
    network.controlled.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[2].control)))
    grey = torch.full((1, 48, 2, 2), 0.5)
    faint = (grey + 0.05 * torch.randn(1, 48, 2, 2)).clamp(0, 1)
    network(torch.cat([faint, grey], dim=1), torch.ones(1), Condition(control=grey))
    given, control = seen[0]
    assert not control.any()
    assert not given[:, 48:].any()
    assert 0.2 < float(given[:, :48].std()) < 1


def test_pixels_that_do_not_fit_are_refused() -> None:
    network = dit(entering=40, leaving=40)
    with pytest.raises(UsageError, match="do not fit"):
        PixelDiT(ControlledDiT(network, TransformerControl(network, 2, 40)), Finish(40, 1), 4)


def test_a_frame_is_told_from_its_middle() -> None:
    """The same place between the edges, whatever the grid; as nothing before training."""
    small, large = (places_in_frame(grid).view(*grid, FRAME) for grid in ((2, 3), (6, 9)))
    assert torch.allclose(small, large[1::3, 1::3], atol=1e-6)  # the middle of three tokens
    assert torch.allclose(small[0, 1, :2], torch.tensor([0.0, -0.5]))
    plain, framed = (LatentDiT(DiTSettings(4, 4, 16, 2, 2, classes=0, framed=framed)) for framed in (False, True))
    framed.load_state_dict({**plain.state_dict(), "frame.weight": torch.zeros(16, FRAME)})
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.tokens(x)[0], framed.tokens(x)[0])
    torch.nn.init.ones_(framed.frame.weight)  # type: ignore[union-attr]
    apart = (framed.tokens(x)[0] - plain.tokens(x)[0]).view(3, 3, 16)
    assert torch.allclose(apart, (framed.tokens(x, (5, 7))[0] - plain.tokens(x, (5, 7))[0]).view(3, 3, 16), atol=1e-5)
    assert len({round(value, 4) for value in apart[..., 0].flatten().tolist()}) > 3
