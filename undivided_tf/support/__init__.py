"""Files, progress, processes: what knows nothing of BERT."""
