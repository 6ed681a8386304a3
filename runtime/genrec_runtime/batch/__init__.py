"""Offline recommendation: Parquet of histories in, Parquet of recommendations out, restartable, in bounded memory.

A job is cut into parts, and ``recommend_partition`` makes one of them: pure, the same bytes each time, so that anything may
call it, in any order, as often as it likes. ``run`` is the engine of one machine.
"""

from genrec_runtime.batch.jobs import Ask, Columns, Job, Part, Plan, Source, plan
from genrec_runtime.batch.partition import recommend_partition
from genrec_runtime.batch.publish import Counts
from genrec_runtime.batch.running import Summary, run

__all__ = ["Ask", "Columns", "Counts", "Job", "Part", "Plan", "Source", "Summary", "plan", "recommend_partition", "run"]
