"""Experiments: one description over several testbeds, each piece lent as a segment, and what keeps them together."""
