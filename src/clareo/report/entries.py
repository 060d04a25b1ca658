"""One photo of a report as data: what was found, what was done about it, and how that went."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from clareo.batch import Outcome, Pictures

SLIGHT = 0.05  # degrees below this are not shown


def entry_of(outcome: Outcome) -> dict[str, Any]:
    """Return what the page shows of a photo; what is not known is not there."""
    entry: dict[str, Any] = {
        "name": outcome.job.source.name,
        "input": str(outcome.job.source),
        "output": str(outcome.job.target),
        "state": outcome.state,
    }
    if outcome.error:
        entry["error"] = outcome.error
    if outcome.elsewhere:
        entry["error"] = f"left to {outcome.elsewhere}"
    if outcome.restoration is not None:
        done = outcome.restoration
        entry |= _told({**outcome.to_json(), "plan": done.plan.to_json()})
        height, width = done.tensor.shape[-2:]
        entry |= {"seconds": round(done.seconds, 1), "size": f"{width} x {height}"}
        entry["said"] = "" if done.before is None else done.before.text
    elif outcome.account is not None:
        entry |= _told(outcome.account)
    return entry


def _told(account: Mapping[str, Any]) -> dict[str, Any]:
    """Read a sidecar, or the object that ``--json`` prints."""
    plan, (before, after, trust) = account["plan"], (account.get(key) for key in ("before", "after", "trust"))
    degrees = {} if before is None else before["degradations"]
    found = sorted(((degree, kind) for kind, degree in degrees.items() if degree >= SLIGHT), reverse=True)
    known = {
        "system": account["system"],
        "why": plan["why"],
        "steps": plan["steps"],
        "seed": plan["seed"],
        "weights": [[expert, weight] for expert, weight in plan["weights"].items() if weight],
        "degrees": [[kind.replace("_", " "), degree] for degree, kind in found],
        "before": None if before is None else before["score"],
        "after": None if after is None else after["score"],
        "trust": trust["score"] if isinstance(trust, Mapping) else trust,
        "percept": {name: text for name, text in account["percept"].items() if text},
        "warnings": list(account.get("warnings", ())),
    }
    return {key: value for key, value in known.items() if value is not None}


def embedded(entry: Mapping[str, Any], pictures: Pictures | None) -> str:
    """Return an entry as two blocks of data: the words, and the pictures, which a browser leaves alone until shown."""
    named = {} if pictures is None else {"beside": list(pictures.beside)}
    words = json.dumps({**entry, **named}, ensure_ascii=False).replace("<", "\\u003c")  # no text ends the block
    told = f'<script type="application/json" class="photo">{words}</script>'
    sides = () if pictures is None else (pictures.before, pictures.after, *pictures.beside.values())
    data = " ".join(base64.b64encode(side).decode("ascii") for side in sides)
    return f'{told}<script type="text/plain">{data}</script>\n'
