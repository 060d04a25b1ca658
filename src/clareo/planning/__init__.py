"""Which experts, how much, how many steps, and with which seed.

plans       the plan as data            views       what a search looks at
grid        the blends that are tried   raters      how they are rated
search      the searches themselves     foresight   what was learned about blends
asks        wishes in words             choose      all of it for one photo
"""

from clareo.planning.asks import Wishes, understand
from clareo.planning.choose import Walker, choose
from clareo.planning.grid import Grid
from clareo.planning.plans import (
    AUTO,
    FIXED,
    MOST_STEPS,
    SMALLEST_TILE,
    TILE,
    UPSCALES,
    WAYS,
    Sidecar,
    check,
    complete,
    parse_weights,
    read_plan,
    way_of,
    with_detail,
)
from clareo.planning.raters import ByJudge, ByMetric, ByPublished, Nearness, Rater
from clareo.planning.search import Found, auto, exhaustive, fast
from clareo.planning.views import Views, look

__all__ = [
    "AUTO",
    "FIXED",
    "MOST_STEPS",
    "SMALLEST_TILE",
    "TILE",
    "UPSCALES",
    "WAYS",
    "ByJudge",
    "ByMetric",
    "ByPublished",
    "Found",
    "Grid",
    "Nearness",
    "Rater",
    "Sidecar",
    "Views",
    "Walker",
    "Wishes",
    "auto",
    "check",
    "choose",
    "complete",
    "exhaustive",
    "fast",
    "look",
    "parse_weights",
    "read_plan",
    "understand",
    "way_of",
    "with_detail",
]
