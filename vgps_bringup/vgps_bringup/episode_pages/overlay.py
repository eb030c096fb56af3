"""Draw a decision beside the camera frame it was made for: every candidate's value, the chosen one, why."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vgps_bringup.episode_pages.facts import VALUE_BAND, refusal
from vgps_msgs_py.bags.reader import Step
from vgps_msgs_py.vocabulary import HEALTHY, SteeringReason, Verdict, words

HEIGHT, PANEL = 480, 440  # pixels of the video and of the panel on its right
INK, FAINT, BACK, LINE = (236, 239, 244), (146, 156, 173), (24, 28, 36), (52, 60, 74)
CHOSEN, OTHER, MEMBERS = (255, 176, 59), (86, 128, 184), (120, 148, 186)
GOOD, BAD, WARN = (92, 200, 132), (236, 98, 90), (255, 200, 80)
CONTROLS = (SteeringReason.CONTROL_FIRST, SteeringReason.CONTROL_RANDOM)
LONGEST = 400  # characters that are measured: no more fit into a line or two
OUTCOME_COLOURS = {'success': GOOD, 'failure': BAD, 'running': FAINT}


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib: the same picture on every machine."""
    import matplotlib
    folder = Path(matplotlib.get_data_path()) / 'fonts/ttf'
    return ImageFont.truetype(str(folder / f'DejaVuSans{"-Bold" if bold else ""}.ttf'), size)


class Shown(Protocol):
    """What of an episode is drawn: of an EpisodeRecord, or of one that still runs."""

    @property
    def instruction(self) -> str:
        """What the robot was told."""

    @property
    def steps(self) -> Sequence[Step]:
        """The steps so far."""

    @property
    def outcome(self) -> str:
        """An Outcome in words."""


@dataclass(frozen=True)
class Values:
    """What of an episode stays the same in all its frames."""

    values: np.ndarray     # (T,) value of the executed candidate per step, NaN where nothing was scored
    label: str             # e.g. 'steered' or the policy's name
    instruction: str
    last: int | None       # position of the last step, None while the episode is running

    @classmethod
    def of(cls, episode: Shown, label: str = '') -> 'Values':
        """Collect the value curve of an episode."""
        values = [step.decision.value if step.decision is not None else np.nan for step in episode.steps]
        policy = next((s.candidates.policy for s in episode.steps if s.candidates is not None), '')
        last = None if episode.outcome == 'running' else len(episode.steps) - 1
        return cls(np.asarray(values, float), ' · '.join(filter(None, (label, policy))), episode.instruction, last)


