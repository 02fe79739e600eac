"""Files from Hugging Face, or from any hub of its protocol: found, probed, fetched by range and verified.

One engine for everybody: shards, whole files, plugins. It knows models' formats and nothing of shards' holders, so it lies
below `shards`, which decides what comes from here and what from peers. Bulk bytes go through aiohttp; everything else is
asked through `huggingface_hub`, which neither resumes nor verifies and is not made for bytes on an event loop.
"""
