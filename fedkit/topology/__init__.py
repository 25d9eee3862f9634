"""Descriptions of experiments: the model, its readers and writers."""
