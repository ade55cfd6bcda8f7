"""Text to records."""
