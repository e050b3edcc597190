"""Runs `train` for each seed and setting of a study: what the trials are, and what starts them."""
