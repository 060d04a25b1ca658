"""What a sidecar holds, and whether it says that a photo is finished.

A photo is finished when the same input, decisions, weights and version have left this very output: all are compared by
what they hold, never by dates. Whatever is missing, cut short or altered is done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import clareo
from clareo.batch.jobs import Job
from clareo.batch.outcome import assessed
from clareo.checkpoints import file_hash
from clareo.planning import AUTO
from clareo.system import System
from clareo.types import Restoration

WORDS = ("caption", "prompt")
ABOUT_FILES = ("strip", "frame")  # what is read and written, of no concern to `restore`
INDIFFERENT = frozenset({"device", "max_megapixels", "judged", "trust_map"})  # options that move no pixel
DATA = ("plan", "percept")  # options that are written down as what they hold


def account_of(
    job: Job,
    system: System,
    done: Restoration,
    source: str,
    written: Mapping[str, Path],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return what goes into the sidecar. ``source`` is the sha256 of the photo, ``written`` the files made of it."""
    account: dict[str, Any] = {
        "clareo": clareo.__version__,
        "input": {"name": job.source.name, "sha256": source},
        "output": {"name": job.target.name, "sha256": file_hash(written["output"])},
        "system": done.system,
        "preset": system.source or done.preset,
        "weights_sha256": system.fingerprint,
        "asked": decided(job.options),
        "plan": done.plan.to_json(),
        "percept": done.percept.to_json(),
        "before": assessed(done.before),
        "after": assessed(done.after),
        "trust": None if done.trust is None else round(done.trust, 3),
    }
    if "trust_map" in written:
        account["trust_map"] = {"name": job.trust_map.name, "sha256": file_hash(written["trust_map"])}
    if warnings:
        account["warnings"] = list(warnings)
    return account


def finished(job: Job, system: System) -> dict[str, Any] | None:
    """Return the account of an earlier run that has left this very output; None where the photo is to be done."""
    try:
        account: dict[str, Any] = json.loads(job.sidecar.read_text(encoding="utf-8"))
        same = (
            account["clareo"] == clareo.__version__
            and account["system"] == system.name
            and account["weights_sha256"] == system.fingerprint
            and _same_decisions(account, job.options)
            and account["input"]["sha256"] == file_hash(job.source)
            and account["output"]["sha256"] == file_hash(job.target)
            and _same_map(account, job)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return account if same else None


def _same_map(account: Mapping[str, Any], job: Job) -> bool:
    """Compare the trust map, where one is asked for."""
    return not job.options.get("trust_map") or bool(account["trust_map"]["sha256"] == file_hash(job.trust_map))


def _same_decisions(account: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Compare what the caller decides with what was decided then."""
    if options.get("plan") is None:
        return bool(account["asked"] == decided(options))
    others = set(options) - set(DATA) - set(WORDS) - INDIFFERENT
    asked = {name: account["asked"].get(name) for name in others}
    if asked != {name: options[name] for name in others}:
        return False
    words = {name: options[name] for name in WORDS if options.get(name) is not None}
    percept = options.get("percept")
    if percept is not None:
        same_words = account["percept"] == {**percept.to_json(), **words}
    else:
        same_words = words == {name: account["asked"][name] for name in WORDS if name in account["asked"]}
    return bool(account["plan"] == options["plan"].to_json() and same_words)


def decided(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the caller decided that moves the result, as JSON gives it back; what was left open is not there."""
    plain = set(options) - INDIFFERENT - set(DATA)
    told = {name: options[name] for name in sorted(plain) if options[name] is not None}
    told |= {name: options[name].to_json() for name in DATA if options.get(name) is not None}
    if told.get("weights") == AUTO:
        del told["weights"]  # as if nothing had been said
    as_json: dict[str, Any] = json.loads(json.dumps(told))
    return as_json