class Overlay:
    """Composes video frames; the panel is drawn once per step."""

    def __init__(self, episode: Shown, label: str = '', below: bool = False):
        self.shared = Values.of(episode, label)
        self.episode = episode
        self.below = below  # the panel under the camera image in place of beside it
        self._panels: dict[int | None, np.ndarray] = {}

    def frame(self, image: np.ndarray, position: int | None, outcome: str = '') -> np.ndarray:
        """Return a frame of even size: the camera image with the decision of ``episode.steps[position]``.

        Args:
            image: ``(H, W, 3) uint8`` RGB.
            position: index into the episode's steps; None before the first decision.
            outcome: drawn as a banner when given.

        """
        scale = PANEL / image.shape[1] if self.below else HEIGHT / image.shape[0]
        width, height = (round(n * scale / 2) * 2 for n in image.shape[1::-1])
        camera = cv2.resize(image, (width, height),
                            interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        if position not in self._panels:
            step = None if position is None else self.episode.steps[position]
            self._panels[position] = draw_panel(self.shared, step, position)
        if outcome:
            camera = _banner(camera, outcome)
        return (np.vstack if self.below else np.hstack)([camera, self._panels[position]])


def draw_panel(shared: Values, step: Step | None, position: int | None) -> np.ndarray:
    """Return the ``(HEIGHT, PANEL, 3) uint8`` panel of one step."""
    picture = Image.new('RGB', (PANEL, HEIGHT), BACK)
    draw = ImageDraw.Draw(picture)
    margin, right = 20, PANEL - 20
    y = 16
    for line in _wrap(draw, f'“{shared.instruction}”', font(17, bold=True), right - margin)[:2]:
        draw.text((margin, y), line, INK, font(17, bold=True))
        y += 23
    draw.text((margin, y + 2), _shorten(draw, shared.label, font(13), right - margin), FAINT, font(13))
    y += 34
    decision = step.decision if step is not None else None
    if decision is None:
        draw.text((margin, y), absence(step, position == shared.last), FAINT, font(15))
    else:
        name, colour = _reason(decision)
        draw.text((margin, y), f'step {step.index}', INK, font(22, bold=True))
        width = draw.textlength(name.upper(), font(13, bold=True))
        draw.rounded_rectangle((right - width - 20, y + 1, right, y + 26), 6, fill=colour)
        draw.text((right - width - 10, y + 6), name.upper(), BACK, font(13, bold=True))
        y += 34
        message = decision.message
        if decision.reason in CONTROLS and step.q_values is None:
            message = message.partition(';')[0]  # nobody asked for values: why there are none is no news
        draw.text((margin, y), _shorten(draw, message, font(12), right - margin), FAINT, font(12))
        y += 26
        _bars(draw, step, (margin, y, right, HEIGHT - (182 if refusal(step) else 158)))
        if why := refusal(step):  # known only afterwards: the live picture is drawn when the decision comes
            draw.rounded_rectangle((margin, HEIGHT - 172, right, HEIGHT - 148), 6, fill=BAD)
            draw.text(((margin + right) / 2, HEIGHT - 160), f'✕ NOT EXECUTED: {why}', BACK, font(13, bold=True),
                      anchor='mm')
        facts = f'chosen #{decision.chosen} of {decision.num_candidates}'
        if np.isfinite(decision.value):
            facts += f'   value {decision.value:.2f}   spread {decision.spread:.2f}'
            facts += f'   ESS {decision.effective_sample_size:.1f}'
        chance = getattr(decision, 'success_chance', np.nan)  # older recordings have none
        if np.isfinite(chance):
            facts += f'   success {chance:.0%}' + (' ALARM' if decision.alarm else '')
        draw.text((margin, HEIGHT - 142), facts, INK, font(13))
    _curve(draw, shared.values, position, (margin, HEIGHT - 106, right, HEIGHT - 22))
    return np.asarray(picture)


def absence(step: Step | None, final: bool) -> str:
    """Return what to say of a step without decision; ``final``: the last of a finished episode."""
    if step is None:
        return 'waiting for the first step'
    if final:  # judged while the policy was still sampling
        return f'step {step.index}: the episode ended before it was decided'
    return f'step {step.index}: no decision recorded'


def _bars(draw: ImageDraw.ImageDraw, step: Step, box: tuple[int, int, int, int]) -> None:
    """One bar per candidate: the ensemble minimum that decides; a thin line up to the largest member."""
    left, top, right, bottom = box
    q_values = step.q_values
    count = step.decision.num_candidates
    if q_values is None:
        draw.rectangle(box, outline=LINE)
        text = 'chosen without a critic' if step.decision.reason in CONTROLS else 'nothing was scored'
        draw.text(((left + right) / 2, (top + bottom) / 2), text, FAINT, font(14), anchor='mm')
        return
    low, high = float(q_values.min()), float(q_values.max())
    span = max(high - low, 1e-6)
    plot_left, plot_top = left + 52, top + 8
    draw.text((left, plot_top - 6), f'{high:.2f}', FAINT, font(11))
    draw.text((left, bottom - 14), f'{low:.2f}', FAINT, font(11))
    draw.text((left, (plot_top + bottom) / 2 - 8), 'Q', FAINT, font(14, bold=True))
    draw.line((plot_left, bottom, right, bottom), LINE)
    pitch = (right - plot_left) / count

    def y_of(value: float) -> float:
        return bottom - 4 - (value - low) / span * (bottom - plot_top - 8)

    _limits(draw, low, high, y_of, (plot_left, right, plot_top))
    gap = 0.18 * pitch if pitch > 4 else 0.0
    for i, (least, most) in enumerate(zip(q_values.min(axis=0), q_values.max(axis=0))):
        chosen = i == step.decision.chosen
        x0, x1 = plot_left + i * pitch + gap, plot_left + (i + 1) * pitch - gap
        draw.rectangle((x0, y_of(least), max(x1, x0 + 1), bottom), fill=CHOSEN if chosen else OTHER)
        middle = (x0 + x1) / 2
        draw.line((middle, y_of(most), middle, y_of(least)), INK if chosen else MEMBERS)
        if chosen:
            draw.polygon([(middle - 6, plot_top - 10), (middle + 6, plot_top - 10), (middle, plot_top - 1)], CHOSEN)


def _limits(draw: ImageDraw.ImageDraw, low: float, high: float, y_of, box: tuple[float, float, float]) -> None:
    """Draw where the range of a return ends, as far as it lies among the values, and say that some are beyond."""
    least, most = VALUE_BAND
    if least <= low and high <= most:
        return
    left, right, top = box
    for limit in VALUE_BAND:
        if low < limit < high:
            draw.line((left, y_of(limit), right, y_of(limit)), WARN)
    draw.text((right, top - 20), f'values outside −{-least:.0f} … {most:.0f}', WARN, font(11), anchor='ra')


def _curve(draw: ImageDraw.ImageDraw, values: np.ndarray, position: int | None, box: tuple[int, int, int, int]) -> None:
    """The value of the chosen candidate over the episode, up to now."""
    left, top, right, bottom = box
    draw.line((left, bottom, right, bottom), LINE)
    draw.text((left, top - 12), 'value of the chosen candidate over the episode', FAINT, font(11))
    finite = values[np.isfinite(values)]
    if position is None or len(finite) == 0:
        return
    low, span = float(finite.min()), max(float(np.ptp(finite)), 1e-6)
    scale = max(len(values) - 1, 1)
    points = [(left + i / scale * (right - left), bottom - 4 - (v - low) / span * (bottom - top - 14))
              for i, v in enumerate(values[:position + 1]) if np.isfinite(v)]
    if len(points) > 1:
        draw.line(points, CHOSEN, 2, joint='curve')
    if points:
        x, y = points[-1]
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), CHOSEN)


