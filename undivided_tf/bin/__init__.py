"""Command line programs: flags -> config -> one library call."""
