"""The order engine: what users ask for, and what this member lends (DESIGN §5)."""
