"""What a user runs: commands, their options, and the assembly of graphs."""

# First of all imports of a command: Arrow's allocator reads its settings when it is loaded, Beam
# and transformers chatter while they are imported.
from shardstream.pipelines.logs import hide_chatter
from shardstream.pipelines.memory import collect_rarely, keep_freed_memory, share_the_lock

keep_freed_memory()
collect_rarely()
share_the_lock()
hide_chatter()
