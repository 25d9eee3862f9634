"""Who somebody is: fedids, keys, three-level names (DESIGN §3)."""
