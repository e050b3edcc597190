"""Which cases are measured, and how one row is measured and judged valid."""
