"""The people of this site: local accounts with hashed passwords, and personal access tokens."""
