"""The command line: each command parses, calls one public function and prints.

Results go to stdout, progress and reasons to stderr. Exit status: 0 all done, 1 some photo failed, 2 wrong usage, 130
stopped by Ctrl-C.
Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import clareo
from clareo import commands, hub
from clareo.errors import ClareoError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    parsed = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        with hub.offline() if getattr(parsed, "offline", False) else contextlib.nullcontext():
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
    below = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add, command in COMMANDS:
        add(below).set_defaults(command=command)
    return parser


# --- commands --------------------------------------------------------------------------------------------------------


def _restore(parsed: argparse.Namespace) -> int:
    from clareo import batch, planning  # noqa: PLC0415

    told = vars(parsed)
    names = ("upscale", "steps", "seed", "precision", "detail", "ask", "tile", "max_megapixels", "caption", "prompt")
    options = {key: told[key] for key in (*names, "strip")}
    options = {key: value for key, value in options.items() if value is not None} | {"device": parsed.device}
    options["trust_map"] = parsed.trust_map
    if parsed.weights is not None:
        options["weights"] = planning.parse_weights(parsed.weights)
    name, preset, sidecar = parsed.system, parsed.preset, planning.Sidecar()
    if parsed.plan is not None:
        _refuse_beside_plan(options)
        options["plan"], sidecar = planning.read_plan(parsed.plan)
        name, preset = name or sidecar.system, preset or sidecar.preset
    jobs = batch.make_jobs(parsed.paths, parsed.out, options, all_frames=parsed.all_frames)
    jobs = batch.with_percept(jobs, sidecar.photo, sidecar.percept)
    system = clareo.load_system(name or "unires", preset or "nano")
    if sidecar.weights not in (None, system.fingerprint):
        msg = f"{parsed.plan}: was made with other weights than those of {system.name} here; name them by --preset"
        raise UsageError(msg)
    if parsed.ask is not None and system.hear is None:
        for clause in planning.understand(parsed.ask).unknown:
            print(f"clareo: not understood: {clause!r}", file=sys.stderr)
    wish = parsed.prompt if system.hear is None or parsed.ask is None else parsed.ask
    _tell_unheard(system, parsed.caption, wish, sidecar.percept)
    return _work(batch, jobs, system, parsed)


def _work(batch: Any, jobs: Any, system: Any, parsed: argparse.Namespace) -> int:  # noqa: ANN401 - lazily imported
    """Do the jobs, tell of each, and sum up, also where somebody wants it to end."""
    from clareo.report import reporting  # noqa: PLC0415

    stop, summary = batch.Stop(), batch.Summary(len(jobs))
    how = {name: getattr(parsed, name) for name in ("overwrite", "resume", "keep_going", "byproducts")}
    how |= {"workers": parsed.jobs, "memory": None if parsed.memory is None else parsed.memory * 2**30}
    side = 0 if parsed.report is None else batch.side_for(len(jobs))
    second = contextlib.suppress(KeyboardInterrupt)  # the first Ctrl-C lets the photo at work be finished
    try:
        with stop.listening(), second, reporting(parsed.report) as add:
            for outcome in batch.run(jobs, system, **how, thumbnails=side, stop=stop):
                summary.add(outcome)
                add(outcome)
                _tell(outcome, summary, as_json=parsed.json)
    finally:
        if stop.asked or (summary.come and summary.total > 1):
            print(summary.told(), file=sys.stderr)
    return 130 if stop.asked else int(summary.failed > 0)


def _refuse_beside_plan(options: dict[str, Any]) -> None:
    clash = sorted(set(options) & {"upscale", "steps", "seed", "precision", "detail", "ask", "tile", "weights"})
    if clash:
        msg = f"--plan already decides {', '.join(clash)}; edit the plan file, or leave --plan out"
        raise UsageError(msg)


def _tell_unheard(system: Any, caption: str | None, prompt: str | None, percept: Any) -> None:  # noqa: ANN401
    from clareo.types import Percept  # noqa: PLC0415

    written = percept or Percept()
    said = Percept((), caption or written.caption, prompt or written.prompt)
    for word in dict.fromkeys(system.unheard(said) if system.unheard is not None else ()):
        print(f"clareo: {system.name} does not hear the word {word!r}", file=sys.stderr)


def _tell(outcome: Any, summary: Any, *, as_json: bool) -> None:  # noqa: ANN401 - lazily imported types
    _progress(summary.come, summary.total, summary.pace(), str(outcome.job.source))
    if as_json:
        print(json.dumps(outcome.to_json()), flush=True)
    told = {"skipped": "done before", "elsewhere": f"left to {outcome.elsewhere}"}
    if outcome.error:
        print(f"clareo: {outcome.error}", file=sys.stderr)
    elif not as_json and outcome.restoration is None:
        print(f"{outcome.job.target}  {told[outcome.state]}", flush=True)
    elif not as_json:
        print(f"{outcome.job.target}  {outcome.restoration.seconds:.1f} s", flush=True)
    for warning in outcome.warnings:
        print(f"clareo: {outcome.job.source}: {warning}", file=sys.stderr)


def _progress(number: int, total: int, pace: str, name: str) -> None:
    """Draw a bar on a terminal, write plain lines elsewhere."""
    if not sys.stderr.isatty():
        print(f"[{number}/{total}] {name}{f'  {pace}' if pace and total > 1 else ''}", file=sys.stderr)
        return
    done = 30 * number // total
    end = "\n" if number == total else ""
    bar = f"\r[{'#' * done}{'.' * (30 - done)}] {number}/{total} {pace:34} {name[-30:]:30}"
    print(bar, end=end, file=sys.stderr, flush=True)


def _assess(parsed: argparse.Namespace) -> int:
    from clareo import conversing  # noqa: PLC0415
    from clareo.batch import assess_batch  # noqa: PLC0415

    _refuse_system_without(parsed, parsed.describe, "--describe")
    failed = False
    limit = {} if parsed.max_megapixels is None else {"max_megapixels": parsed.max_megapixels}
    speaker = conversing.find_speaker(parsed.system, parsed.preset) if parsed.describe else None
    for path, said, error in assess_batch(parsed.paths, **limit, speaker=speaker):
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


def _refuse_system_without(parsed: argparse.Namespace, there: object, option: str) -> None:
    """Refuse a system that would not be asked anything."""
    if not there and (parsed.system or parsed.preset):
        msg = f"a system speaks with {option} only; leave --system and --preset out, or add it"
        raise UsageError(msg)


def _compare(parsed: argparse.Namespace) -> int:
    from clareo import conversing  # noqa: PLC0415

    _refuse_system_without(parsed, parsed.reference, "--reference")
    verdict = clareo.compare(parsed.first, parsed.second, parsed.reference)
    speaker = conversing.find_speaker(parsed.system, parsed.preset) if parsed.reference else None
    if speaker is not None:
        verdict = conversing.compare_in_words(speaker, verdict, parsed.first, parsed.second, parsed.reference)
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
    from clareo.bench.command import bench  # noqa: PLC0415

    tables, failed = bench(parsed)
    print(tables, end="")
    return int(failed)


def _models(parsed: argparse.Namespace) -> int:
    from clareo import bundle, catalogue  # noqa: PLC0415

    action, *names = parsed.names or [""]
    if action == "bundle":
        if parsed.out is None:
            msg = "say where the bundle goes: -o FOLDER, or -o FILE.zip"
            raise UsageError(msg)
        files = bundle.make_bundle(names, parsed.out)["files"]
        print(f"{parsed.out}  {len(files)} files, {sum(file['bytes'] for file in files.values()) / 1e6:.1f} MB")
        return 0
    if action == "verify":
        if not names:
            msg = "say which: clareo models verify FOLDER"
            raise UsageError(msg)
        wrong = {place: bundle.verify_bundle(Path(place)) for place in names}
        for place, faults in wrong.items():
            print(
                *(f"clareo: {place}: {fault}" for fault in faults), sep="\n", end="\n" * bool(faults), file=sys.stderr
            )
            print(f"{place}  {'damaged' if faults else 'intact'}")
        return int(any(wrong.values()))
    chosen = catalogue.list_models(parsed.names, commercial_ok=parsed.commercial_ok)
    if parsed.json:
        print(json.dumps([catalogue.to_json(model) for model in chosen]))
        return 0
    for model in chosen:
        print(*catalogue.describe(model), sep="\n")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from clareo.doctor import examine  # noqa: PLC0415

    healthy = True
    for line in examine():
        healthy &= not line.startswith("missing")
        print(line)
    return 0 if healthy else 1


COMMANDS: tuple[tuple[Callable[[Any], argparse.ArgumentParser], Callable[[argparse.Namespace], int]], ...] = (
    (commands.add_restore, _restore),
    (commands.add_assess, _assess),
    (commands.add_compare, _compare),
    (commands.add_degrade, _degrade),
    (commands.add_train, _train),
    (commands.add_bench, _bench),
    (commands.add_models, _models),
    (commands.add_doctor, _doctor),
)


if __name__ == "__main__":
    sys.exit(main())
