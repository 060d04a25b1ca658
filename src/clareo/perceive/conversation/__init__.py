"""Talking about photos: what a person asks for, what is answered, in a vocabulary that is closed.

lexicon     what kinds of damage are called     wishes      what is to go and to stay: asked, understood
facts       what is known of a damaged photo    answers     descriptions, scores, comparisons, plans: said, read
tokens      words to numbers and back           held_out    wishes that nobody trains on
"""

from clareo.perceive.conversation.answers import (
    Comparison,
    Plan,
    claims,
    compared,
    comparison_in,
    describe,
    plan_in,
    planned,
    score_in,
    scored,
)
from clareo.perceive.conversation.facts import Finding, Findings, findings, found_in
from clareo.perceive.conversation.lexicon import KINDS
from clareo.perceive.conversation.tokens import ANALYSE, COMPARE, DESCRIBE, QUESTIONS, RESTORE, SCORE, Tokens
from clareo.perceive.conversation.wishes import Wish, asked, cluttered, draw_wish, understood

__all__ = [
    "ANALYSE",
    "COMPARE",
    "DESCRIBE",
    "KINDS",
    "QUESTIONS",
    "RESTORE",
    "SCORE",
    "Comparison",
    "Finding",
    "Findings",
    "Plan",
    "Tokens",
    "Wish",
    "asked",
    "claims",
    "cluttered",
    "compared",
    "comparison_in",
    "describe",
    "draw_wish",
    "findings",
    "found_in",
    "plan_in",
    "planned",
    "score_in",
    "scored",
    "understood",
]
