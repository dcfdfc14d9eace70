"""Levels with their smooth noise as a Markov process: causal filter, smoother, learning by the evidence."""
