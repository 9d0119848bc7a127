"""Systems: each a row of a results table, with its training stages and its `generate` function."""
