"""Benchmarks: systems x datasets x metrics, a system on clean photos with known damage, speed, degradations."""

from clareo.bench.arguments import load_named, name_and_folder, only_folder, only_system
from clareo.bench.build import build
from clareo.bench.cases import quality
from clareo.bench.contenders import Settings
from clareo.bench.damage import degradations
from clareo.bench.datasets import Dataset, Item, load_datasets
from clareo.bench.forgery import forgeries
from clareo.bench.grid import Request, compare
from clareo.bench.judging import judging
from clareo.bench.obedience import obedience
from clareo.bench.planning import planning
from clareo.bench.prompts import prompts
from clareo.bench.speech import speech
from clareo.bench.speed import speed
from clareo.bench.steering import words
from clareo.bench.studies import study

__all__ = [
    "Dataset",
    "Item",
    "Request",
    "Settings",
    "build",
    "compare",
    "degradations",
    "forgeries",
    "judging",
    "load_datasets",
    "load_named",
    "name_and_folder",
    "obedience",
    "only_folder",
    "only_system",
    "planning",
    "prompts",
    "quality",
    "speech",
    "speed",
    "study",
    "words",
]
