"""Keras layers: one class per file."""
