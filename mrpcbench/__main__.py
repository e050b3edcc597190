"""`python -m mrpcbench` is `mrpcbench`."""

from mrpcbench.cli import app

app(prog_name="mrpcbench")
