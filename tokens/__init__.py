"""Text to token ids, and ids to sequences: functions on arrays, without Beam and without JAX."""
