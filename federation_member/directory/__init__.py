"""Whom this member knows of: the list that the Rendezvous keeps, checked, kept, and used when there is no Rendezvous."""
