"""What the server that workers are forked from imports; nothing else imports this module."""

from shardstream.transforms.lean_imports import leave_frameworks_out

leave_frameworks_out()

from shardstream.transforms.batch import worker  # noqa: E402, F401
