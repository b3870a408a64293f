"""Methods that classify by means of features."""
