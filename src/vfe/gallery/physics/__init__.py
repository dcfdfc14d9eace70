"""Experiments on free energy as physics knows it: cumulants, couplings, renormalisation, geodesics."""
