"""Beliefs about the states of a discrete world."""
