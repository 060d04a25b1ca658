"""The report of a batch: one file that asks nobody for anything, small in memory, usable with 5,000 photos."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest

from clareo.batch import Outcome, Pictures, make_jobs, run, side_for
from clareo.batch.jobs import Job
from clareo.batch.locks import claim
from clareo.errors import PhotoError
from clareo.report import reporting, write_report
from fakes import fake_system, write_photos

ACCOUNT = {
    "system": "unires",
    "plan": {"why": "auto", "steps": 1, "seed": 0, "weights": {"denoise": 1.2, "sr": -0.2, "blind": 0.0}},
    "before": {"score": 2.5, "degradations": {"noise": 0.5, "rain": 0.01, "low_light": 0.7}},
    "after": {"score": 3.5},
    "trust": 0.8,
    "percept": {"tags": ["sky", "sea"], "caption": "", "prompt": "Denoise"},
    "warnings": ["a seam"],
}


class Scripts(HTMLParser):
    """The scripts of a page, with their attributes; and every attribute that could send a request."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.asking: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.asking += [(name, value) for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)

    def handle_endtag(self, tag: str) -> None:
        self.lasttag = f"/{tag}"

    @property
    def photos(self) -> list[dict[str, object]]:
        return [json.loads(text) for kind, text in self.scripts if kind.get("class") == "photo"]

    @property
    def pictures(self) -> list[str]:
        return [text for kind, text in self.scripts if kind.get("type") == "text/plain"]


def job(name: str) -> Job:
    return Job(Path("in") / name, Path("out") / name, Path("out") / f"{name}.json")


