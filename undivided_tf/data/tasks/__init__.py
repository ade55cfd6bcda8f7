"""Labelled tasks: files to rows."""
