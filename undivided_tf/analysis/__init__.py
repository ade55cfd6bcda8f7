"""Looking inside an encoder: taps, CKA, probes."""
