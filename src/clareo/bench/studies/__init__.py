"""Studies: what a paper says of its parts, put to the test by training without them, or telling it other things."""

from clareo.bench.studies.run import study

__all__ = ["study"]
