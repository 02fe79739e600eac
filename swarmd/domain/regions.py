"""Where nodes stand: a two-letter country, told from what its machine knows of itself. Nobody outside is asked.

An address looked up at some service would be more exact, and would tell that service where every node is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId

UNKNOWN: Final = "??"

_REGION: Final = re.compile(r"[A-Z0-9][A-Z0-9_-]{0,15}")  # a country; or a person's own word, short enough for a column
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}_([A-Z]{2})(?:[.@].*)?")  # de_DE.UTF-8@euro; `C` and `POSIX` name no country


def as_region(text: str) -> str:
    """What a person wrote or a node says, as one spelling; `??` where it is no region."""
    upper = text.strip().upper()
    return upper if _REGION.fullmatch(upper) else UNKNOWN


def region_of(*, setting: str, zone: str, zone_tables: tuple[str, ...], locale: str) -> str:
    """The setting, else the country of the time zone, else that of the locale, else `??`.

    The zone comes first: people set clocks right, while servers everywhere are installed as `en_US`. `zone` is an IANA
    name, empty where unknown; `zone_tables` are texts in the form of `zone.tab`, the first that knows the zone is believed.
    """
    if (chosen := as_region(setting)) != UNKNOWN:
        return chosen
    for table in zone_tables:
        if (country := _country_of_zone(zone, table)) is not None:
            return country
    match = _LOCALE.fullmatch(locale.strip())
    return match.group(1) if match else UNKNOWN


def _country_of_zone(zone: str, table: str) -> str | None:
    """Of several countries (`zone1970.tab` joins those whose clocks agree) the first, which has the most people there."""
    for line in table.splitlines():
        fields = line.split("\t")
        if zone and not line.startswith("#") and len(fields) >= 3 and fields[2] == zone:
            country = fields[0].split(",")[0]
            return country if _COUNTRY.fullmatch(country) else None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionView:
    """What one region has and needs."""

    nodes: int
    holders: Mapping[ModelId, int]
    """Nodes of the region with at least one shard."""
    demand: Mapping[ModelId, int]
    """Requests of the window of `economy.demand`, summed over the nodes of the region."""
    gaps: tuple[ModelId, ...]
    """Models that the swarm has and the region has not, sorted."""
    targets: Mapping[ModelId, int]
    """Holders wanted of the models that are here."""
