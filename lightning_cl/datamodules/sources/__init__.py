"""Which images: every source states labels, class names and domains, and fetches one item."""
