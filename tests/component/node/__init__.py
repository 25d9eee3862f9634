"""The federation kit on machines of namespaces, with real Samba and FRR."""
