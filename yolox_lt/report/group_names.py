"""Names of the frequency groups."""

GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
