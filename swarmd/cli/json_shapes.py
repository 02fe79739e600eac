"""What each command prints with --json: one shape, of the API where it has one, else of the command's own module.

A test runs every command that has --json and reads what it prints as the type that stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from swarmd.api import adapters as adapter_shapes
from swarmd.api import (
    autopilot_shapes,
    credit_shapes,
    download_shapes,
    invite_shapes,
    provider_shapes,
    responses_shapes,
    shapes,
)
from swarmd.api import updates as update_shapes
from swarmd.cli.ask import Answer
from swarmd.cli.bench import Measured
from swarmd.cli.doctor import Line
from swarmd.cli.downloads import Got
from swarmd.cli.help_topics import ExitCodeRow
from swarmd.cli.memory import Loaded, Removed
from swarmd.cli.models import Fetched
from swarmd.cli.network import Status
from swarmd.cli.program import Versions
from swarmd.cli.providers import ProviderLine
from swarmd.cli.settings import SettingChanged, SettingLine

SHAPES: Final[Mapping[str, tuple[Any, ...]]] = {
    "ask": (Answer,),
    "responses": (responses_shapes.StoredList,),
    "responses show": (responses_shapes.ResponseOut,),
    "responses cancel": (responses_shapes.ResponseOut,),
    "responses rm": (responses_shapes.ResponseDeleted,),
    "status": (Status,),
    "bench": (Measured,),
    "models": (list[shapes.ModelRow],),
    "search": (list[download_shapes.HubRepoRow],),
    "get": (Got, Fetched),
    "downloads": (download_shapes.DownloadList,),
    "downloads pause": (download_shapes.DownloadChanged,),
    "downloads resume": (download_shapes.DownloadChanged,),
    "downloads cancel": (download_shapes.DownloadChanged,),
    "downloads move": (download_shapes.DownloadMoved,),
    "load": (Loaded,),
    "unload": (Loaded,),
    "rm": (Removed,),
    "model add": (shapes.ModelAdded,),
    "model list": (list[shapes.ModelRow],),
    "model fetch": (Fetched,),
    "model remove": (Removed,),
    "adapters list": (list[adapter_shapes.AdapterRow],),
    "adapters add": (adapter_shapes.AdapterRow,),
    "adapters rm": (adapter_shapes.AdapterGone,),
    "providers": (list[ProviderLine],),
    "providers set": (provider_shapes.ProvidersChanged,),
    "providers add": (provider_shapes.ProvidersChanged,),
    "providers remove": (provider_shapes.ProvidersChanged,),
    "providers key-source": (provider_shapes.ProvidersChanged,),
    "providers subscription": (provider_shapes.ProvidersChanged,),
    "autopilot": (autopilot_shapes.AutopilotPlan,),
    "lock": (autopilot_shapes.LockSet,),
    "unlock": (autopilot_shapes.LockSet,),
    "invite": (
        shapes.NetworkCodeView, invite_shapes.InviteMade, list[invite_shapes.InviteRow], invite_shapes.InviteRow,
    ),
    "join": (shapes.Joined,),
    "peers": (list[shapes.PeerRow], list[shapes.LinkRow]),
    "members": (list[shapes.MemberRow],),
    "revoke": (shapes.MemberRow,),
    "credits": (credit_shapes.CreditView, credit_shapes.CreditRows, list[credit_shapes.PeerCreditRow]),
    "config list": (list[SettingLine],),
    "config get": (SettingLine,),
    "config set": (SettingChanged,),
    "doctor": (list[Line],),
    "version": (Versions,),
    "update": (update_shapes.Version,),
    "update check": (update_shapes.UpToDate, update_shapes.UpdateFound),
    "update apply": (update_shapes.Applied,),
    "help": (list[ExitCodeRow],),
}  # fmt: skip
"""By the command's name; several where an option or an argument decides."""


def shape_name(shape: Any) -> str:
    """`list of ModelRow`, `Status`."""
    inner = getattr(shape, "__args__", None)
    return f"list of {inner[0].__name__}" if inner else shape.__name__
