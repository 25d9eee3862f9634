"""Units of the middlewares."""
