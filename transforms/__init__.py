"""The pipeline's steps, one verb a file: Beam wiring around functions on arrays. No JAX."""
