"""Portals between networks, with real machines."""
