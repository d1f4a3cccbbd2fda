"""`python -m birthplace_lm` trains, as birthplace-train does."""

from birthplace_lm.cli.train import main

main()
