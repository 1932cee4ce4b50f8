"""The `trnn` command: parse, call, print. What it does is in tinygrad_rnn; here is how it looks."""
