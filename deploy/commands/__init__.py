"""The verbs of `fed`, one small file for each group; heavy imports happen inside the commands, so help is quick."""
