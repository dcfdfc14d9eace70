"""Hierarchies of levels in continuous time: the model, ready-made ones, and courses drawn from them."""
