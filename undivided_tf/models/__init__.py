"""Keras models: encoder, pretrainer, classifier."""
