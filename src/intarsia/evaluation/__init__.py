"""Evaluation: scores on a split, and a report that one can look at."""
