"""Reads and writes records, and computes every figure that is derived from their samples."""
