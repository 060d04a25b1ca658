"""Guards: sound results pass without a word, and every planted fault is told. No pixel is touched."""

from __future__ import annotations

import time

import pytest
import torch

import clareo
from clareo.errors import NoMemoryError, NotFiniteError
from clareo.guards import Borders, borders, doubts, look_over, ran_out_of_memory, twice
from clareo.planning import complete
from clareo.system import System
from clareo.types import Plan
from fakes import fake_system

NOWHERE = Borders()


@pytest.fixture
def result(photo: torch.Tensor) -> torch.Tensor:
    """What a restorer might make of the photo: a little calmer."""
    return (0.98 * photo + 0.01).clamp(0, 1)


def test_a_sound_result_is_not_talked_about(photo: torch.Tensor, result: torch.Tensor) -> None:
    assert look_over(result, photo, Borders((64,), (64, 128)), fake_system()) == ()
    assert look_over(photo, photo.clone(), NOWHERE, fake_system()) == ()


@pytest.mark.parametrize(("line", "turned"), [("column 64", False), ("row 64", True)])
def test_a_seam_between_tiles_is_told(photo: torch.Tensor, result: torch.Tensor, line: str, turned: bool) -> None:
    broken = result.clone()
    half = broken[..., 64:, :] if turned else broken[..., 64:]
    half += 0.05
    (told,) = look_over(broken.clamp(0, 1), photo, Borders((64,), (64,)), fake_system())
    assert told.startswith(f"a seam between tiles at {line} (strength ")
    assert look_over(broken.clamp(0, 1), broken.clamp(0, 1) * 0.99, Borders((64,), (64,)), fake_system()) == ()


@pytest.mark.parametrize("period", [4, 8])
def test_a_pattern_is_told(photo: torch.Tensor, result: torch.Tensor, period: int) -> None:
    broken = result.clone()
    broken[..., ::period] += 0.03
    told = look_over(broken.clamp(0, 1), photo, NOWHERE, fake_system())
    assert any(f"repeats every {period} px" in each for each in told)


def test_a_pattern_that_nobody_sees_is_not_told(photo: torch.Tensor) -> None:
    flat = photo.mean((2, 3), keepdim=True).expand_as(photo).clone()
    faint = flat.clone()
    faint[..., ::4] += 0.4 / 255
    assert look_over(faint, flat, NOWHERE, fake_system()) == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x + torch.tensor([0.08, 0.0, -0.08])[:, None, None], "the colours moved by"),
        (lambda x: x * 0.6, "it became darker by"),
        (lambda x: x + 0.2, "it became brighter by"),
        (lambda x: x.mean((2, 3), keepdim=True).expand_as(x), "it is blank"),
    ],
)
def test_colours_that_drift_are_told(change, told: str, photo: torch.Tensor) -> None:
    found = look_over(change(photo).clamp(0, 1), photo, NOWHERE, fake_system())
    assert any(each.startswith(told) for each in found), found


def test_doubtful_trust_is_told() -> None:
    assert list(doubts(0.42)) == ["trust 0.42: more of the detail was made up than kept"]
    assert list(doubts(0.8)) == list(doubts(None)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (7, 31), (33, 40)])
def test_photos_of_any_size_can_be_looked_over(size: tuple[int, int]) -> None:
    given = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert isinstance(look_over(given * 0.9, given, Borders((5,), (5, 30)), fake_system()), tuple)


def test_borders_are_where_tiles_begin_and_end() -> None:
    plan = complete(fake_system(), tile=128)
    assert borders(fake_system(), plan, (128, 100)) == NOWHERE
    assert borders(fake_system(), plan, (128, 192)) == Borders((0, 128), (0, 64, 128, 192))


def test_guards_move_no_byte_and_reach_the_restoration(
    unires: System, photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"system": unires, "weights": {"denoise": 1.0}, "tile": 128}
    first = clareo.restore(photo, **options)
    assert first.warnings == ()
    monkeypatch.setattr("clareo.guards.look_over", lambda *_: ("something",))
    second = clareo.restore(photo, **options)
    assert second.warnings == ("something",)
    assert torch.equal(first.tensor, second.tensor)


@pytest.mark.slow
def test_guards_cost_less_than_a_twentieth(unires: System, photo: torch.Tensor) -> None:
    large = photo.repeat(1, 1, 4, 4)[..., :512, :512]
    began = time.process_time()
    out = clareo.restore(large, system=unires, weights={"denoise": 1.0}, tile=256)
    restoring = time.process_time() - began
    took = []
    for _ in range(3):  # the quickest: whatever else this machine does is not theirs
        began = time.process_time()
        look_over(out.tensor, large, borders(unires, out.plan, (512, 512)), unires)
        took.append(time.process_time() - began)
    assert min(took) < 0.05 * restoring


# --- a second time ---------------------------------------------------------------------------------------------------

PLAN = Plan({"blind": 1.0}, 1, 0, 1, tile=512, precision="bf16")


def failing(*errors: Exception):
    """Fail with one error after the other, then give the plan back."""
    left = list(errors)

    def walk(plan: Plan) -> tuple[Plan, Plan]:
        if left:
            raise left.pop(0)
        return plan, plan

    return walk


NAN, FULL = NotFiniteError("nan"), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


def test_what_a_second_walk_changes() -> None:
    plan, done, told = twice(failing(), PLAN, 1000, repeated=False)
    assert (plan, done, told) == (PLAN, PLAN, ())
    plan, done, told = twice(failing(NAN), PLAN, 1000, repeated=False)
    assert (plan.precision, plan.tile, done.precision) == ("fp32", 512, "fp32")
    assert plan.why == told[0] == "in fp32, as bf16 gave values that are not finite"
    plan, done, told = twice(failing(FULL), PLAN, 1000, repeated=False)
    assert (plan.precision, plan.tile, done.tile) == ("bf16", 256, 256)
    plan, _, told = twice(failing(FULL), PLAN, 300, repeated=False)
    assert (plan.tile, told) == (150, ("on tiles of 150 px, as memory ran out on 512",))


@pytest.mark.parametrize(
    ("errors", "longest", "repeated", "error"),
    [
        ((NAN, NAN), 1000, False, NotFiniteError),
        ((NAN,), 1000, True, NotFiniteError),
        ((FULL, FULL), 1000, False, NoMemoryError),
        ((FULL,), 1000, True, NoMemoryError),
        ((FULL,), 100, False, NoMemoryError),  # no smaller tile would be smaller
        ((NAN, FULL), 1000, False, NoMemoryError),  # one retry, not two
        ((ValueError("else"),), 1000, False, ValueError),
        ((RuntimeError("else"),), 1000, False, RuntimeError),
    ],
)
def test_a_second_walk_is_the_last(errors, longest: int, repeated: bool, error: type[Exception]) -> None:
    with pytest.raises(error):
        twice(failing(*errors), PLAN, longest, repeated=repeated)


def test_what_is_about_memory() -> None:
    for said in ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "not enough memory: you tried"):
        assert ran_out_of_memory(RuntimeError(said))
    assert ran_out_of_memory(MemoryError())
    assert not ran_out_of_memory(RuntimeError("shapes do not match"))
