"""Experiments about recognition: what an encoder can do alone, and what backward connections add."""
