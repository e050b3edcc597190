"""The cases of a benchmark, the measurement of a row, and the rules that make a row valid."""
