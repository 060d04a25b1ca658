"""The command line: each command parses, calls one public function and prints.

Results go to stdout, progress and reasons to stderr. Exit status: 0 all done, 1 some photo failed, 2 wrong usage.
Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import clareo
from clareo.errors import ClareoError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parsed = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except UsageError as error:
        return _complain(error, 2)
    except ClareoError as error:
        return _complain(error, 1)
    except Exception as error:  # noqa: BLE001 - a bug: say so in a line, and how to see where
        return _complain(RuntimeError(f"{type(error).__name__}: {error} (CLAREO_DEBUG=1 shows where)"), 1, error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _complain(error: Exception, status: int, cause: Exception | None = None) -> int:
    if os.environ.get("CLAREO_DEBUG") == "1":
        raise error from cause
    print(f"clareo: {error}", file=sys.stderr)
    return status


# --- arguments -------------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser("clareo", description="Restore photos, and say what was wrong with them.")
    parser.add_argument("--version", action="version", version=f"clareo {clareo.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_restore(commands)
    _add_assess(commands)
    _add_compare(commands)
    _add_degrade(commands)
    _add_train(commands)
    _add_bench(commands)
    models = commands.add_parser("models", help="what is installed, its size, licence, training data and scores")
    models.add_argument("name", nargs="?", metavar="NAME")
    models.add_argument("--json", action="store_true")
    models.set_defaults(command=_models)
    doctor = commands.add_parser("doctor", help="what this machine can run, what is missing, what to install")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_restore(commands: Any) -> None:  # noqa: ANN401 - argparse keeps this type to itself
    restore = commands.add_parser("restore", help="restore photos or folders of photos")
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
    restore.add_argument("--ask", metavar="WISH", help='in words, like "remove the noise, keep the grain"')
    restore.add_argument("--detail", type=float, help="0 leaves the blend alone, 1 brings out all the detail there is")
    restore.add_argument("--plan", type=Path, help="repeat the plan of an earlier restoration (NAME.clareo.json)")
    restore.add_argument("--tile", type=int, help="photo pixels along a tile (default: 512)")
    restore.add_argument("--max-megapixels", type=float, help="refuse larger photos (default: 100)")
    restore.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    restore.add_argument("--resume", action="store_true", help="skip photos that an earlier run has finished")
    restore.add_argument(
        "--keep-going", action=argparse.BooleanOptionalAction, default=True, help="go on after a photo that failed"
    )
    restore.add_argument("--report", type=Path, help="write before and after of all photos into one HTML file")
    restore.add_argument(
        "--trust-map", action="store_true", help="draw what was kept and what was made up (NAME.trust.png)"
    )
    restore.add_argument("--json", action="store_true", help="print one JSON object a photo")
    restore.set_defaults(command=_restore)


def _add_assess(commands: Any) -> None:  # noqa: ANN401
    assess = commands.add_parser("assess", help="say how good photos are and what is wrong with them")
    assess.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos or folders")
    assess.add_argument("--describe", action="store_true", help="in words, with the degree of every kind")
    assess.add_argument("--max-megapixels", type=float, help="refuse larger photos (default: 100)")
    assess.add_argument("--json", action="store_true", help="print one JSON object a photo")
    assess.set_defaults(command=_assess)


def _add_compare(commands: Any) -> None:  # noqa: ANN401
    compare = commands.add_parser("compare", help="say which of two photos is better, and why")
    compare.add_argument("first", type=Path, metavar="A")
    compare.add_argument("second", type=Path, metavar="B")
    compare.add_argument(
        "--reference", type=Path, help="the photo that both were made from: departing from it costs points"
    )
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(command=_compare)


def _add_degrade(commands: Any) -> None:  # noqa: ANN401
    degrade = commands.add_parser("degrade", help="damage good photos, with a record of what was done")
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
    degrade.set_defaults(command=_degrade)


def _add_train(commands: Any) -> None:  # noqa: ANN401
    train = commands.add_parser("train", help="train a system from a recipe and a folder of clean photos")
    train.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, see recipes/")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipe, like optimiser.rate=1e-4")
    train.add_argument("--data", required=True, type=Path, help="a folder of clean photos")
    train.add_argument("-o", "--out", type=Path, default=Path("runs/run"), help="where the run is kept")
    train.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    train.set_defaults(command=_train)


def _add_bench(commands: Any) -> None:  # noqa: ANN401
    bench = commands.add_parser("bench", help="measure systems on benchmark sets, or one on photos damaged on purpose")
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
    bench.add_argument("-o", "--out", type=Path, default=Path("bench"), help="folder for the CSV and the tables")
    bench.set_defaults(command=_bench)


# --- commands --------------------------------------------------------------------------------------------------------


def _restore(parsed: argparse.Namespace) -> int:
    from clareo import batch, planning  # noqa: PLC0415

    told = vars(parsed)
    names = ("upscale", "steps", "seed", "precision", "detail", "ask", "tile", "max_megapixels")
    options = {key: told[key] for key in names}
    options = {key: value for key, value in options.items() if value is not None} | {"device": parsed.device}
    options["trust_map"] = parsed.trust_map
    if parsed.weights is not None:
        options["weights"] = planning.parse_weights(parsed.weights)
    if parsed.ask is not None:
        for clause in planning.understand(parsed.ask).unknown:
            print(f"clareo: not understood: {clause!r}", file=sys.stderr)
    name, preset = parsed.system, parsed.preset
    if parsed.plan is not None:
        _refuse_beside_plan(options)
        options["plan"], kept = planning.read_plan(parsed.plan)
        name, preset = name or kept.get("system"), preset or kept.get("preset")
    jobs = batch.make_jobs(parsed.paths, parsed.out, options)
    system = clareo.load_system(name or "unires", preset or "nano")
    outcomes = []
    work = batch.run(jobs, system, overwrite=parsed.overwrite, resume=parsed.resume, keep_going=parsed.keep_going)
    failed = False
    for number, outcome in enumerate(work, start=1):
        failed |= bool(outcome.error)
        if parsed.report is not None:  # otherwise a folder of photos would stay in memory
            outcomes.append(outcome)
        _tell(outcome, number, len(jobs), as_json=parsed.json)
    if parsed.report is not None:
        from clareo.report import write_report  # noqa: PLC0415

        write_report(outcomes, parsed.report)
    return int(failed)


def _refuse_beside_plan(options: dict[str, Any]) -> None:
    clash = sorted(set(options) & {"upscale", "steps", "seed", "precision", "detail", "ask", "tile", "weights"})
    if clash:
        msg = f"--plan already decides {', '.join(clash)}; edit the plan file, or leave --plan out"
        raise UsageError(msg)


def _tell(outcome: Any, number: int, total: int, *, as_json: bool) -> None:  # noqa: ANN401 - lazily imported type
    _progress(number, total, str(outcome.job.source))
    if as_json:
        print(json.dumps(outcome.to_json()), flush=True)
    if outcome.error:
        print(f"clareo: {outcome.error}", file=sys.stderr)
    elif not as_json and outcome.skipped:
        print(f"{outcome.job.target}  done before", flush=True)
    elif not as_json:
        print(f"{outcome.job.target}  {outcome.restoration.seconds:.1f} s", flush=True)


def _progress(number: int, total: int, name: str) -> None:
    """Draw a bar on a terminal, write plain lines elsewhere."""
    if not sys.stderr.isatty():
        print(f"[{number}/{total}] {name}", file=sys.stderr)
        return
    done = 30 * number // total
    end = "\n" if number == total else ""
    print(f"\r[{'#' * done}{'.' * (30 - done)}] {number}/{total} {name[-40:]:40}", end=end, file=sys.stderr, flush=True)


def _assess(parsed: argparse.Namespace) -> int:
    from clareo.batch import assess_batch  # noqa: PLC0415

    failed = False
    limit = {} if parsed.max_megapixels is None else {"max_megapixels": parsed.max_megapixels}
    for path, said, error in assess_batch(parsed.paths, **limit):
        failed |= said is None
        if parsed.json:
            print(
                json.dumps({"input": str(path), **({"error": error} if said is None else said.to_json())}), flush=True
            )
        if said is None:
            print(f"clareo: {error}", file=sys.stderr)
        elif parsed.describe and not parsed.json:
            degrees = "  ".join(f"{kind} {degree:.2f}" for kind, degree in said.degradations.items())
            print(f"{path}\n  {said.text}\n  {degrees}\n  score {said.score:.2f}, give or take {said.doubt:.2f}")
        elif not parsed.json:
            print(f"{path}  {said.text}", flush=True)
    return int(failed)


def _compare(parsed: argparse.Namespace) -> int:
    verdict = clareo.compare(parsed.first, parsed.second, parsed.reference)
    names = {"first": str(parsed.first), "second": str(parsed.second)}
    if parsed.json:
        print(json.dumps({"a": names["first"], "b": names["second"], **verdict.to_json()}))
    else:
        print(f"{verdict.text}\nmargin {verdict.margin:+.2f}, confidence {verdict.confidence:.0%}")
    return 0


def _degrade(parsed: argparse.Namespace) -> int:
    from clareo.batch import degrade_batch, sheet_batch  # noqa: PLC0415

    failed = False
    if parsed.sheet:
        done = sheet_batch(parsed.paths, parsed.out, parsed.seed, overwrite=parsed.overwrite)
    else:
        done = degrade_batch(
            parsed.paths, parsed.out, parsed.recipe, parsed.seed, parsed.count, overwrite=parsed.overwrite
        )
    for line, error in done:
        failed |= bool(error)
        print(f"clareo: {error}" if error else line, file=sys.stderr if error else sys.stdout)
    return int(failed)


def _train(parsed: argparse.Namespace) -> int:
    from clareo.train.loop import train  # noqa: PLC0415
    from clareo.train.recipe import read_recipe  # noqa: PLC0415

    pairs = [text.partition("=") for text in parsed.overrides]
    if any(not equals for _, equals, _ in pairs):
        msg = f"overrides are written key=value, not {' '.join(parsed.overrides)}"
        raise UsageError(msg)
    recipe = read_recipe(parsed.recipe, {key: value for key, _, value in pairs})
    print(train(recipe, parsed.data, parsed.out, resume=parsed.resume))
    return 0


def _bench(parsed: argparse.Namespace) -> int:
    from clareo import bench  # noqa: PLC0415

    if parsed.build is not None:
        print(bench.build(*bench.name_and_folder(parsed.build), parsed.out))
        return 0
    if parsed.speed:
        print(bench.speed(clareo.load_system(*bench.only_system(parsed.system, parsed.preset))))
        return 0
    folder = bench.only_folder(parsed.data)
    if folder is None and not any((parsed.degradations, parsed.judge, parsed.prompts, parsed.trust, parsed.planning)):
        return _bench_sets(parsed)
    if folder is None:
        msg = "--degradations, --judge, --planning, --prompts and --trust take a folder of clean photos, without a name"
        raise UsageError(msg)
    if parsed.judge or parsed.prompts:
        asked = (folder, parsed.out, parsed.limit or 2000)
        print(bench.judging(*asked) if parsed.judge else bench.prompts(*asked, parsed.preset))
        return 0
    if parsed.degradations:
        print(bench.degradations(folder))
        return 0
    _refuse_options_of_sets(parsed, folder)
    system = clareo.load_system(*bench.only_system(parsed.system, parsed.preset))
    if parsed.trust:
        print(bench.forgeries(system, folder, parsed.out, parsed.limit))
        return 0
    if parsed.planning:
        print(bench.planning(system, folder, parsed.out, parsed.limit, parsed.lessons))
        return 0
    print(bench.quality(system, folder, parsed.out, tuple(parsed.steps or (1, 4)), parsed.limit))
    return 0


def _refuse_options_of_sets(parsed: argparse.Namespace, folder: Path) -> None:
    given = {"metric": bool(parsed.metric), "keep": parsed.keep, "device": parsed.device != "auto"}
    given |= {option: getattr(parsed, option) is not None for option in ("weights", "upscale", "published")}
    clash = [f"--{option}" for option, there in given.items() if there]
    if clash:
        msg = f"{', '.join(clash)}: for benchmark sets; name the set: --data NAME={folder}"
        raise UsageError(msg)


def _bench_sets(parsed: argparse.Namespace) -> int:
    from clareo import bench, planning  # noqa: PLC0415

    weights = planning.AUTO if parsed.weights is None else planning.parse_weights(parsed.weights)
    request = bench.Request(
        parsed.system or ["unires"],
        bench.load_named(parsed.data, parsed.upscale, parsed.limit),
        parsed.out,
        metrics=parsed.metric,
        preset=parsed.preset,
        settings=[bench.Settings(steps, weights, parsed.device) for steps in parsed.steps or (None,)],
        keep=parsed.keep,
        published=parsed.published,
    )
    tables, failed = bench.compare(request)
    print(tables, end="")
    return 1 if failed else 0


def _models(parsed: argparse.Namespace) -> int:
    from dataclasses import asdict  # noqa: PLC0415

    from clareo.checkpoints import packaged  # noqa: PLC0415
    from clareo.errors import UnknownNameError  # noqa: PLC0415

    entries = packaged()
    if parsed.name is not None and parsed.name not in entries:
        raise UnknownNameError.of("model", parsed.name, entries)
    chosen = [entries[parsed.name]] if parsed.name else list(entries.values())
    if parsed.json:
        print(json.dumps([asdict(entry) for entry in chosen]))
        return 0
    for entry in chosen:
        size = entry.path.stat().st_size / 1e6
        print(f"{entry.name}  {entry.parameters / 1e6:.1f} M parameters, {size:.1f} MB, licence {entry.licence}")
        print(f"  trained on  {entry.trained_on}\n  scores      {entry.scores}\n  sha256      {entry.sha256}")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from clareo.doctor import examine  # noqa: PLC0415

    healthy = True
    for line in examine():
        healthy &= not line.startswith("missing")
        print(line)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
