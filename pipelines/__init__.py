"""What a user runs: the commands, their options, and the assembly of graphs.

Importing this room changes nothing in the process; commands set theirs up in `process`.
"""
