"""The engines that run a classifier: one module per engine, and a table of their names."""
