"""Metrics of recommended lists: the same numbers for the trained model and for the served one."""

from genrec.metrics.diversity import DiversityEstimate, diversity_sample, intra_list_diversity, personalization
from genrec.metrics.intervals import PairedDifference, bootstrap_interval, holm, paired_difference, sign_flip_test
from genrec.metrics.items import ItemCounts
from genrec.metrics.lists import Lists, SupportsArray
from genrec.metrics.ranking import MetricAccumulator, evaluate
from genrec.metrics.recommendation import RecommendationMetrics

__all__ = [
    "DiversityEstimate",
    "ItemCounts",
    "Lists",
    "MetricAccumulator",
    "PairedDifference",
    "RecommendationMetrics",
    "SupportsArray",
    "bootstrap_interval",
    "diversity_sample",
    "evaluate",
    "holm",
    "intra_list_diversity",
    "paired_difference",
    "personalization",
    "sign_flip_test",
]
