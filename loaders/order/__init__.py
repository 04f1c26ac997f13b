"""Which record comes when: arithmetic on numbers, without files, threads or JAX."""
