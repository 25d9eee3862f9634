"""What is decided about images before anything is fetched."""
