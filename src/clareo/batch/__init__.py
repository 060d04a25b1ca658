"""Many photos: which file goes where, one outcome and one sidecar each. A bad photo stops nobody else.

jobs     which file goes where          memory    how much a photo takes, how many fit
run      workers, order, the end        locks     one process for every output, nothing half-written
one      a photo from claim to sidecar  resume    what is finished already
outcome  what became of it              summary   of all of them
stop     Ctrl-C                         pictures  small ones for the report
"""

from clareo.batch.assessing import assess_batch
from clareo.batch.degrading import degrade_batch, sheet_batch
from clareo.batch.jobs import Job, find_photos, make_jobs, with_percept
from clareo.batch.outcome import Outcome, Pictures
from clareo.batch.pictures import side_for
from clareo.batch.run import run
from clareo.batch.stop import Stop
from clareo.batch.summary import Summary

__all__ = [
    "Job",
    "Outcome",
    "Pictures",
    "Stop",
    "Summary",
    "assess_batch",
    "degrade_batch",
    "find_photos",
    "make_jobs",
    "run",
    "sheet_batch",
    "side_for",
    "with_percept",
]
