"""The page of the T-maze: figures, numbers, and what they would have had to be otherwise."""

from typing import Any

import numpy as np

from vfe.gallery.discrete import tmaze as maze
from vfe.gallery.discrete.page import free_energy_section
from vfe.gallery.intervals import Interval, mean_of, share_of
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, RED, SKY, style

AT = (("centre", PALE), ("cue", ORANGE), ("junction", SKY), ("better arm", GREEN), ("other arm", RED))


def write_up(settings: maze.Settings, found: maze.Found) -> JobResult:
    """The result of the experiment: its page, its figures and its numbers.

    **Example:** `write_up(settings, find(settings, 0, Silent()))`.
    """
    figures = {"courses": draw_courses(found.lives), "worth": draw_worth(settings, found)}
    lives, difference = found.lives, better_by(found)
    headline = [
        ("cue first with information gain", share_of(lives[maze.POLICIES].cue_first).text(".1f") + " %"),
        ("cue first without", share_of(lives[maze.BLIND].cue_first).text(".1f") + " %"),
        ("first arm rewarded", _rewarded(lives[maze.POLICIES])),
        ("step of the first arm", _step(lives[maze.POLICIES])),
        (
            "readings, looking 2 steps ahead: float32, float64",
            " and ".join(f"{lives[name].readings.mean():.2f}" for name in (maze.SHORT, maze.SHORT_DOUBLE)),
        ),
        ("readings, tree of 2 steps", mean_of(lives[maze.SHORT_TREE].readings).text()),
        (
            "readings where little is at stake: policies, tree",
            " and ".join(f"{lives[name].readings.mean():.2f}" for name in (maze.LITTLE, maze.LITTLE_TREE)),
        ),
        ("two readings, added and in truth (nats)", f"{found.added[1]:.3f} and {found.joint[1]:.3f}"),
        ("tree collects more than policies by (nats)", difference.text()),
    ]
    return JobResult(
        model={"added": found.added, "joint": found.joint},
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, headline, difference),
        headline=headline,
        claims=claims(settings, found),
    )


def claims(settings: maze.Settings, found: maze.Found) -> list[Claim]:
    """What would have refuted it: agents that go to an arm unread, or to the cue with no wish to know.

    **Example:** `claims(settings, found)[0].holds`.
    """
    lives = found.lives
    seeking = lives[maze.POLICIES]
    validity = 100 * settings.cue_validity
    sd = 100 * np.sqrt(settings.cue_validity * (1 - settings.cue_validity) / settings.agents)
    return [
        Claim(
            "with information gain, the cue is read first", 100 * seeking.cue_first.mean(), 99.0, unit="%"
        ),
        Claim(
            "without, it is never read first", 100 * lives[maze.BLIND].cue_first.mean(), high=0.0, unit="%"
        ),
        Claim(
            "the first arm rewards as often as the cue is right, within 3 sd",
            100 * seeking.rewarded.mean() if len(seeking.rewarded) else np.nan,
            validity - 3 * sd,
            validity + 3 * sd,
            "%",
        ),
        Claim("the first arm is entered at step", seeking.first_arm.mean(), 4.0, 4.0),
        Claim(
            "looking 2 steps ahead, the cue is read again and again", lives[maze.SHORT].readings.mean(), 5.0
        ),
        Claim(
            "looking 3 steps ahead where little is at stake, a tree reads less often than policies, by",
            (lives[maze.LITTLE].readings - lives[maze.LITTLE_TREE].readings).mean(),
            0.5,
        ),
        Claim(
            "two readings, added, count more than they tell, by",
            found.added[1] - found.joint[1],
            0.1,
            unit="nats",
        ),
    ]


def better_by(found: maze.Found) -> Interval:
    """What the tree collects more than policies in the corridors, by pairs of lives with the same reward.

    **Example:** `better_by(found).value`.
    """
    return mean_of(found.lives[maze.TREE].utility - found.lives[maze.POLICIES].utility)


def _rewarded(life: maze.Life) -> str:
    return share_of(life.rewarded).text(".1f") + " %" if len(life.rewarded) else "—"


def _step(life: maze.Life) -> str:
    entered = life.first_arm[life.first_arm < maze.NEVER]
    return f"{entered.mean():.2f}" if len(entered) else "—"


