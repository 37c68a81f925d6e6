"""Metrics: counts that add, then a score."""

from intarsia.metrics.boundary import boundary_counts, boundary_scores
from intarsia.metrics.calibration import calibration_counts, calibration_scores
from intarsia.metrics.confusion import confusion
from intarsia.metrics.em import em_counts, em_scores
from intarsia.metrics.instances import MatchCounts, match_classes, match_objects, object_scores
from intarsia.metrics.intervals import interval, paired_difference
from intarsia.metrics.overlap import OverlapScores, overlap_scores

__all__ = [
    "MatchCounts",
    "OverlapScores",
    "boundary_counts",
    "boundary_scores",
    "calibration_counts",
    "calibration_scores",
    "confusion",
    "em_counts",
    "em_scores",
    "interval",
    "match_classes",
    "match_objects",
    "object_scores",
    "overlap_scores",
    "paired_difference",
]
