"""From text and labelled files to batches."""
