"""Data planes: the ways in which frames travel between two portals, behind one contract (`contract.py`)."""
