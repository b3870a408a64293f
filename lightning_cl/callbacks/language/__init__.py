"""Methods that read the names of the classes."""
