"""How images arrive: every scenario is a pure function from labels to one index tensor per task."""
