"""Where documents come from: any Hugging Face streaming dataset, pinned, split and read as Arrow.

Shared by the pipeline's readers and the loader's direct stream, so neither Beam nor JAX is
imported.
"""

from shardstream.sources import compressed, store_files

compressed.register()
store_files.register()  # before anything here opens a URL, in workers too
