"""The engines that run a classifier, one module for each, behind a table of names."""
