"""The lender's access controller, asked by other members over the network in memory."""
