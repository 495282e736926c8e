"""`python -m api.cli`: the `hostmend` command where it is not installed."""

from api.cli.main import main

main()