def _dataset(found: maze.Found) -> Any:
    import xarray as xr

    lives = found.lives
    axes = ("life", "agent", "step")
    free = [np.asarray(life.history.percepts.free_energy.total) for life in lives.values()]
    levels = [
        np.stack([np.asarray(part) for part in life.history.percepts.free_energy.by_level.values()], -1)
        for life in lives.values()
    ]
    names = list(lives[maze.POLICIES].history.percepts.free_energy.by_level)
    return xr.Dataset(
        {
            "place": (axes, np.stack([life.place for life in lives.values()])),
            "outcome": (axes, np.stack([life.outcome for life in lives.values()])),
            "better_arm": (axes, np.stack([life.better for life in lives.values()])),
            "free_energy": (axes, np.stack(free), {"units": "nats"}),
            "free_energy_by_level": ((*axes, "level"), np.stack(levels), {"units": "nats"}),
            "utility": (axes[:2], np.stack([life.utility for life in lives.values()]), {"units": "nats"}),
            "readings": (axes[:2], np.stack([life.readings for life in lives.values()])),
            "added_information": ("reading", found.added, {"units": "nats"}),
            "joint_information": ("reading", found.joint, {"units": "nats"}),
        },
        coords={"life": list(lives), "level": names, "reading": np.arange(1, maze.READINGS + 1)},
    )


