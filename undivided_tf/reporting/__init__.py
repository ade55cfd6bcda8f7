"""What results look like: numbers in words, tables, figures; for binaries and studies alike."""
