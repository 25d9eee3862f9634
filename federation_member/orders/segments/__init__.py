"""Segments at their lender: pieces of experiments, embedded by leases of machines and networks."""
