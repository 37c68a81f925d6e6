"""Exported network files and the engines that run them, without torch."""
