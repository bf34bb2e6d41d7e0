"""Exact tails and combinations, in the log domain. Pure functions of numbers; nothing here knows of models or images."""

from taggant_lightning.statistics.binomial import binomial_log10_p
from taggant_lightning.statistics.fisher import fisher_log10_p

__all__ = ["binomial_log10_p", "fisher_log10_p"]
