# SPDX-License-Identifier: Apache-2.0
"""What comes after the end of a domain: the rule of `domzero run` and of Domain 0."""

from __future__ import annotations

import pytest

from domzero.abi.sched import ShutdownReason
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import QUICK_CRASHES_MAX, QUICK_S, DomainState, End, EndReason, Next, after_end

D, R, P = Action.DESTROY, Action.RESTART, Action.PRESERVE
LONG = QUICK_S * 10


def config(**actions: Action) -> DomainConfig:
    return DomainConfig(kernel="/k", **actions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "key", "default"),
    [
        (EndReason.POWEROFF, "on_poweroff", D),
        (EndReason.REBOOT, "on_reboot", R),
        (EndReason.CRASH, "on_crash", D),
        (EndReason.WATCHDOG, "on_watchdog", D),
        (EndReason.SOFT_RESET, "on_soft_reset", D),
    ],
)
def test_what_the_guest_did_is_followed_by_what_xl_cfg_says(reason: EndReason, key: str, default: Action) -> None:
    assert after_end(config(), End(reason), LONG) == Next(default)
    for action in (D, R, P):
        assert after_end(config(**{key: action}), End(reason), LONG) == Next(action)
    for action, then in ((Action.COREDUMP_DESTROY, D), (Action.COREDUMP_RESTART, R)):
        assert after_end(config(**{key: action}), End(reason), LONG) == Next(then, core=True)


@pytest.mark.parametrize("reason", [reason for reason in EndReason if reason not in (EndReason.SUSPEND,)][5:])
def test_all_other_ends_destroy_whatever_is_configured(reason: EndReason) -> None:
    always = config(on_poweroff=R, on_reboot=R, on_crash=R, on_watchdog=R, on_soft_reset=R)
    assert after_end(always, End(reason), LONG) == Next(D)


def test_a_domain_that_suspended_itself_is_kept() -> None:
    assert after_end(config(), End(EndReason.SUSPEND), 0.0) == Next(P)


@pytest.mark.parametrize("lived_s", [0.0, 0.25, -1.0])
def test_a_reboot_at_once_waits_for_the_rest_of_a_second_and_is_never_refused(lived_s: float) -> None:
    following = after_end(config(), End(EndReason.REBOOT), lived_s, quick_crashes=QUICK_CRASHES_MAX)
    assert following == Next(R, QUICK_S - max(lived_s, 0.0))


@pytest.mark.parametrize("reason", [EndReason.CRASH, EndReason.WATCHDOG])
def test_crashes_at_once_are_given_up_after_some_in_a_row(reason: EndReason) -> None:
    restart = config(on_crash=R, on_watchdog=R)
    quick = 0
    for expected in range(1, QUICK_CRASHES_MAX + 1):
        following = after_end(restart, End(reason), 0.5, quick)
        quick = following.quick_crashes
        assert (following.action, following.delay_s, quick) == (R, QUICK_S - 0.5, expected)
    given_up = after_end(restart, End(reason), 0.5, quick)
    assert given_up.action is D and "4 starts in a row" in given_up.note
    assert after_end(restart, End(reason), LONG, quick) == Next(R)  # a longer life begins a new count


def test_every_shutdown_code_of_xen_has_its_end_and_others_show_their_number() -> None:
    for known in ShutdownReason:
        assert End.of_shutdown(known).reason.value == known.name.removeprefix("SHUTDOWN_")
    assert End.of_shutdown(77).message == "unknown: shutdown reason 77"
    assert End.of_shutdown(3, ("it did", "more")).detail == ("it did", "more")
    assert End.of_shutdown(0, ("of an earlier crash",)).detail == ()


def test_every_end_has_a_status_words_and_a_state() -> None:
    statuses = {reason.value: reason.exit_status for reason in EndReason}
    assert statuses == {
        "poweroff": 0,
        "crash": 3,
        "reboot": 4,
        "suspend": 5,
        "watchdog": 6,
        "timeout": 124,
        "interrupted": 130,
        "terminated": 143,
        **dict.fromkeys(("soft_reset", "unknown", "destroyed", "failed", "closed"), 1),
    }
    assert len({reason.words for reason in EndReason}) == len(EndReason)
    states = {reason: End(reason).state for reason in EndReason}
    assert {r for r, s in states.items() if s is DomainState.CRASHED} == {
        EndReason.CRASH,
        EndReason.WATCHDOG,
        EndReason.FAILED,
    }
    assert all(state.is_end for state in states.values())
