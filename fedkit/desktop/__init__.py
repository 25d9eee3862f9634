"""Joins a researcher's own machine to an experiment: an interface with an address, names, routes, one outgoing connection, no trace."""
