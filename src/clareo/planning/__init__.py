"""Which experts, how much, how many steps, and with which seed.

plans       the plan as data            views       what a search looks at
grid        the blends that are tried   raters      how they are rated
search      the searches themselves     foresight   what was learned about blends
asks        wishes in words             choose      all of it for one photo
"""

from clareo.planning.asks import Wishes, understand
from clareo.planning.choose import choose
from clareo.planning.plans import (
    AUTO,
    FIXED,
    MOST_STEPS,
    TILE,
    UPSCALES,
    WAYS,
    check,
    complete,
    parse_weights,
    read_plan,
    way_of,
    with_detail,
)

__all__ = [
    "AUTO",
    "FIXED",
    "MOST_STEPS",
    "TILE",
    "UPSCALES",
    "WAYS",
    "Wishes",
    "check",
    "choose",
    "complete",
    "parse_weights",
    "read_plan",
    "understand",
    "way_of",
    "with_detail",
]
