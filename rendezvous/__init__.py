"""The Rendezvous: who is alive in the federation, and what each member offers (docs/protocol.md, "Rendezvous")."""
