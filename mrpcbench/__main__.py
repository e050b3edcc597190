"""`python -m mrpcbench` is `mrpcbench`."""

from mrpcbench.cli.app import app

app(prog_name="mrpcbench")
