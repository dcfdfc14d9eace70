"""The hierarchical Gaussian filter, and choices of who learns by it."""
