"""Images from servers that behave, and from those that do not."""
