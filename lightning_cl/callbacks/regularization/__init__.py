"""Methods that hold weights back."""