def draw_courses(lives: dict[str, maze.Life]) -> Any:
    """Where agents are, step by step, for every kind of life. **Example:** `draw_courses(found.lives)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(13.0, 6.0), layout="constrained")
        axes = figure.subplots(2, 5, sharex=True, sharey=True)
        for ax, (name, life) in zip(axes.ravel(), lives.items(), strict=True):
            arm = np.where(life.place == maze.LEFT, 0, 1) == life.better
            in_arm = (life.place == maze.LEFT) | (life.place == maze.RIGHT)
            where = np.stack(
                [
                    life.place == 0,
                    life.place == maze.CUE,
                    life.place == maze.JUNCTION,
                    in_arm & arm,
                    in_arm & ~arm,
                ]
            )
            base = np.zeros(where.shape[2])
            for (label, colour), there in zip(AT, 100 * where.mean(1), strict=True):
                steps = np.arange(len(base))
                ax.bar(steps, there, 0.92, base, color=colour, label=label, linewidth=0)
                base = base + there
            ax.set_title(name.replace("; ", ";\n"), fontsize=10)
            ax.grid(False)
        for ax in axes[-1]:
            ax.set_xlabel("step")
        for ax in axes[:, 0]:
            ax.set_ylabel("agents (%)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(AT))
    return figure


def draw_worth(settings: maze.Settings, found: maze.Found) -> Any:
    """What readings are worth, and what agents collect. **Example:** `draw_worth(settings, found)`."""
    from matplotlib.figure import Figure

    shown = (maze.POLICIES, maze.TREE, maze.SHORT, maze.SHORT_TREE, maze.BLIND)
    with style():
        figure = Figure(figsize=(11.0, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        count = np.arange(1, maze.READINGS + 1)
        left.plot(count, found.added, "o-", color=ORANGE, label="added step by step (policies)")
        left.plot(count, found.joint, "o-", color=BLUE, label="in truth (beliefs updated)")
        left.axhline(np.log(2), color=INK, linewidth=1, linestyle=":", label="all there is to know: ln 2")
        left.set(xlabel="readings of the cue", ylabel="information (nats)", ylim=(0, None), xticks=count)
        left.set_title("what readings are worth")
        left.legend(loc="upper left")
        for row, name in enumerate(shown):
            value, low, high = mean_of(found.lives[name].utility)
            right.plot([low, high], [row, row], color=BLUE, linewidth=3)
            right.plot(value, row, "o", color=BLUE)
        exact = maze.utilities(settings)
        for row, course in enumerate(("cue first", "straight")):
            label = "exactly, for its course" if row == 0 else None
            right.plot(exact[course], row, "|", color=INK, markersize=16, label=label)
        right.set_yticks(range(len(shown)), shown)
        right.invert_yaxis()
        right.set(xlabel=f"utility of {settings.steps} outcomes (nats per agent)")
        right.set_title("what agents collect where arms can be left")
        right.legend(loc="lower right")
    return figure


def _report(
    settings: maze.Settings,
    found: maze.Found,
    figures: dict[str, Any],
    headline: list[tuple[str, str]],
    difference: Interval,
) -> Report:
    lives, exact = found.lives, maze.utilities(settings)
    readings = {name: f"{life.readings.mean():.2f}" for name, life in lives.items()}
    gap = f"{exact['straight'] - exact['cue first']:.2f}".replace("-", "−")
    even = f"{maze.break_even(settings):.2f}".replace("-", "−")
    turn = "nowhere" if found.turn is None else f"at {found.turn:.2f}".replace("-", "−")
    tree_goes = "straight to an arm" if lives[maze.TREE].cue_first.mean() < 0.5 else "to the cue first"
    winner = "the tree" if difference.low > 0 else "policies" if difference.high < 0 else "neither, clearly"
    rows = [
        [
            name,
            share_of(life.cue_first).text(".1f"),
            f"{life.readings.mean():.2f}",
            f"{100 * np.mean(life.first_arm < maze.NEVER):.0f}",
            _rewarded(life).removesuffix(" %"),
            _step(life),
            mean_of(life.utility).text(),
        ]
        for name, life in lives.items()
    ]
    columns = [
        "lives",
        "cue first (%)",
        "readings",
        "in an arm (%)",
        "first arm rewarded (%)",
        "its step",
        "utility",
    ]
    return Report(
        "A cue before an arm",
        f"One of two arms is rewarded (log-preferences {settings.reward:g} and {settings.loss:g}), a cue "
        f"tells which with probability {settings.cue_validity:g}, and it lies the other way. Expected "
        "free energy sends agents to the cue first because knowing counts in it; utility alone does not "
        "move them. How often they read, and whether reading pays, depends on how they plan: by "
        "policies fixed in advance, whose gains of information are added step by step, or by a tree in "
        "which every outcome changes the "
        "belief from which the next step is planned.".replace("-3", "−3"),
        [
            Section(
                "Where agents are",
                f"{settings.agents} agents of each kind, {settings.steps} outcomes each. With "
                "information gain policies of three steps lead to the cue, then into the arm that it "
                "tells of. Where nothing but utility counts nobody moves: an arm entered unread is "
                "worth less than nothing. Looking two steps ahead agents do not see the arms from the "
                "cue: another reading is worth little, the way back nothing, and they sit there "
                "re-reading it. Only rounding ends this: in single precision they read "
                f"{readings[maze.SHORT]} times before a reading is worth no more than its error, in "
                f"double precision {readings[maze.SHORT_DOUBLE]} times, of {settings.steps - 1} "
                "possible. Updating beliefs does not help either: a tree of two steps reads "
                f"{readings[maze.SHORT_TREE]} times. What helps is to look further.\n\n"
                "At the same horizon of three steps the two ways to plan part where little is at stake "
                f"(reward {settings.small_reward:g}): policies read {readings[maze.LITTLE]} times, as "
                "they count three more readings three times over, the tree "
                f"{readings[maze.LITTLE_TREE]}. Had the tree re-read there as policies do, added "
                "information would not be what makes them read.",
                [
                    picture(
                        figures["courses"],
                        "The share of agents at each place, by step. They live in corridors whose arms "
                        "can be left, and in single precision, where the title says nothing else.",
                        "Ten panels of stacked bars by step: most kinds go to the cue and on to the "
                        "better arm; those of utility alone stay; those that look two steps ahead sit "
                        "at the cue.",
                    )
                ],
                Table(
                    columns,
                    rows,
                    "Readings: before the first arm. Its step: of those who entered one. Utility: Σ "
                    "C(reward outcome), nats per agent. In parentheses 95 % intervals (Wilson's for "
                    "shares).",
                ),
            ),
            Section(
                "What readings are worth, and what they bring",
                f"Added step by step two readings are worth {found.added[1]:.3f} nats, in truth "
                f"{found.joint[1]:.3f}: the second tells little that is new, and no number of them more "
                f"than ln 2 = {np.log(2):.3f}.\n\n"
                f"In corridors whose arms can be left the tree goes {tree_goes}: an arm tells more than "
                "the cue, and who is wrong turns round. This is no failure to explore. Over a life the "
                f"tree collects {difference.text()} nats per agent more than policies (pairs of lives "
                f"with the same arm rewarded): the better of the two is {winner}. Counted by hand the "
                f"difference is {gap} nats, whatever the length of the life, and going to an arm unread "
                f"pays as long as the loss is above {even}; a tree of five steps turns to the cue "
                f"{turn}. Where arms cannot be left, or where the cue is one step away, the tree reads "
                "it, once.\n\n"
                "What would have refuted this: agents with information gain that pass the cue, or "
                "agents without it that read it; a tree that collects less than policies do; a tree "
                "that turns at another loss than the one counted by hand.",
                [
                    picture(
                        figures["worth"],
                        "Left: information about the better arm in one to five readings. Right: mean "
                        "utility with 95 % intervals, and what the two courses are worth exactly.",
                        "Left: a straight line far above a curve that levels off at ln 2. Right: dots with "
                        "intervals, the tree of three steps highest.",
                    )
                ],
            ),
            free_energy_section(
                {name: life.history for name, life in lives.items()},
                "Perception is exact, so that F is −ln p of what was met: ln 2 for the first thing that "
                "tells of the arm, and what is left of the surprise in later ones. The place is known "
                "to who chose it: its level is zero. Least F have those who sit still, who also learn "
                "nothing.",
            ),
        ],
        headline=headline,
    )
