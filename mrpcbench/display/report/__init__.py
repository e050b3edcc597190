"""The HTML report of records: figures and tables in one file."""
