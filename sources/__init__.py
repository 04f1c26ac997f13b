"""Where documents come from: any Hugging Face streaming dataset, pinned, split and read as Arrow.

Shared by the pipeline's readers and the loader's direct stream, so neither Beam nor JAX is
imported.
"""

from shardstream.sources.store_files import register

register()  # before anything here opens a URL, in workers too
