"""Systems: each is one row of a results table, with its training stages and a `generate` function."""
