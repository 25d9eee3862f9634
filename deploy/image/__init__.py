"""Root file systems for lent machines."""
