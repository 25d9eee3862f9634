"""Who may do what: the RT0 language, signed credentials, and the prover."""
