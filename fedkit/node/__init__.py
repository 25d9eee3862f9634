"""What an experiment's machines are told to do when they come up."""
