"""The result of a benchmark: a table per scenario, details, and a summary in sentences."""
