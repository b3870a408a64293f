"""Methods that learn features in a base session, and then classes of few samples."""
