"""Methods that give every task weights of its own within one network."""