def thumbnail(side: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.effect_noise((side, side * 2 // 3), 40).convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def test_what_a_batch_leaves_in_its_report(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a b", size=(64, 96))
    (tmp_path / "in" / "c.png").write_bytes(b"")
    jobs = make_jobs([tmp_path / "in"], tmp_path / "out", {"trust_map": True})
    page = Scripts(write_report(run(jobs, fake_system(), thumbnails=48), tmp_path / "r.html").read_text())
    first, _, last = page.photos
    assert (first["name"], first["state"], first["size"], first["system"]) == ("a.png", "done", "96 x 64", "fake")
    assert first["weights"] == [["blind", 1.0]]
    assert 1 <= first["before"] <= 5
    assert 0 <= first["trust"] <= 1
    assert last["state"] == "failed"
    assert "the file is empty" in last["error"]
    pictures = [PIL.Image.open(io.BytesIO(base64.b64decode(data))) for data in page.pictures[0].split()]
    assert [picture.size for picture in pictures][:2] == [(48, 32), (48, 32)]
    assert len(pictures) == 3  # with the trust map
    assert page.pictures[2] == ""


def test_a_resumed_batch_shows_what_was_done_before(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a", size=(64, 96))
    jobs = make_jobs([tmp_path / "in"], tmp_path / "out", {"trust_map": True})
    reports = []
    for name in ("first", "second"):
        done = run(jobs, fake_system(), thumbnails=48, resume=True)
        reports.append(Scripts(write_report(done, tmp_path / name).read_text()))
    (first,), (second,) = (report.photos for report in reports)
    assert second["state"] == "skipped"
    same = ("name", "weights", "degrees", "before", "after", "trust", "steps", "seed", "why")
    assert {key: second[key] for key in same} == {key: first[key] for key in same}
    assert len(reports[1].pictures[0].split()) == 3


def test_nothing_of_a_name_or_an_error_is_taken_for_the_page(tmp_path: Path) -> None:
    evil = '</script><script>alert("1")</script><img src=x onerror=alert(2)>.png'
    failed = Outcome(job(evil.replace("/", "\u2215")), error=f"{evil}: <b>bad</b>")
    text = write_report([failed], tmp_path / "r.html").read_text()
    page = Scripts(text)
    assert page.photos[0]["error"] == f"{evil}: <b>bad</b>"
    assert len(page.scripts) == 3  # the photo, its pictures, the page's own
    assert page.asking == []
    assert "innerHTML" not in text


def test_no_request_leaves_the_page(tmp_path: Path) -> None:
    text = write_report([Outcome(job("a.png"), skipped=True, account=ACCOUNT)], tmp_path / "r.html").read_text()
    assert Scripts(text).asking == []
    assert "default-src 'none'; img-src data:" in text  # browsers refuse what is not in the file
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", text)


def test_5000_photos(tmp_path: Path) -> None:
    """Written at once, photo by photo; small enough for a browser."""
    pictures = Pictures(thumbnail(side_for(5000)), thumbnail(side_for(5000)))
    path = tmp_path / "r.html"
    began = time.perf_counter()
    with reporting(path) as add:
        for number in range(5000):
            add(Outcome(job(f"p{number}.png"), skipped=True, account=ACCOUNT, pictures=pictures))
        (written,) = tmp_path.glob(".clareo-*/page.html")
        assert written.stat().st_size > 5000 * len(pictures.before)  # on the disk, not in memory
    assert time.perf_counter() - began < 20
    assert not list(tmp_path.glob(".clareo-*"))
    size = path.stat().st_size
    assert size < 200e6
    page = path.read_text()
    assert page.count('class="photo"') == 5000
    assert page.count("<img") == 0  # pictures are data until they come into view


def test_sides_shrink_with_the_number_of_photos() -> None:
    assert [side_for(count) for count in (1, 100, 101, 1000, 1001, 10_000)] == [480, 480, 320, 320, 200, 200]


def test_an_end_by_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    def outcomes() -> Iterator[Outcome]:
        yield Outcome(job("a.png"), error="a.png: bad")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(outcomes(), tmp_path / "r.html")
    assert len(Scripts((tmp_path / "r.html").read_text()).photos) == 1


def test_a_report_that_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    with claim(tmp_path / "r.html"), pytest.raises(PhotoError, match="is being written by"):
        write_report([], tmp_path / "r.html")


# --- the page's own script, on the least of a browser ----------------------------------------------------------------

BROWSER = r"""
const fs = require("fs"), text = fs.readFileSync(process.argv[1], "utf8");
const blocks = [...text.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)];
class Node {
  constructor(tag) { Object.assign(this, {tag, children: [], style: {setProperty() {}}, attributes: {}}); }
  append(...nodes) { this.children.push(...nodes); }
  after() {}
  get childElementCount() { return this.children.length; }
  setAttribute(name, value) { this.attributes[name] = value; }
  replaceChildren(...nodes) { this.children = nodes; }
  get firstChild() { return this.children[0]; }
  get offsetHeight() { return 420; }
  all(tag) { return this.children.flatMap(c => c.all ? [...(c.tag === tag ? [c] : []), ...c.all(tag)] : []); }
  said() { return (this.textContent || "") + this.children.map(c => c.said ? c.said() : c).join(" "); }
}
const nodes = blocks.map(([, kind, content]) => Object.assign(new Node("script"), {kind, textContent: content}));
nodes.forEach((node, place) => { node.nextElementSibling = nodes[place + 1]; });
const found = {main: new Node("main"), "#shown": new Node("p"), "#summary": new Node("p"), h1: new Node("h1")};
const form = {by: {value: "order"}, down: {checked: false}, which: {value: "all"}, like: {value: ""},
              most: {value: ""}, trusted: {value: ""}};
let watched, loaded;
global.document = {forms: [form], readyState: "complete", addEventListener: (_, done) => { loaded = done; },
                   createElement: tag => new Node(tag), querySelector: name => found[name],
                   getElementsByClassName: name => nodes.filter(node => node.kind.includes(name))};
global.IntersectionObserver = class { constructor(seen) { watched = seen; } observe() {} };
eval(nodes.find(node => !node.kind).textContent.replace('"use strict";', ""));
loaded();
const shown = () => found.main.children.map(card => card.photo.name);
const asked = changes => { for (const [key, value] of changes) Object.assign(form[key], value);
                           form.oninput(); return shown(); };
const card = found.main.children[0];
watched([{target: card, isIntersecting: true}]);
const filled = {pictures: card.all("img").map(image => image.src), words: card.said()};
watched([{target: card, isIntersecting: false}]);
console.log(JSON.stringify({
  all: shown(), filled, emptied: card.children.length, told: found["#shown"].textContent,
  after: asked([["by", {value: "after"}]]), down: asked([["down", {checked: true}]]),
  failed: asked([["which", {value: "failed"}]]),
  most: asked([["which", {value: "all"}], ["most", {value: "3"}], ["down", {checked: false}]]),
  like: asked([["most", {value: ""}], ["like", {value: "C.PNG"}]]),
}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here to run the page's script")
def test_the_page_sorts_filters_fills_and_empties(tmp_path: Path) -> None:
    def shown(name: str, after: float) -> Outcome:
        account = {**ACCOUNT, "after": {"score": after}}
        return Outcome(job(name), skipped=True, account=account, pictures=Pictures(b"one", b"two"))

    outcomes = [
        shown("b.png", 2.0),
        shown("a.png", 4.0),
        Outcome(job("c.png"), error="c.png: bad"),
        shown("d.png", 3.0),
    ]
    path = write_report(outcomes, tmp_path / "r.html")
    told = subprocess.run(["node", "-e", BROWSER, str(path)], check=True, capture_output=True, text=True)
    said = json.loads(told.stdout)
    assert said["all"] == ["b.png", "a.png", "c.png", "d.png"]
    assert said["told"] == "4 of 4 photos"
    assert said["filled"]["pictures"] == ["data:image/jpeg;base64,b25l", "data:image/jpeg;base64,dHdv"]
    for words in ("b.png", "trust 0.80", "a seam", "sky, sea", "low light", "denoise", "+1.20", "-0.20", "seed 0"):
        assert words in said["filled"]["words"], words
    assert said["emptied"] == 0
    assert said["after"] == ["b.png", "d.png", "a.png", "c.png"]
    assert said["down"] == ["a.png", "d.png", "b.png", "c.png"]
    assert said["failed"] == ["c.png"]
    assert said["most"] == ["b.png", "d.png"]
    assert said["like"] == ["c.png"]
