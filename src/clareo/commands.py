"""What may be typed: the options of every command, without a word about what they do.

Nothing heavy is imported: `clareo --help` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_restore(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse keeps this type to itself
    """Restore photos."""
    restore: argparse.ArgumentParser = commands.add_parser("restore", help="restore photos or folders of photos")
    restore.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos or folders")
    restore.add_argument("-o", "--out", required=True, type=Path, help="a folder, or a file for one photo")
    restore.add_argument("--system", help="restoration method (default: unires)")
    restore.add_argument("--preset", help="nano (default), or a folder or hub name with weights")
    restore.add_argument("--upscale", type=int, choices=(1, 2, 3, 4), help="enlarge by this factor (default: 1)")
    restore.add_argument("--steps", type=int, help="1 is the most faithful, more are crisper")
    restore.add_argument("--seed", type=int, help="of all noise (default: 0)")
    restore.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    restore.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="default: auto")
    restore.add_argument(
        "--weights",
        help="auto (default): searched for this photo; fast: out of a shortlist; predict: guessed; fixed: the same for "
        "all; or how much each expert counts, like sr=0.4,denoise=0.6",
    )
    restore.add_argument("--caption", metavar="TEXT", help="what the photo shows, in place of what was perceived")
    restore.add_argument("--prompt", metavar="TEXT", help='what to undo, like "Denoise with sigma 0.5~0.75", likewise')
    restore.add_argument("--ask", metavar="WISH", help='in words, like "remove the noise, keep the grain"')
    restore.add_argument("--detail", type=float, help="0 leaves the blend alone, 1 brings out all the detail there is")
    restore.add_argument("--plan", type=Path, help="repeat the plan of an earlier restoration (NAME.clareo.json)")
    restore.add_argument("--tile", type=int, help="photo pixels along a tile (default: 512)")
    restore.add_argument("--max-megapixels", type=float, help="refuse larger photos (default: 100)")
    restore.add_argument("--strip", action="store_true", default=None, help="drop EXIF and XMP: who, when and where")
    restore.add_argument(
        "--all-frames",
        action="store_true",
        help="of animations and pages: NAME-0001, NAME-0002, ... (default: the first)",
    )
    restore.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    restore.add_argument("--resume", action="store_true", help="skip photos that an earlier run has finished")
    restore.add_argument(
        "--keep-going", action=argparse.BooleanOptionalAction, default=True, help="go on after a photo that failed"
    )
    restore.add_argument("--jobs", type=int, default=1, metavar="N", help="photos at work at once (default: 1)")
    restore.add_argument("--memory", type=float, metavar="GIB", help="what the photos may take (default: what is free)")
    restore.add_argument("--report", type=Path, help="write before and after of all photos into one HTML file")
    restore.add_argument(
        "--trust-map", action="store_true", help="draw what was kept and what was made up (NAME.trust.png)"
    )
    restore.add_argument(
        "--byproducts", action="store_true", help="write what the system sees beside the photo, like NAME.map.png"
    )
    restore.add_argument("--offline", action="store_true", help="ask nothing of the network (also: CLAREO_OFFLINE=1)")
    restore.add_argument("--json", action="store_true", help="print one JSON object a photo")
    return restore


def add_assess(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """Say how good photos are."""
    assess: argparse.ArgumentParser = commands.add_parser(
        "assess", help="say how good photos are and what is wrong with them"
    )
    assess.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos or folders")
    assess.add_argument("--describe", action="store_true", help="in words, with the degree of every kind")
    _add_speaker(assess, "describes")
    assess.add_argument("--max-megapixels", type=float, help="refuse larger photos (default: 100)")
    assess.add_argument("--json", action="store_true", help="print one JSON object a photo")
    return assess


def _add_speaker(command: argparse.ArgumentParser, does: str) -> None:
    command.add_argument("--system", help=f"who {does}: a system that speaks (default: uare, where it is embedded)")
    command.add_argument("--preset", help="of it: nano (default), or a folder or hub name with weights")


def add_compare(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """Say which of two is better."""
    compare: argparse.ArgumentParser = commands.add_parser("compare", help="say which of two photos is better, and why")
    compare.add_argument("first", type=Path, metavar="A")
    compare.add_argument("second", type=Path, metavar="B")
    compare.add_argument(
        "--reference", type=Path, help="the photo that both were made from: departing from it costs points"
    )
    _add_speaker(compare, "compares, with --reference")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    return compare


def add_degrade(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """Damage photos on purpose."""
    degrade: argparse.ArgumentParser = commands.add_parser(
        "degrade", help="damage good photos, with a record of what was done"
    )
    degrade.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos or folders")
    degrade.add_argument("-o", "--out", required=True, type=Path, help="a folder")
    degrade.add_argument(
        "--recipe",
        default="realesrgan",
        help="a name, kinds joined by +, a recipe file (.toml) or a record to repeat (.json)",
    )
    degrade.add_argument("--sheet", action="store_true", help="draw every kind at five degrees instead")
    degrade.add_argument("--seed", type=int, default=0)
    degrade.add_argument("--count", type=int, default=1, help="versions of each photo (default: 1)")
    degrade.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    return degrade


def add_train(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """Train a system."""
    train: argparse.ArgumentParser = commands.add_parser(
        "train", help="train a system from a recipe and a folder of clean photos"
    )
    train.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, see recipes/")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipe, like optimiser.rate=1e-4")
    train.add_argument("--data", required=True, type=Path, help="a folder of clean photos")
    train.add_argument("-o", "--out", type=Path, default=Path("runs/run"), help="where the run is kept")
    train.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    return train


def add_bench(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """Measure."""
    bench: argparse.ArgumentParser = commands.add_parser(
        "bench", help="measure systems on benchmark sets, or one on photos damaged on purpose"
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    bench.add_argument(
        "--data", **several, metavar="NAME=FOLDER", help="benchmark sets; or a FOLDER of clean photos, to be damaged"
    )
    bench.add_argument("--system", **several, metavar="NAME[:PRESET]", help="default: unires; input: the photo itself")
    bench.add_argument("--preset", default="nano", help="of systems that name none (default: nano)")
    bench.add_argument("--metric", **several, metavar="METRIC", help="names or protocols, like psnr/y-bt601/crop0")
    bench.add_argument("--steps", type=int, nargs="+", help="each makes a line of every table")
    bench.add_argument("--weights", help="how much each expert counts, like sr=0.4,denoise=0.6")
    bench.add_argument("--upscale", type=int, choices=(1, 2, 3, 4), help="of the set `flat`; others have their own")
    bench.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    bench.add_argument("--limit", type=int, help="use the first so many photos of each folder")
    bench.add_argument("--keep", action="store_true", help="keep the restored pictures")
    bench.add_argument(
        "--published", nargs="*", metavar="METHOD", help="set the papers' numbers beside ours: their own, named or all"
    )
    bench.add_argument("--build", metavar="NAME=FOLDER", help="build a set that is not handed out from others' photos")
    bench.add_argument("--speed", action="store_true", help="measure seconds instead of quality")
    bench.add_argument("--degradations", action="store_true", help="measure what training draws, and how fast")
    bench.add_argument("--trust", action="store_true", help="measure whether trust finds what was made up")
    bench.add_argument("--planning", action="store_true", help="measure how well the blend of a photo is chosen")
    bench.add_argument("--lessons", type=Path, help="for --planning: what the paper's random forest learns from")
    bench.add_argument("--judge", action="store_true", help="examine the judge on photos damaged on purpose")
    bench.add_argument("--prompts", action="store_true", help="measure how well prompts are read off photos (IRPAD)")
    bench.add_argument("--words", action="store_true", help="measure what words do to the picture of a system")
    bench.add_argument("--speech", action="store_true", help="measure what a system that speaks says of photos")
    bench.add_argument("--obedience", action="store_true", help="measure whether it does what it is told")
    bench.add_argument("--study", type=Path, help="train the runs of a study (studies/*.toml), and compare them")
    bench.add_argument("--photos", type=Path, help="for --study: a folder of photos to train on")
    bench.add_argument("-o", "--out", type=Path, default=Path("bench"), help="folder for the CSV and the tables")
    return bench


def add_models(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """What is installed."""
    models: argparse.ArgumentParser = commands.add_parser(
        "models", help="what is installed, its size, licence, training data and scores; bundles for other machines"
    )
    models.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="of models (default: all); or: bundle [NAME ...] -o OUT; or: verify BUNDLE",
    )
    models.add_argument("--commercial-ok", action="store_true", help="only what its licence allows to be sold with")
    models.add_argument("-o", "--out", type=Path, help="of a bundle: a new folder, or a .zip")
    models.add_argument("--json", action="store_true")
    return models


def add_doctor(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401
    """What this machine can run."""
    doctor: argparse.ArgumentParser = commands.add_parser(
        "doctor", help="what this machine can run, what is missing, what to install"
    )
    return doctor
