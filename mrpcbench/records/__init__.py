"""Reading and writing records, and every figure that is derived from their samples."""
