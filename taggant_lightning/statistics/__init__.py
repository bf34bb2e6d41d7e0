"""Exact tails and combinations, in the log domain. Pure functions of numbers; nothing here knows of models or images."""

from taggant_lightning.statistics.binomial import binomial_log10_p
from taggant_lightning.statistics.fisher import fisher_log10_p
from taggant_lightning.statistics.multiple import holm_log10_p, twice_mean_log10_p
from taggant_lightning.statistics.rank_score import rank_score_log10_p, rank_scores
from taggant_lightning.statistics.sequential import sequential_log10_p
from taggant_lightning.statistics.summary import combine, mean_sd, median

__all__ = [
    "binomial_log10_p",
    "combine",
    "fisher_log10_p",
    "holm_log10_p",
    "mean_sd",
    "median",
    "rank_score_log10_p",
    "rank_scores",
    "sequential_log10_p",
    "twice_mean_log10_p",
]
