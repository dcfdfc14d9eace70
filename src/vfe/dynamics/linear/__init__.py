"""Linear-Gaussian systems: exact filters, smoothers, smooth noise as a linear system, fits."""
