"""Trained models as files for other engines, each proved equal to its model."""
