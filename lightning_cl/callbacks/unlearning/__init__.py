"""Methods that forget classes on request."""
