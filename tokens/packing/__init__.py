"""Document lengths to sequences of L tokens: plans, and tokens moved as planned."""
