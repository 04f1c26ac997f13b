"""Package metadata; Dataflow workers install from it, so it lists every package they import."""

from pathlib import Path

from setuptools import find_packages, setup

# The rooms lie at the repository's root; installed, they are packages of one name, `shardstream`.
ROOMS = ("loaders", "pipelines", "shard_format", "sources", "tokens", "transforms")
PACKAGES = {
    "shardstream": "shardstream",
    **{
        f"shardstream.{package}": package.replace(".", "/")
        for package in find_packages(
            include=[f"{room}{rest}" for room in ROOMS for rest in ("", ".*")]
        )
    },
}

# The loader alone: what a trainer installs.
LOADER = ["numpy>=2.0", "jax>=0.7", "array-record>=0.8.3", "pyarrow>=19", "xxhash>=3.4"]
# What `loaders.stream` reads the Hub with.
HUB = [
    "datasets>=5.0",
    "filelock>=3.12",
    "transformers>=5.0",
    "tokenizers>=0.22",
    "gigatoken>=0.10",
    "awkward>=2.8",
    "filelock>=3.12",
    "fsspec[http]>=2024.6",
    "zstandard>=0.23",
]
PIPELINE = ["apache-beam>=2.77", *HUB, "tqdm>=4.66"]
# gs:// and s3://, for the loader as for the pipeline; without it both stay on local disks.
STORES = ["obstore>=0.10"]
# Tokenizers that come as a SentencePiece model alone, which transformers converts with these two.
# Later versions of sentencepiece are generated for protobuf 7, which Beam leaves out.
SENTENCEPIECE = ["sentencepiece>=0.2,<0.2.2", "protobuf>=4.25"]
TEST = [
    "pytest>=8",
    "grain>=0.2.18",
    "orbax-checkpoint>=0.11",
    *STORES,
    *SENTENCEPIECE,
    "lz4>=4.3",
    "psutil>=6",
    "moto[s3]>=5.1",  # s3:// on loopback; its own extra [server] drags in every service
    "flask>=3",
    "flask-cors>=5",
    "wheel>=0.43",  # Dataflow tests install the staged sdist without an index
]

setup(
    name="shardstream",
    version="0.1.0",
    description="Hugging Face streams to shuffled ArrayRecord shards on Beam, and a JAX loader.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={"shardstream": ["py.typed"]},  # the annotations are for users' type checkers too
    install_requires=LOADER,
    entry_points={
        "console_scripts": [
            "shardstream = shardstream.pipelines.command:main",
            "shardstream-worker = shardstream.pipelines.worker:main",
        ]
    },
    extras_require={
        "hub": HUB,
        "pipeline": PIPELINE,
        "stores": STORES,
        "sentencepiece": SENTENCEPIECE,
        "gcp": [*STORES, "apache-beam[gcp]>=2.77"],
        "aws": [*STORES, "boto3>=1.34"],  # boto3 for profiles in ~/.aws alone
        "test": TEST,
        # [nodejs]: pyright runs on Node, which comes from PyPI then and needs no other download.
        "dev": ["ruff>=0.14", "pyright[nodejs]>=1.1.400", "pre-commit>=4"],
        "bench": ["psutil>=6", "selectolax>=0.3.21"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
