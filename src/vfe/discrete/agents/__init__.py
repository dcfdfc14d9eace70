"""Agents in discrete worlds."""
