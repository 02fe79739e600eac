"""New versions of swarmd itself: found in a signed feed, staged beside the running one, tried, and taken back when they
fail.

`feed` says which releases there are (pure), `releases` fetches the feed and its files, `staging` builds an environment for
one, `versions` is what is written on disk, `launcher` is the small process that starts versions and judges them, `updater`
is the service in the node that brings it all together. Publishes `UpdateAvailable`. Never runs or installs what no pinned
key signed.

Why a launcher and not an exec of the new version: whoever judges whether a version works must not be that version.
"""
