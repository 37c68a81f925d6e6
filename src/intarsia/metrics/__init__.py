"""Metrics: counts that add, then a score."""

from intarsia.metrics.confusion import confusion
from intarsia.metrics.overlap import OverlapScores, overlap_scores

__all__ = ["OverlapScores", "confusion", "overlap_scores"]
