"""The contract on disk, shared by the pipeline that writes and the loader that reads.

NumPy, Arrow and ArrayRecord only: neither Beam nor JAX is imported from here.
"""
