"""What is understood of a photo: restoration prompts, tokens, tags, captions, and what was said before."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clareo.backbones.text import TextEncoder, words
from clareo.degrade.recipes import draw
from clareo.errors import CheckpointError, MissingExtraError, PhotoError, UnknownNameError, UsageError
from clareo.perceive.answers import image_hash, read_answers
from clareo.perceive.captions import (
    FileCaptions,
    Kept,
    enlarged,
    instruction,
    load_llava,
    no_caption,
    strip_degradation,
)
from clareo.perceive.prompts import (
    KINDS,
    Irpad,
    IrpadSettings,
    chosen,
    interval_prompts,
    levels_of,
    prompt_of,
    retrieval_loss,
    soft,
    targets,
)
from clareo.perceive.tags import FileTags, RamTagger, load_ram, no_tags, squashed
from clareo.perceive.vision import EncoderSettings, SmallEncoder, aligned_copy, alignment_loss, windows

TINY = EncoderSettings(channels=(16, 24, 32, 48))


pytestmark = pytest.mark.usefixtures("same_start")


def embedded() -> torch.Tensor:
    """Twelve prompts as vectors (12, 24), from a small encoder with a closed vocabulary."""
    prompts = list(interval_prompts())
    encoder = TextEncoder(tuple(sorted({word for prompt in prompts for word in words(prompt)})), 24)
    return encoder(prompts).mean(1).detach()


def irpad(features: int = 48, words: int = 24, width: int = 48, heads: int = 4) -> Irpad:
    return Irpad(IrpadSettings(features, words, width, heads))


# --- restoration prompts in words ------------------------------------------------------------------------------------


def test_all_64_prompts_are_read_back() -> None:
    combinations = list(itertools.product(range(4), repeat=3))
    assert len({prompt_of(levels) for levels in combinations}) == 64
    assert [levels_of(prompt_of(levels)) for levels in combinations] == combinations


@pytest.mark.parametrize(
    ("said", "levels"),
    [
        ("", (0, 0, 0)),
        ("DENOISE with sigma 0.5 ~ 0.75", (0, 2, 0)),
        ("Dejpeg with sigma .75-1; deblur  0.25~0.50", (1, 0, 3)),
        ("denoise sigma 0~0.25 and dejpeg sigma 0.25~0.5.", (0, 0, 1)),
    ],
)
def test_prompts_of_people_are_read(said: str, levels: tuple[int, ...]) -> None:
    assert levels_of(said) == levels


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Deblurr with sigma 0.5~0.75", "did you mean 'Deblur with sigma 0.5~0.75'"),
        ("denoise with sigma 0.5~0.7", "did you mean 'Denoise with sigma 0.5~0.75'"),
        ("dejpeg", "did you mean 'Dejpeg with sigma"),
        ("Denoise with sigma 0~0.25, denoise with sigma 0.25~0.5", "says Denoise twice"),
    ],
)
def test_prompts_that_cannot_be_read(said: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        levels_of(said)


@pytest.mark.parametrize("levels", [(0, 1), (0, 1, 4), (-1, 0, 0)])
def test_levels_that_have_no_prompt(levels: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="level from 0 to 3"):
        prompt_of(levels)


def test_targets_are_what_the_record_says() -> None:
    records = [draw("realesrgan", (96, 96), seed) for seed in range(30)]
    classes = torch.stack([targets(record) for record in records])
    assert [prompt_of(row) for row in classes.tolist()] == [record.prompt() for record in records]
    assert all(len(column.unique()) >= 3 for column in classes.T)  # the law is not one about constants
    assert targets({"noise": 0.5, "jpeg": 0.51}).tolist() == [0, 1, 2]
    with pytest.raises(UnknownNameError, match="did you mean 'noise'"):
        targets({"noize": 0.5})


# --- IRPAD -----------------------------------------------------------------------------------------------------------


def test_the_order_of_tokens_means_nothing() -> None:
    network, prompts, tokens = irpad(), embedded(), torch.randn(2, 30, 48)
    with torch.no_grad():
        said = network(tokens, prompts)
        assert torch.allclose(network(tokens[:, torch.randperm(30)], prompts), said, atol=1e-4)
        assert not torch.allclose(network(tokens + 0.5 * torch.randn(2, 30, 48), prompts), said, atol=1e-2)
    assert said.shape == (2, len(KINDS), 4)


def test_queries_do_not_see_one_another() -> None:
    network, prompts, tokens = irpad(), embedded(), torch.randn(2, 30, 48)
    changed = prompts.clone()
    changed[6] += torch.randn(24)
    with torch.no_grad():
        moved = (network(tokens, changed) - network(tokens, prompts)).abs().flatten(1)
    assert float(moved[:, 6].min()) > 1e-3
    assert float(moved[:, [k for k in range(12) if k != 6]].max()) < 1e-4


def test_scores_are_cosines_times_tau_and_losses_start_at_chance() -> None:
    network, prompts, tokens = irpad(), embedded(), torch.randn(8, 30, 48)
    with torch.no_grad():
        said = network(tokens, prompts)
        assert float(said.abs().max()) <= float(network.log_tau.exp()) * (1 + 1e-5)
        assert float(retrieval_loss(said, torch.randint(0, 4, (8, 3)))) == pytest.approx(1.386, abs=0.7)
    right = torch.tensor([[0, 1, 2]])
    sure = 50 * torch.nn.functional.one_hot(right, 4).float()
    assert float(retrieval_loss(sure, right)) == pytest.approx(0, abs=1e-6)
    assert float(retrieval_loss(sure, (right + 1) % 4)) == pytest.approx(50, abs=1e-3)
    assert float(retrieval_loss(torch.zeros(1, 3, 4), right)) == pytest.approx(1.3863, abs=1e-4)
    assert chosen(sure) == [prompt_of((0, 1, 2))]


def test_soft_prompts_are_weighted_means() -> None:
    prompts = embedded()
    sure = 80 * torch.nn.functional.one_hot(torch.tensor([[3, 1, 0]]), 4).float()
    assert torch.allclose(soft(sure, prompts)[0], prompts[[3, 4 + 1, 8 + 0]], atol=1e-5)
    even = soft(torch.zeros(1, 3, 4), prompts)[0]
    assert torch.allclose(even[1], prompts[4:8].mean(0), atol=1e-5)


def test_gradients_reach_everything() -> None:
    network, encoder = irpad(), SmallEncoder(TINY)
    loss = retrieval_loss(network(encoder(torch.rand(2, 3, 64, 64)), embedded()), torch.tensor([[0, 1, 2], [3, 2, 1]]))
    loss.backward()
    for part in (network, encoder):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name


def test_settings_travel_and_sizes_are_those_of_the_paper() -> None:
    nano = IrpadSettings(96, 96, 96, 4)
    assert IrpadSettings.from_json(json.loads(json.dumps(nano.to_json()))) == nano
    assert EncoderSettings.from_json(json.loads(json.dumps(TINY.to_json()))) == TINY
    assert sum(p.numel() for p in Irpad(nano).parameters()) == pytest.approx(0.25e6, rel=0.1)
    paper = Irpad(IrpadSettings(1024, 1024, 512, 8))
    with torch.no_grad():
        assert paper(torch.randn(2, 9, 1024), torch.randn(12, 1024)).shape == (2, 3, 4)
    assert [block.look.num_heads for block in paper.blocks] == [8, 8]
    with pytest.raises(UsageError, match="heads divide"):
        IrpadSettings(96, 96, 96, 5)
    with pytest.raises(UsageError, match="at least 64 px"):
        EncoderSettings(window=32)


def test_quarters_of_noise_are_learned(shared_photos: torch.Tensor) -> None:
    """A few seconds are enough for noise, on places that were never seen; blur and JPEG do not vary here."""
    rng = torch.Generator().manual_seed(0)
    seen, unseen = shared_photos[:, :, :64, :64], shared_photos[:, :, 64:, 64:]

    def lesson(photos: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        level = torch.randint(0, 4, (count,), generator=rng)
        degree = (level + 0.1 + 0.8 * torch.rand(count, generator=rng)) / 4
        clean = photos[torch.randint(0, len(photos), (count,), generator=rng)]
        noise = torch.randn(clean.shape, generator=rng) * (degree * 30 / 255)[:, None, None, None]
        right = torch.stack([torch.zeros_like(level), level, torch.full_like(level, 3)], 1)
        return (clean + noise).clamp(0, 1), right

    network, encoder, prompts = irpad(), SmallEncoder(TINY), embedded()
    optimiser = torch.optim.AdamW([*network.parameters(), *encoder.parameters()])
    for step in range(90):
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - step / 90)
        photos, right = lesson(seen, 8)
        loss = retrieval_loss(network(encoder(photos), prompts), right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    photos, right = lesson(unseen, 120)
    with torch.no_grad():
        found = network(encoder(photos), prompts).argmax(-1)
    hits = (found == right).float().mean(0)
    assert float(hits[1]) > 0.6  # chance: 0.25
    assert hits[[0, 2]].tolist() == [1, 1]
    assert float(((found - right)[:, 1].abs() <= 1).float().mean()) > 0.9


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_large_photos_are_seen_in_windows_at_their_own_scale() -> None:
    encoder, photo = SmallEncoder(TINY), torch.rand(2, 3, 150, 301)
    parts = windows(photo, 128)
    assert [tuple(part.shape[-2:]) for part in parts] == [(128, 128)] * 9
    with torch.no_grad():
        tokens = encoder(photo)
        assert tokens.shape == (2, 9 * 64, 48)
        assert torch.allclose(tokens, torch.cat([encoder(part) for part in parts], 1), atol=1e-5)
        assert encoder(photo[..., :70, :64]).shape == (2, 64, 48)
        changed = photo.clone()
        changed[..., 140:, 290:] = 0  # seen by the last window only
        changed[..., :5, :5] = 0
        moved = (encoder(changed) - tokens).abs().amax((0, 2)).view(9, 64).amax(1)
    assert float(moved[[0, 8]].min()) > 1e-3
    assert float(moved[4]) == 0
    with pytest.raises(PhotoError, match="70x63 px is too small"):
        encoder(photo[..., :63, :70])


@pytest.mark.parametrize("extent", [128, 129, 135, 136, 200, 1000])
def test_windows_keep_the_phase_of_the_blocks(extent: int) -> None:
    places = torch.arange(extent).float().expand(1, 3, 128, extent)
    starts = [int(part[0, 0, 0, 0]) for part in windows(places, 128)]
    assert all(start % 8 == 0 for start in starts)
    assert starts[0] == 0
    assert extent - 8 < starts[-1] + 128 <= extent


def test_alignment_moves_the_trained_side_only(shared_photos: torch.Tensor) -> None:
    encoder = SmallEncoder(TINY)
    frozen = aligned_copy(encoder)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    clean = shared_photos[:8, :, :64, :64]
    degraded = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert float(alignment_loss(encoder, frozen, clean, clean).detach()) == 0
    optimiser = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    distances = []
    for _ in range(40):
        loss = alignment_loss(encoder, frozen, degraded, clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        distances.append(float(loss.detach()))
    assert distances[-1] < 0.5 * distances[0]
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, encoder.state_dict()[name])
    with pytest.raises(UsageError, match="do not match"):
        alignment_loss(encoder, frozen, torch.rand(1, 3, 64, 64), torch.rand(1, 3, 192, 64))


# --- tags and captions -----------------------------------------------------------------------------------------------


def test_nobody_says_nothing(photo: torch.Tensor) -> None:
    assert no_tags(photo) == ()
    assert no_caption(photo, ("cat",)) == ""


def test_tags_pass_their_own_thresholds() -> None:
    seen: list[torch.Tensor] = []

    def logits(square: torch.Tensor) -> torch.Tensor:
        seen.append(square)
        return torch.tensor([[0.70, 0.80, -1.0, 3.0]])  # probabilities 0.668, 0.690, 0.269, 0.953

    tags = ("boat", "sea", "fog", "sky")
    wide = torch.full((1, 3, 20, 90), 0.485)
    assert RamTagger(logits, tags)(wide) == ("sea", "sky")
    assert RamTagger(logits, tags, (0.6, 0.7, 0.2, 0.96))(wide) == ("boat", "fog")
    assert seen[0].shape == (1, 3, 384, 384)
    assert float(seen[0][0, 0].abs().max()) == pytest.approx(0, abs=1e-5)  # ImageNet's mean of red
    assert float(seen[0][0, 2].mean()) == pytest.approx((0.485 - 0.406) / 0.225, abs=1e-4)
    with pytest.raises(UsageError, match="4 and 2"):
        RamTagger(logits, tags, (0.5, 0.5))
    with pytest.raises(CheckpointError, match=r"\(1, 4\) for one photo and 1 tags"):
        RamTagger(logits, ("boat",))(wide)


def test_the_whole_photo_is_squashed() -> None:
    halves = torch.cat([torch.zeros(1, 3, 40, 100), torch.ones(1, 3, 40, 100)], dim=3)
    square = squashed(halves, 32)
    assert torch.allclose(square[..., :15], square[..., :1].expand_as(square[..., :15]))
    assert float(square[0, 0, 0, 0]) == pytest.approx(-0.485 / 0.229, abs=1e-4)
    assert float(square[0, 0, 0, -1]) == pytest.approx((1 - 0.485) / 0.229, abs=1e-4)


def test_instructions() -> None:
    said = "Describe this image and its style in a very detailed manner"
    assert instruction() == f"{said}."
    assert instruction(("cat", "red sofa")) == f"{said} around the following tags: cat, red sofa."


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("A cat sits on a sofa.", "A cat sits on a sofa."),
        ("A dog runs. The image is blurry and grainy. It is sunny.", "A dog runs. It is sunny."),
        ("The image is blurry, making it hard to read, but a red car is parked.", "A red car is parked."),
        ("A woman stands by a lake with a blurred background.", "A woman stands by a lake."),
        ("Two boats, a pier, and JPEG artefacts.", "Two boats, a pier."),
        ("The photo is of low resolution; a tower is seen.", "A tower is seen."),
        ("Out of focus.", ""),
        ("", ""),
        ("A field of grain with a man in it, who makes no noise? Rain.", "A field of grain with a man in it. Rain."),
    ],
)
def test_damage_is_stripped_from_captions(said: str, left: str) -> None:
    assert strip_degradation(said) == left
    assert strip_degradation(left) == left


def test_small_photos_are_enlarged_and_others_left_alone() -> None:
    assert enlarged(torch.rand(1, 3, 20, 50), 60).shape[-2:] == (60, 150)
    large = torch.rand(1, 3, 60, 90)
    assert enlarged(large, 60) is large


# --- what was said before --------------------------------------------------------------------------------------------


class Asked:
    """A tagger and a captioner that count."""

    def __init__(self) -> None:
        self.tagged = self.captioned = 0

    def tag(self, photo: torch.Tensor) -> tuple[str, ...]:
        self.tagged += 1
        return ("grey", f"{float(photo.mean()):.1f}")

    def caption(self, photo: torch.Tensor, tags: tuple[str, ...] = ()) -> str:
        self.captioned += 1
        return f"Schön grey: {', '.join(tags)} {tuple(photo.shape)}"


def grey(level: float) -> torch.Tensor:
    return torch.full((1, 3, 4, 6), level)


def test_hashes_are_of_pixels_and_size() -> None:
    photo = torch.rand(1, 3, 4, 6)
    assert image_hash(photo) == image_hash((photo * 255).round() / 255)
    changed = photo.clone()
    changed[0, 1, 2, 3] = (changed[0, 1, 2, 3] + 0.5) % 1
    others = [changed, photo.flip(1), photo.transpose(2, 3), grey(0.5), grey(0.5).transpose(2, 3)]
    assert len({image_hash(each) for each in (photo, *others)}) == 6


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_what_is_kept_is_not_asked_again(tmp_path: Path, suffix: str) -> None:
    path, asked = tmp_path / "new" / f"said{suffix}", Asked()
    kept = Kept(path, asked.tag, asked.caption)
    first = [(kept.tags(photo), kept.caption(photo, kept.tags(photo))) for photo in (grey(0.2), grey(0.8))]
    assert first[0] == (("grey", "0.2"), "Schön grey: grey, 0.2 (1, 3, 4, 6)")
    again = Kept(path, asked.tag, asked.caption)
    for source in (kept, again):
        assert [(source.tags(p), source.caption(p, source.tags(p))) for p in (grey(0.2), grey(0.8))] == first
    assert (asked.tagged, asked.captioned) == (2, 2)
    assert again.caption(grey(0.2), ("other",)) != first[0][1]  # a caption holds for its tags
    assert asked.captioned == 3
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert FileTags(path)(grey(0.8)) == FileTags(path.parent)(grey(0.8)) == ("grey", "0.8")
    assert FileCaptions(path)(grey(0.8)) == first[1][1]


def test_two_that_keep_in_one_file_lose_nothing(tmp_path: Path) -> None:
    asked = Asked()
    one, two = (Kept(tmp_path / "said.json", asked.tag) for _ in "ab")
    one.tags(grey(0.1))
    two.tags(grey(0.5))
    one.tags(grey(0.9))
    assert len(read_answers(tmp_path / "said.json")) == asked.tagged == 3


@pytest.mark.parametrize(("suffix", "asks"), [(".jsonl", 1), (".json", 3)])
def test_a_half_written_file_is_set_aside(tmp_path: Path, suffix: str, asks: int) -> None:
    path, asked = tmp_path / f"said{suffix}", Asked()
    kept = Kept(path, asked.tag)
    photos = [grey(level) for level in (0.1, 0.5, 0.9)]
    said = [kept.tags(photo) for photo in photos]
    torn = path.read_bytes()[:-12]
    path.write_bytes(torn)
    with pytest.raises(UsageError, match="cannot be read as answers"):
        FileTags(path)
    asked.tagged = 0
    again = Kept(path, asked.tag)
    assert [again.tags(photo) for photo in photos] == said
    assert asked.tagged == asks  # lines that were whole are still good
    assert (tmp_path / f"said{suffix}.broken").read_bytes() == torn
    assert len(read_answers(path)) == 3


def test_answers_that_people_wrote(tmp_path: Path) -> None:
    photo, path, asked = grey(0.3), tmp_path / "mine.json", Asked()
    path.write_text(json.dumps({image_hash(photo): {"tags": ["lake"], "caption": "A lake.", "by": "me"}}))
    kept = Kept(path, asked.tag, asked.caption)
    assert (kept.tags(photo), kept.caption(photo, ("lake",))) == (("lake",), "A lake.")
    path.write_text(json.dumps({image_hash(photo): {"caption": "A lake."}}))
    assert Kept(path, asked.tag, asked.caption).caption(photo, ("any",)) == "A lake."
    assert asked.tagged == asked.captioned == 0
    assert FileCaptions(path)(photo, ("other",)) == "A lake."
    with pytest.raises(UsageError, match="has no tags for this photo"):
        FileTags(path)(grey(0.4))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", '{"abc": {"tags": "cat"}}', "tags cannot be 'cat'"),
        ("a.json", '{"abc": ["cat"]}', "an entry is an object"),
        ("a.json", "[1]", "hash -> entry, is wanted"),
        ("a.jsonl", '{"hash": "abc", "caption": "x"}\n\n{"caption": "y"}\n', "line 3: an object with a hash"),
        ("a.jsonl", '{"hash": "abc", "caption": 3}', "caption cannot be 3"),
        ("b.json", None, "No such file"),
    ],
)
def test_files_that_are_no_answers(tmp_path: Path, name: str, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        FileCaptions(tmp_path / name)
    if text is None:
        with pytest.raises(UsageError, match="a folder without answers"):
            FileTags(tmp_path)


# --- published networks in miniature ---------------------------------------------------------------------------------


def test_absent_packages_and_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for load in (load_llava, load_ram):
        with pytest.raises(MissingExtraError, match=r"needs transformers: pip install 'clareo\[paper\]'"):
            load(tmp_path)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA that knows single letters, with random weights."""
    library, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tiny-llava")
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    vocabulary = [*marks.values(), "<image>", *map(chr, range(32, 127))]
    letters = tokenizers.models.BPE({word: n for n, word in enumerate(vocabulary)}, [], unk_token="<unk>")
    fast = library.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(letters), **marks)
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "initializer_range": 1.0}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}
    seeing = library.CLIPVisionConfig(num_hidden_layers=2, image_size=28, patch_size=14, **shape)
    speaking = library.LlamaConfig(vocab_size=len(vocabulary), num_hidden_layers=1, **shape, **ends)
    config = library.LlavaConfig(vision_config=seeing, text_config=speaking, image_token_index=4, image_seq_length=4)
    torch.random.manual_seed(0)
    library.LlavaForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    library.LlavaProcessor(
        library.CLIPImageProcessor(**sizes),
        fast,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_tiny_llava_describes(llava: Path, photo: torch.Tensor, tmp_path: Path) -> None:
    captioner = replace(load_llava(llava), most_tokens=20)
    said = captioner(photo, ("cat",))
    assert said == captioner(photo, ("cat",))
    assert 0 < len(said.replace(" ", "")) <= 20
    assert "USER" not in said  # the answer alone, without the question
    assert len({said, captioner(1 - photo, ("cat",)), captioner(photo)}) == 3  # it looks, and it listens
    assert captioner(photo[..., :9, :9], ("cat",))
    kept = Kept(tmp_path / "said.jsonl", captioner=captioner)
    assert kept.caption(photo, ("cat",)) == FileCaptions(tmp_path / "said.jsonl")(photo) == said


@pytest.mark.slow
def test_llava_is_asked_as_its_folder_says(llava: Path) -> None:
    captioner = load_llava(llava)
    assert captioner._put("Why?") == "USER: <image>\nWhy? ASSISTANT:"
    captioner.processor.chat_template = (
        "{% for m in messages %}{% for c in m.content %}[{{ c.type }}]{{ c.text }}{% endfor %}{% endfor %}"
    )
    assert captioner._put("Why?") == "[image][text]Why?"


@pytest.mark.slow
def test_llava_that_is_not_whole(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_llava(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder, and no hub name"):
        load_llava(str(tmp_path / "nowhere"))
    for file in llava.iterdir():
        if file.suffix == ".json" and "processor" not in file.name and "token" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(llava / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no processor that can be loaded"):
        load_llava(tmp_path)
    torn = {name: value for name, value in tensors.items() if "multi_modal_projector.linear_1" not in name}
    save_file(torn, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: .*linear_1\.bias"):
        load_llava(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be loaded as LlavaForConditionalGeneration"):
        load_llava(tmp_path)


@pytest.fixture
def swin(tmp_path: Path) -> Path:
    """A tagger of four tags with random weights."""
    library = pytest.importorskip("transformers")
    shape: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    config = library.SwinConfig(image_size=32, num_labels=4, **shape)
    library.SwinForImageClassification(config).save_pretrained(tmp_path / "swin")
    (tmp_path / "swin" / "tags.txt").write_text("boat\nred sea\nfog\nsky\n")
    return tmp_path / "swin"


@pytest.mark.slow
def test_tiny_swin_tags(swin: Path, photo: torch.Tensor) -> None:
    tagger = load_ram(str(swin))
    assert (tagger.side, tagger.tags[1], tagger(photo)) == (32, "red sea", ())  # random logits are near 0: 0.5 < 0.68
    chances = tagger.logits(squashed(photo, 32))[0].sigmoid().tolist()
    (swin / "thresholds.txt").write_text(
        "\n".join(str(chance + step) for chance, step in zip(chances, (-0.01, 0.01, 0.01, -0.01), strict=True))
    )
    assert load_ram(swin)(photo) == ("boat", "sky")


@pytest.mark.slow
def test_swin_folders_that_do_not_fit(swin: Path) -> None:
    (swin / "thresholds.txt").write_text("0.5\n0.5\n")
    with pytest.raises(CheckpointError, match="4 logits, 4 tags, 2 thresholds"):
        load_ram(swin)
    (swin / "thresholds.txt").write_text("0.5\n0.5\n0.5\nhalf\n")
    with pytest.raises(CheckpointError, match=r"thresholds\.txt: has a number a line"):
        load_ram(swin)
    tensors = load_file(swin / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, swin / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: classifier\.weight"):
        load_ram(swin)
    (swin / "tags.txt").unlink()
    with pytest.raises(CheckpointError, match=r"tags\.txt: cannot be read \(No such file"):
        load_ram(swin)
