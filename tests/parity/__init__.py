"""Parity with mergekit 0.1.5, run by hand: `make parity`."""
