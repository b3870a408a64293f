"""Methods that keep a network able to learn."""
