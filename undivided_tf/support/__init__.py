"""Files, progress, processes: code that knows nothing of BERT."""
