"""The command line: options, help, the terminal, and how errors become exit codes."""
