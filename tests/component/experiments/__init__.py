"""Experiments over several members, each with its books and its cloud in memory."""
