"""Labelled tasks: from files to rows."""
