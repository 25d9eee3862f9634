"""Kits as plug-ins."""
