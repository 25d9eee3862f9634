"""The middlewares, against the real thing."""
