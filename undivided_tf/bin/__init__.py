"""Command line: flags -> config -> one library call."""
