"""What was measured, as files that any code base can be compared by; without torch.

``genrec.results.predictions`` scores files of other code bases, and needs polars.
"""

from genrec.results.comparison import Comparison, compare
from genrec.results.result import COMPARED, Result, read_result
from genrec.results.seeds import compare_seeds, group_runs
from genrec.results.tables import csv_table, latex_table, text_table

__all__ = [
    "COMPARED",
    "Comparison",
    "Result",
    "compare",
    "compare_seeds",
    "csv_table",
    "group_runs",
    "latex_table",
    "read_result",
    "text_table",
]
