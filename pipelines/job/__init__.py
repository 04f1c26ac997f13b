"""The parts of a job: its options, its plan, its runner, and what it tells people."""
