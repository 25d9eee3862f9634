"""Emulab's and DETER's ns2 dialect."""
