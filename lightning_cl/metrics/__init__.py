"""Metrics of continual learning: an accuracy matrix, what is read off it, its figures and a report."""
