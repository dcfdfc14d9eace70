"""Beliefs that move: what is hidden, omitted, repeated or changed."""
