"""Published metrics as pyiqa computes them: LPIPS, DISTS, FID, NIQE, LIQE, MUSIQ, MANIQA, TOPIQ, CLIPIQA.

pyiqa comes with ``pip install 'clareo[iqa]'`` and is imported when a metric is first loaded. Its terms, which rule out
commercial use, are then shown. Where it is missing, or a metric's weights cannot be had, the outcome is "not run" with
the reason; nothing stands in for the metric, and the others are run.

Weights come from a folder, named by the caller or by CLAREO_IQA_WEIGHTS, or pyiqa fetches them into torch's hub folder.
Both are laid out alike, so the hub folder of a machine that has run the metrics can be copied: ``pyiqa/`` with pyiqa's
files, ``checkpoints/`` with torchvision's, ``clip/`` with CLIP's. MANIQA and TOPIQ also have timm ask for a backbone,
which lies in Hugging Face's cache (HF_HUB_CACHE). Most are pickles, which clareo itself refuses: it is pyiqa that opens
them, so take them from its own sources only.

A number counts only with its protocol, such as ``musiq/pyiqa-0.1.16``: variants and versions differ by tens of percent.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from clareo.checkpoints import file_hash
from clareo.errors import MissingExtraError, UnknownNameError
from clareo.io import list_photos
from clareo.quality.cards import Citation
from clareo.types import Image

WEIGHTS = "CLAREO_IQA_WEIGHTS"  # the environment's word for the folder
TERMS = (
    "pyiqa {version} (IQA-PyTorch, Chaofeng Chen) is for non-commercial use only: PolyForm Noncommercial 1.0.0, "
    "before 0.1.16 CC BY-NC-SA 4.0, and the NTU S-Lab licence. The networks that it loads have terms of their own."
)


@dataclass(frozen=True)
class Variant:
    """One metric, exactly as pyiqa names it."""

    name: str
    citation: Citation
    _: KW_ONLY
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    needs_reference: bool = False
    folders: bool = False  # compares two folders of photos
    smallest: int = 1  # px of the shorter side; below, pyiqa gives up or enlarges, and enlarging changes the score
    options: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # in the folder of weights

    @property
    def protocol(self) -> str:
        """Return the name with its options; the version comes behind it."""
        told = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({told})" if told else self.name


_PSNR = Citation("Huynh-Thu & Ghanbari", 2008, "Electronics Letters 44(13)")
_SSIM = Citation("Wang, Bovik, Sheikh & Simoncelli", 2004, "IEEE Transactions on Image Processing 13(4)")
_LPIPS = Citation("Zhang, Isola, Efros, Shechtman & Wang", 2018, "CVPR")
_DISTS = Citation("Ding, Ma, Wang & Simoncelli", 2020, "IEEE TPAMI 44(5)")
_FID = Citation(
    "Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter; resized as by Parmar et al. 2022", 2017, "NeurIPS"
)
_NIQE = Citation("Mittal, Soundararajan & Bovik", 2013, "IEEE Signal Processing Letters 20(3)")
_LIQE = Citation("Zhang, Zhai, Wei, Yang & Ma", 2023, "CVPR")
_MUSIQ = Citation("Ke, Wang, Wang, Milanfar & Yang", 2021, "ICCV")
_MANIQA = Citation("Yang, Wu, Shi, Lao, Gong, Cao, Wang & Yang", 2022, "CVPR workshops")
_TOPIQ = Citation("Chen, Mo, Hou, Wu, Liao, Sun, Yan & Lin", 2024, "IEEE Transactions on Image Processing 33")
_CLIPIQA = Citation("Wang, Chan & Loy", 2023, "AAAI")

_YCBCR = {"color_space": "ycbcr"}  # luma from 16 to 235; without it pyiqa takes YIQ's, 1.32 dB lower
_ALEX = ("pyiqa/LPIPS_v0.1_alex-df73285e.pth", "checkpoints/alexnet-owt-7be5be79.pth")
_VGG = ("pyiqa/DISTS_weights-f5e65c96.pth", "checkpoints/vgg16-397923af.pth")
_CROP = 225  # MANIQA's crops are of 224 px, and pyiqa enlarges photos that are not larger

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant("psnry", _PSNR, high=float("inf"), needs_reference=True, options=_YCBCR),
            Variant("ssim", _SSIM, low=-1, needs_reference=True, smallest=11, options=_YCBCR),
            Variant("lpips", _LPIPS, higher_is_better=False, needs_reference=True, files=_ALEX),
            Variant("dists", _DISTS, higher_is_better=False, needs_reference=True, files=_VGG),
            Variant(
                "fid",
                _FID,
                higher_is_better=False,
                high=float("inf"),
                folders=True,
                files=("pyiqa/pt_inception-2015-12-05-6726825d.pth",),
            ),
            Variant(
                "niqe",
                _NIQE,
                higher_is_better=False,
                high=float("inf"),
                smallest=96,
                files=("pyiqa/niqe_modelparameters.mat",),
            ),
            Variant("liqe", _LIQE, low=1, high=5, smallest=224, files=("pyiqa/liqe_koniq.pt", "clip/ViT-B-32.pt")),
            Variant("musiq", _MUSIQ, high=100, files=("pyiqa/musiq_koniq_ckpt-e95806b9.pth",)),
            Variant("maniqa", _MANIQA, smallest=_CROP, files=("pyiqa/ckpt_koniq10k.pt",)),
            Variant("maniqa-pipal", _MANIQA, smallest=_CROP, files=("pyiqa/MANIQA_PIPAL-ae6d356b.pth",)),
            Variant("topiq_nr", _TOPIQ, files=("pyiqa/cfanet_nr_koniq_res50-9a73138b.pth",)),
            Variant("clipiqa", _CLIPIQA, files=("clip/RN50.pt",)),
        )
    }
)


@dataclass(frozen=True)
class Score:
    """What a metric said of a batch, or why it was not run.

    >>> print(Score("musiq/pyiqa-0.1.16", torch.tensor([61.5, 62.5])))
    musiq/pyiqa-0.1.16 62.0000
    """

    protocol: str  # name, options and version
    values: torch.Tensor | None  # (B,); one for a pair of folders
    reason: str = ""  # why it was not run

    def __str__(self) -> str:
        """Return the mean, or the reason."""
        told = f"not run: {self.reason}" if self.values is None else f"{float(self.values.mean()):.4f}"
        return f"{self.protocol} {told}"


@dataclass(frozen=True)
class PublishedMetric:
    """A metric that was loaded, or the reason why it could not be."""

    variant: Variant
    protocol: str
    reason: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)  # file -> sha256, of those that were found
    network: Callable[..., Any] | None = None  # pyiqa's

    def __call__(self, image: Image, reference: Image | None = None) -> Score:
        """Measure a batch (B, 3, H, W), RGB, [0, 1], rounded to 8 bits as a file would be."""
        if self.variant.folders:
            return self._not_run("compares folders of photos")
        unfit = self.reason or _unfit(self.variant, image, reference)
        if unfit:
            return self._not_run(unfit)
        pairs = zip(_rounded(image), _rounded(image if reference is None else reference), strict=True)
        if self.variant.needs_reference:
            return self._score(lambda network: [network(photo, other) for photo, other in pairs])
        return self._score(lambda network: [network(photo) for photo, _ in pairs])

    def of_folders(self, restored: Path, reference: Path) -> Score:
        """Compare the photos of two folders. Below some thousand photos FID is mostly bias: use it for order only."""
        if not self.variant.folders:
            return self._not_run("compares photos, not folders")
        few = [str(folder) for folder in (restored, reference) if len(list_photos(folder)) < 2]
        if self.reason or few:
            return self._not_run(self.reason or f"fewer than two photos in {' and '.join(few)}")
        return self._score(lambda network: [network(str(restored), str(reference), num_workers=0, verbose=False)])

    def _score(self, run: Callable[[Callable[..., Any]], list[Any]]) -> Score:
        if self.network is None:
            return self._not_run(self.reason)
        try:
            with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
                values = torch.stack([torch.as_tensor(value).float().reshape(()).cpu() for value in run(self.network)])
        except Exception as error:  # noqa: BLE001 - whatever a foreign network raises, the other metrics are run
            return self._not_run(_told(error))
        return self._not_run("gave no number (NaN)") if bool(values.isnan().any()) else Score(self.protocol, values)

    def _not_run(self, reason: str) -> Score:
        return Score(self.protocol, None, reason)


def load_published(name: str, weights: str | Path | None = None, device: str | torch.device = "cpu") -> PublishedMetric:
    """Load a metric by pyiqa's name. Its ``reason`` tells what is missing; only a wrong name is an error."""
    if name not in VARIANTS:
        raise UnknownNameError.of("published metric", name, VARIANTS)
    variant = VARIANTS[name]
    given = weights or os.environ.get(WEIGHTS)
    folder = Path(given).expanduser().absolute() if given else None
    with contextlib.redirect_stdout(sys.stderr), _hub(folder) as hub:
        try:
            pyiqa = importlib.import_module("pyiqa")
        except Exception as error:  # noqa: BLE001 - a broken installation may raise anything
            return PublishedMetric(variant, f"{variant.protocol}/pyiqa", _absent(error))
        protocol = f"{variant.protocol}/pyiqa-{pyiqa.__version__}"
        _show_terms(str(pyiqa.__version__))
        if folder is not None and (lacking := [file for file in variant.files if not (folder / file).is_file()]):
            return PublishedMetric(variant, protocol, f"{folder} lacks {', '.join(lacking)}")
        if elsewhere := _elsewhere(hub):
            return PublishedMetric(variant, protocol, elsewhere)
        try:
            network = pyiqa.create_metric(name, device=torch.device(device), **variant.options)
        except Exception as error:  # noqa: BLE001 - no network, no such file, no memory: all mean that it cannot be had
            missing = "a package is missing" if isinstance(error, ImportError) else "weights cannot be had"
            return PublishedMetric(variant, protocol, f"{missing} ({_told(error)})")
    found = {file: file_hash(hub / file) for file in variant.files if (hub / file).is_file()}
    return PublishedMetric(variant, protocol, weights=found, network=network)


