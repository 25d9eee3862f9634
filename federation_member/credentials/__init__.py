"""What is said in a user's name and by whom: signed here, kept for users, shown to lenders, and taken back."""
