"""Which country a machine takes itself to be in."""

from __future__ import annotations

import pytest

from swarmd.domain.regions import UNKNOWN, as_region, region_of

ZONE_TAB = "# c\tx\tEurope/Rome\nDE\t+5230+01322\tEurope/Berlin\tmost of Germany\nNO\t+5955+01045\tEurope/Oslo\nbroken\n"
ZONE_1970 = "DE,DK,NO,SE,SJ\t+5230+01322\tEurope/Berlin\nCH,DE,LI\t+4723+00832\tEurope/Zurich\n1X\t+0+0\tOdd/Zone\n"


def region(*, setting: str = "", zone: str = "", locale: str = "", tables: tuple[str, ...] = (ZONE_TAB, ZONE_1970)) -> str:
    return region_of(setting=setting, zone=zone, zone_tables=tables, locale=locale)


def test_what_a_person_set_wins_and_is_upper_case() -> None:
    assert region(setting=" de ", zone="Europe/Oslo", locale="en_US.UTF-8") == "DE"
    assert region(setting="us-east", zone="Europe/Oslo") == "US-EAST"


def test_the_time_zone_is_believed_before_the_locale() -> None:
    assert region(zone="Europe/Oslo", locale="en_US.UTF-8") == "NO"


def test_a_zone_of_several_countries_gives_the_first() -> None:
    assert region(zone="Europe/Zurich") == "CH"
    assert region(zone="Europe/Oslo", tables=(ZONE_1970,)) == UNKNOWN, "an alias there, not a row"


@pytest.mark.parametrize("zone", ["", "Etc/UTC", "Europe/Rome", "Odd/Zone"])
def test_a_zone_without_a_country_leaves_it_to_the_locale(zone: str) -> None:
    assert region(zone=zone, locale="pt_BR.UTF-8") == "BR"
    assert region(zone=zone, locale="de_AT@euro") == "AT"


@pytest.mark.parametrize("locale", ["", "C", "C.UTF-8", "POSIX", "german", "es_419", "en_US\nx"])
def test_nothing_known_is_said_as_such(locale: str) -> None:
    assert region(locale=locale) == UNKNOWN


@pytest.mark.parametrize("text", ["", "a b", "x" * 17, "DE\n!", "-DE", "ß€", "??"])
def test_a_word_that_is_no_region_is_unknown(text: str) -> None:
    assert as_region(text) == UNKNOWN
