"""Analyses of an encoder: taps, CKA, probes."""
