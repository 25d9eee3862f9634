"""Experiments, without any I/O."""
