"""Which extra of the distribution brings a package that a command misses."""

# Packages by import name, with the extra that has them; a test holds them to setup.py.
_EXTRAS = {
    "apache_beam": "pipeline",
    "awkward": "pipeline",
    "datasets": "pipeline",
    "filelock": "pipeline",
    "fsspec": "pipeline",
    "gigatoken": "pipeline",
    "tokenizers": "pipeline",
    "tqdm": "pipeline",
    "transformers": "pipeline",
    "zstandard": "pipeline",
    "obstore": "stores",
}
_ALWAYS = ("array_record", "jax", "numpy", "pyarrow", "xxhash")


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Returns what to install for an import that failed, None where it is no dependency of ours."""
    name = (error.name or "").split(".", 1)[0]
    if "pip install" in str(error):  # what was raised says it itself
        return str(error)
    if name in _EXTRAS:
        return f"{name} is not installed: pip install 'shardstream[{_EXTRAS[name]}]'"
    if name in _ALWAYS:
        return f"{name} is not installed: pip install shardstream"
    return None
