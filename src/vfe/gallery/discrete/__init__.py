"""Experiments in discrete worlds: when a cue is read, and what is learned by those who want to know."""
