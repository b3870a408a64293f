"""Callbacks that write checkpoints, whole or not at all."""