def _banner(image: np.ndarray, outcome: str) -> np.ndarray:
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, 'RGBA')
    draw.rectangle((0, image.shape[0] - 54, image.shape[1], image.shape[0]), (16, 18, 24, 215))
    size = 26 if len(outcome) < 20 else 14  # a warning is a sentence
    draw.text((image.shape[1] / 2, image.shape[0] - 27),
              _shorten(draw, outcome if size < 26 else outcome.upper(), font(size, bold=True), image.shape[1] - 16),
              OUTCOME_COLOURS.get(outcome, WARN), font(size, bold=True), anchor='mm')
    return np.asarray(picture)


def _reason(decision) -> tuple[str, tuple[int, int, int]]:
    if decision.verdict in (Verdict.OPERATOR, Verdict.RETREAT):
        return words(Verdict, decision.verdict), WARN
    if decision.chosen < 0:
        return f'hold: {words(SteeringReason, decision.reason)}', BAD
    colour = GOOD if decision.reason == SteeringReason.STEERED else FAINT if decision.reason in HEALTHY else WARN
    return words(SteeringReason, decision.reason), colour


def _wrap(draw: ImageDraw.ImageDraw, text: str, face, width: int) -> list[str]:
    lines = ['']
    for word in text[:LONGEST].split():
        longer = f'{lines[-1]} {word}'.strip()
        if draw.textlength(longer, face) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _shorten(draw: ImageDraw.ImageDraw, text: str, face, width: int) -> str:
    text = ' '.join(text[:LONGEST].split())    # an exception's message may have several lines
    if draw.textlength(text, face) <= width:
        return text
    while text and draw.textlength(text + '…', face) > width:
        text = text[:-1]
    return text + '…'
