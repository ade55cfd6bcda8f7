"""Keras layers: one class a file."""
