"""Pictures: attention, training, metrics with their intervals, popularity, codebooks. One file a family.

Each function returns a matplotlib ``Figure`` made from plain numbers; ``save_figure`` writes it. Figures are built without
pyplot's global state, so that they work headless and in any thread, and nothing stays open. Matplotlib and seaborn are
imported when a picture is asked for, and torch never.
"""

from genrec.visualization.attention import AttentionVisualization, attention_figure
from genrec.visualization.canvas import check_picture_path, new_figure, save_figure
from genrec.visualization.codebooks import codebook_figure
from genrec.visualization.metrics import metric_figure
from genrec.visualization.popularity import popularity_figure
from genrec.visualization.training import training_curve_figure, training_curves_figure

__all__ = [
    "AttentionVisualization",
    "attention_figure",
    "check_picture_path",
    "codebook_figure",
    "metric_figure",
    "new_figure",
    "popularity_figure",
    "save_figure",
    "training_curve_figure",
    "training_curves_figure",
]
