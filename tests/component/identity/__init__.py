"""The home side of identity: who a user is to others, what they are shown, and how that ends."""
