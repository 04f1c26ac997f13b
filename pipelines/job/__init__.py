"""What a build consists of: its options, its plan, its runner, and what it tells people."""
