"""Laws that hold for every input, whatever the weights."""

from __future__ import annotations

import itertools

import pytest
import torch

from clareo import colour
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.guidance import Guidance, guide
from clareo.diffusion.process import DDPM, DirectIteration, Flow, mix
from clareo.diffusion.tiling import Tiles, tiled
from clareo.errors import RestorationError, UsageError, WeightsError
from clareo.latents import PixelUnshuffle, enlarge, fit
from clareo.types import Condition, Window

PROCESSES = [DDPM.stable_diffusion(), DDPM.dit(), Flow(), DirectIteration()]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- codec and canvas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_unshuffle_is_bit_exact(factor: int) -> None:
    image = noise(2, 3, 16, 24)
    codec = PixelUnshuffle(factor)
    assert codec.encode(image).shape == (2, codec.channels, 16 // factor, 24 // factor)
    assert torch.equal(codec.decode(codec.encode(image)), image)


@pytest.mark.parametrize(("size", "upscale"), [((1, 1), 1), ((17, 23), 1), ((31, 7), 3), ((16, 32), 4)])
def test_canvas_sides_are_multiples_and_hold_the_enlarged_photo(size: tuple[int, int], upscale: int) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    canvas = fit(image, upscale, 16)
    assert canvas.shape[-2] % 16 == canvas.shape[-1] % 16 == 0
    inner = canvas[..., : size[0] * upscale, : size[1] * upscale]
    assert torch.equal(inner, enlarge(image, (size[0] * upscale, size[1] * upscale)))


# --- processes and predictions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES)
def test_ends_of_a_process(process: DDPM | Flow | DirectIteration) -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    assert float(process.alpha(zero)) == 1
    assert float(process.sigma(zero)) == 0
    assert float(process.sigma(one)) > 0.99


def test_last_alpha_bar_of_both_tables() -> None:
    """Swapping the tables is the classic mistake; the sheet gives their ends."""
    assert float(DDPM.stable_diffusion().alpha_bar[-1]) == pytest.approx(0.00466, rel=0.01)
    assert float(DDPM.dit().alpha_bar[-1]) == pytest.approx(4.04e-5, rel=0.01)


@pytest.mark.parametrize("process", [DDPM.stable_diffusion(), DDPM.dit()])
def test_discrete_steps_and_times_agree(process: DDPM) -> None:
    steps = torch.arange(1000)
    assert torch.equal(process.index((steps + 1) / 1000), steps)


@pytest.mark.parametrize("process", PROCESSES[:3])
@pytest.mark.parametrize("predicts", ["noise", "clean", "velocity"])
def test_a_perfect_backbone_gives_the_clean_latent(process: DDPM | Flow, predicts: str) -> None:
    clean, far, t = noise(3, 4, 8, 8), noise(3, 4, 8, 8, seed=1), torch.tensor([0.1, 0.5, 0.9])
    unwrapped = Denoiser(lambda x, t, condition: x, process, predicts)  # noqa: ARG005
    target = unwrapped.target(clean, far, t)
    denoiser = Denoiser(lambda x, t, condition: target, process, predicts)  # noqa: ARG005
    assert torch.allclose(denoiser(mix(process, clean, far, t), t, Condition()), clean, atol=1e-4)


# --- guidance --------------------------------------------------------------------------------------------------------


def backbone(x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
    """Pointwise, and different for every text."""
    assert condition.text is not None
    return torch.tanh(x * condition.text.mean((1, 2))[:, None, None, None]) + t[:, None, None, None]


def branches(count: int = 3) -> dict[str, Condition]:
    return {f"b{k}": Condition(text=torch.full((1, 2, 3), 0.3 + k)) for k in range(count)}


def test_batched_guidance_equals_one_by_one() -> None:
    x, t = noise(1, 4, 16, 16), torch.tensor([0.7])
    guidance = Guidance({"b0": 0.5, "b1": 0.7, "b2": -0.2})
    denoiser = Denoiser(backbone, DirectIteration())
    together = guide(denoiser, branches(), guidance)(x, t)
    in_turn = guide(denoiser, branches(), guidance, together=False)(x, t)
    assert torch.allclose(together, in_turn, atol=1e-6)


def test_branches_without_weight_are_not_evaluated() -> None:
    seen: list[int] = []

    def counting(x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        seen.append(x.shape[0])
        return backbone(x, t, condition)

    guide(Denoiser(counting, Flow()), branches(), Guidance({"b0": 0.0, "b1": 1.2, "b2": -0.2}))(
        noise(1, 4, 8, 8), torch.ones(1)
    )
    assert seen == [2]


def test_weight_maps_blend_pixel_by_pixel() -> None:
    x, t = noise(1, 4, 8, 8), torch.ones(1)
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    blend = guide(backbone, branches(2), Guidance({"b0": left, "b1": 1 - left}))(x, t)
    alone = [backbone(x, t, condition) for condition in branches(2).values()]
    assert torch.equal(blend[..., :4], alone[0][..., :4])
    assert torch.equal(blend[..., 4:], alone[1][..., 4:])


@pytest.mark.parametrize("weights", [{"b0": 0.5}, {"b0": 1.0, "b1": 0.1}, {"b0": float("nan")}, {}])
def test_weights_must_sum_to_one(weights: dict[str, float]) -> None:
    with pytest.raises(WeightsError, match="sum to 1"):
        Guidance(weights)


def test_guidance_is_silent_outside_its_interval() -> None:
    x = noise(1, 4, 8, 8)
    guidance = Guidance({"b0": 2.0, "b1": -1.0}, active=(0.2, 0.8), outside="b0")
    denoise = guide(backbone, branches(2), guidance)
    assert torch.equal(denoise(x, torch.tensor([0.9])), backbone(x, torch.tensor([0.9]), branches()["b0"]))
    assert not torch.allclose(denoise(x, torch.tensor([0.5])), backbone(x, torch.tensor([0.5]), branches()["b0"]))


def test_views_survive_stacking() -> None:
    plain, doubled = Condition(text=torch.ones(1, 1, 1)), Condition(text=torch.ones(1, 1, 1), view=lambda x: 2 * x)
    stacked = Condition.stack([plain, doubled])
    x = noise(2, 4, 4, 4)
    assert stacked.view is not None
    assert torch.equal(stacked.view(x), torch.stack([x[0], 2 * x[1]]))


def test_branches_that_disagree_about_doors_are_refused() -> None:
    with pytest.raises(ValueError, match="doors are open"):
        Condition.stack([Condition(text=torch.ones(1, 1, 1)), Condition(concat=torch.ones(1, 1, 4, 4))])


# --- tiling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70), (100, 17), (64, 129)])
def test_tiled_equals_whole_for_a_pointwise_denoiser(height: int, width: int) -> None:
    x, t, condition = noise(1, 4, height, width), torch.ones(1), branches()["b0"]
    through = tiled(backbone, Tiles(32, 8, 4))(x, t, condition)
    assert torch.allclose(through, backbone(x, t, condition), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(33, 70), (128, 40), (31, 31), (200, 200)])
def test_tiles_cover_everything_and_begin_on_the_grid(height: int, width: int) -> None:
    covered = torch.zeros(height, width)
    for window in Tiles(32, 8, 4).windows(height, width):
        covered[window.top : window.top + window.height, window.left : window.left + window.width] += 1
        last = (height - 32, width - 32)
        assert window.top % 4 == 0 or window.top == last[0]
        assert window.left % 4 == 0 or window.left == last[1]
    assert bool((covered > 0).all())


def test_conditions_are_cropped_with_the_latent() -> None:
    grid = torch.arange(64.0).reshape(1, 1, 8, 8)
    fine = torch.arange(1024.0).reshape(1, 1, 32, 32)
    condition = Condition(concat=grid, pixels=fine, text=torch.ones(1, 2, 3))
    cut = condition.crop(Window(2, 4, 3, 2, (8, 8)))
    assert torch.equal(cut.concat, grid[..., 2:5, 4:6])  # type: ignore[arg-type]
    assert torch.equal(cut.pixels, fine[..., 8:20, 16:24])  # type: ignore[arg-type]
    assert cut.text is condition.text


def test_tiles_are_handed_on_contiguous() -> None:
    """On views of a large latent the embedded model took three times as long."""
    seen = []

    def look(x: torch.Tensor, *_: object) -> torch.Tensor:
        seen.append(x.is_contiguous())
        return x

    tiled(look, Tiles(32, 8, 4))(torch.rand(1, 3, 64, 80), torch.ones(1), Condition())
    assert len(seen) > 1
    assert all(seen)


def test_a_broken_tile_fails_the_photo() -> None:
    def broken(x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:  # noqa: ARG001
        return torch.full_like(x, float("nan")) if float(x[0, 0, 0, 0]) == 7 else x

    x = noise(1, 4, 64, 64)
    x[0, 0, 0, 24] = 7
    with pytest.raises(RestorationError, match="row 0, column 24"):
        tiled(broken, Tiles(32, 8, 4))(x, torch.ones(1), Condition())


def test_tiles_cannot_overlap_by_more_than_half() -> None:
    with pytest.raises(UsageError, match="at most half"):
        Tiles(32, 20)


# --- colour ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", [colour.keep, colour.adain, colour.wavelet])
@pytest.mark.parametrize("size", [(128, 160), (40, 33)])
def test_matching_a_photo_to_itself_changes_nothing(match, size: tuple[int, int], photo: torch.Tensor) -> None:
    image = photo[..., : size[0], : size[1]]
    assert torch.allclose(match(image, image), image, atol=1e-5)


def test_adain_takes_over_mean_and_spread(photo: torch.Tensor) -> None:
    shifted = (photo * 0.5 + 0.1).clamp(0, 1)
    matched = colour.adain(shifted, photo)
    assert torch.allclose(matched.mean((2, 3)), photo.mean((2, 3)), atol=1e-4)
    assert torch.allclose(matched.std((2, 3)), photo.std((2, 3)), atol=1e-3)


def test_pooled_adain_does_not_turn_noise_into_contrast(photo: torch.Tensor) -> None:
    noisy = photo + 0.1 * noise(*photo.shape)
    plain, pooled = (float((colour.adain(photo, noisy, pool) - photo).abs().mean()) for pool in (1, 16))
    assert pooled < plain / 3


def test_wavelet_takes_low_frequencies_of_the_source(photo: torch.Tensor) -> None:
    assert torch.allclose(colour.wavelet(photo + 0.1, photo), photo, atol=1e-5)
    with pytest.raises(ValueError, match="equal sizes"):
        colour.wavelet(photo, photo[..., :-1])


def test_every_pair_of_branch_counts_sums() -> None:
    """Integer grids of tenths that sum to ten are accepted whatever the order of rounding."""
    for a, b in itertools.product(range(-2, 13), repeat=2):
        Guidance({"a": a / 10, "b": b / 10, "c": (10 - a - b) / 10})
