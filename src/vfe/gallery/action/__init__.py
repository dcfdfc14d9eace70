"""Experiments of action in continuous time: reflex, reaching, pursuit, the mountain car."""
