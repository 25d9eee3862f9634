"""Hostile input for the parsers that read what strangers send."""
