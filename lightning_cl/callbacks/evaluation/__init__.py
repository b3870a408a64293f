"""Callbacks that measure a run: accuracies after tasks and at any time, the protocol, and the cost."""
