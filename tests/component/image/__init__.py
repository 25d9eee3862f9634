"""The builder of root file systems."""
