"""One HTML file that shows a batch: before and after under a slider. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from clareo.batch import Outcome
from clareo.io import Photo, atomic, to_picture
from clareo.types import Restoration

WIDTH = 480  # pixels of a thumbnail

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>clareo report</title>
<style>
 :root {{ color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }}
 body {{ margin: 2rem auto; max-width: 1080px; padding: 0 1rem; }}
 main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1.5rem; }}
 figure {{ margin: 0; }}
 .pair {{ position: relative; overflow: hidden; border-radius: 6px; --cut: 50%; }}
 .pair img {{ display: block; width: 100%; }}
 .pair .after {{ position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut)); }}
 .pair::after {{ content: ""; position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; background: #fff; }}
 input {{ width: 100%; margin: .4rem 0; }}
 figcaption {{ overflow-wrap: anywhere; }}
 small {{ opacity: .75; }}
 .bars {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0 1.2rem; font-size: .85em; margin: .3rem 0; }}
 .bars div {{ display: grid; grid-template-columns: 7.5em 1fr 2.6em; align-items: center; gap: .4em; }}
 .bars h4 {{ grid-column: 1 / -1; margin: .2rem 0 0; font-weight: normal; opacity: .75; }}
 .bars i {{ position: relative; height: .55em; background: #8883; border-radius: 2px; }}
 .bars b {{ position: absolute; inset: 0 auto; border-radius: 2px; background: #27c; }}
 .bars .less {{ background: #c33; }} .bars .wrong {{ background: #c80; }}
 .bars span {{ text-align: right; font-variant-numeric: tabular-nums; }}
 .beside {{ max-width: 50%; border-radius: 4px; }}
 .failed {{ border-left: 4px solid #c33; padding-left: .8rem; }}
</style></head><body>
<h1>clareo report</h1><p>{summary}</p><main>
{figures}
</main>
<script>
 for (const slider of document.querySelectorAll("input"))
   slider.oninput = () => slider.previousElementSibling.style.setProperty("--cut", slider.value + "%");
</script></body></html>
"""

FIGURE = """<figure><div class="pair"><img alt="before: {name}" src="{before}"><img class="after" alt="after: {name}" \
src="{after}"></div><input type="range" value="50" aria-label="before and after"><figcaption><b>{name}</b> \
{size}<br>{verdict}{percept}{bars}{beside}<small>{plan}</small></figcaption></figure>"""
BESIDE = '<small>{what}:</small><br><img class="beside" alt="{what}: {name}" src="{picture}"><br>'
BAR = '<div>{name}<i><b class="{kind}" style="left:{left:.1f}%;width:{width:.1f}%"></b></i><span>{value}</span></div>'
LOW, HIGH = -0.2, 1.2  # the ends of a bar of weights
SLIGHT = 0.05  # degrees below this are not drawn


def write_report(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Write the report of a batch."""
    done = sum(outcome.restoration is not None for outcome in outcomes)
    failed = sum(bool(outcome.error) for outcome in outcomes)
    figures = "\n".join(_figure(outcome) for outcome in outcomes if not outcome.skipped)
    summary = f"{done} restored, {failed} failed. Left of the line: before; right: after."
    with atomic(path) as partial:
        partial.write_text(PAGE.format(summary=summary, figures=figures), encoding="utf-8")
    return path


def _figure(outcome: Outcome) -> str:
    name = html.escape(outcome.job.source.name)
    done = outcome.restoration
    if done is None:
        return f'<figure class="failed"><figcaption><b>{name}</b><br>{html.escape(outcome.error)}</figcaption></figure>'
    steps = f"{done.plan.steps} step{'s' if done.plan.steps > 1 else ''}"
    parts = [done.system, html.escape(done.plan.why), steps, f"seed {done.plan.seed}", f"{done.seconds:.1f} s"]
    plan = " · ".join(part for part in parts if part)
    with PIL.Image.open(outcome.job.source) as source:
        before = (
            PIL.ImageOps.exif_transpose(source).convert("RGB").resize(done.image.size, PIL.Image.Resampling.BICUBIC)
        )
    size, pictures = f"{done.image.width} x {done.image.height}", {"before": before, "after": done.image}
    embedded = {side: _embedded(picture) for side, picture in pictures.items()}
    told = {"verdict": _verdict(done), "percept": _percept(done), "bars": _bars(done), "beside": _beside(done, name)}
    return FIGURE.format(name=name, size=size, plan=plan, **told, **embedded)


def _verdict(done: Restoration) -> str:
    """Say what was wrong, how the score moved, and how far the result can be trusted."""
    if done.before is None or done.after is None or done.trust is None:
        return ""
    moved = f"{html.escape(done.before.text)} &rarr; {done.after.score:.1f}"
    return f"{moved}, trust {done.trust:.2f}<br>"


def _percept(done: Restoration) -> str:
    """Say what was perceived, or put into words by the caller."""
    texts = {"tags": ", ".join(done.percept.tags), "caption": done.percept.caption, "to do": done.percept.prompt}
    return "".join(f"<small>{title}: {html.escape(text)}</small><br>" for title, text in texts.items() if text)


def _beside(done: Restoration, name: str) -> str:
    """Show what the system sees beside the photo."""
    pictures = {what: to_picture(image, Photo(image)) for what, image in done.byproducts.items()}
    return "".join(BESIDE.format(what=what, name=name, picture=_embedded(p)) for what, p in pictures.items())


def _bars(done: Restoration) -> str:
    """Draw what was wrong beside what was done about it: degrees of damage, and weights of experts."""
    found = {} if done.before is None else done.before.degradations
    degrees = sorted(((degree, kind) for kind, degree in found.items() if degree >= SLIGHT), reverse=True)
    wrong = [
        BAR.format(name=kind.replace("_", " "), kind="wrong", left=0, width=100 * degree, value=f"{degree:.2f}")
        for degree, kind in degrees
    ]
    done_about = [_weight_bar(expert, weight) for expert, weight in done.plan.weights.items() if weight]
    columns = {"what was wrong": wrong or ["<div>nothing much</div>"], "what was blended": done_about}
    shown = (f"<section><h4>{title}</h4>{''.join(bars)}</section>" for title, bars in columns.items())
    return f'<section class="bars">{"".join(shown)}</section>'


def _weight_bar(expert: str, weight: float) -> str:
    """Draw a weight to the right of zero, or to the left where it is negative."""
    ends = sorted(min(max(end, LOW), HIGH) for end in (0.0, weight))
    left, right = (100 * (end - LOW) / (HIGH - LOW) for end in ends)
    kind = "less" if weight < 0 else "more"
    return BAR.format(name=expert, kind=kind, left=left, width=right - left, value=f"{weight:+.2f}")


def _embedded(picture: PIL.Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