@contextlib.contextmanager
def _hub(folder: Path | None) -> Iterator[Path]:
    """Have torch's hub look into a folder for a while; give the folder that it looks into."""
    before = torch.hub.get_dir()
    if folder is None:
        yield Path(before)
        return
    torch.hub.set_dir(str(folder))
    try:
        yield folder
    finally:
        torch.hub.set_dir(before)


def _elsewhere(hub: Path) -> str:
    """Say so if pyiqa settled on another folder: it asks torch's hub once, when it is imported."""
    settled = getattr(sys.modules.get("pyiqa.utils.download_util"), "DEFAULT_CACHE_DIR", None)
    if settled is None or Path(settled).absolute() == (hub / "pyiqa").absolute():
        return ""
    return f"this process already takes pyiqa's weights from {Path(settled).parent}; set {WEIGHTS} before it starts"


@cache
def _show_terms(version: str) -> None:
    """Print pyiqa's terms, once a process."""
    print(TERMS.format(version=version), file=sys.stderr)  # noqa: T201


def _absent(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "pyiqa":
        return str(MissingExtraError.of("pyiqa", "iqa"))
    return f"pyiqa cannot be imported ({_told(error)})"


def _told(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__


def _unfit(variant: Variant, image: Image, reference: Image | None) -> str:
    """Say why a metric cannot be run on these photos, if it cannot."""
    if image.ndim != 4 or image.shape[1] != 3:
        return f"needs RGB photos, (B, 3, H, W), not {tuple(image.shape)}"
    height, width = image.shape[-2:]
    if min(height, width) < variant.smallest:
        return f"needs {variant.smallest} px a side, not {width}x{height}, and enlarging would change the score"
    if variant.needs_reference and reference is None:
        return "needs a reference"
    if variant.needs_reference and reference is not None and reference.shape != image.shape:
        return f"needs photos of one size, not {tuple(image.shape)} and {tuple(reference.shape)}"
    if not all(bool(each.isfinite().all()) for each in (image, reference) if each is not None):
        return "the photo has pixels that are not numbers (NaN or infinite)"
    return ""


def _rounded(image: Image) -> Iterator[Image]:
    """Yield the photos one by one, (1, 3, H, W), as 8-bit files would hold them."""
    rounded = (image.clamp(0, 1) * 255).round() / 255
    yield from (photo[None] for photo in rounded)
