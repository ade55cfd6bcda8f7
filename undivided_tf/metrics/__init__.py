"""Scores and statistics; needs no TensorFlow."""
