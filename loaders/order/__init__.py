"""Which record comes when, by arithmetic on numbers, without files, threads or JAX."""
