"""The built-in sample: drawn bicycles and motorcycles, so that the whole loop runs without a download.

Deterministic: the picture with number i under a seed is the same whatever else is drawn. Varied in pose, size, colours, background, light,
noise and occlusion; wheel size, tyres and riders overlap between the classes, and a dark machine on light ground is as likely as the
reverse, so that single pixels say little. A few pictures are hybrids (mopeds, electric bicycles) that the label cannot settle: a classifier
that is honest is unsure about them.
"""

from __future__ import annotations

import io
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SAMPLE_VERSION = 1
SAMPLE_IMAGES = 500
SAMPLE_SEED = 20240
SAMPLE_CLASSES = ("bicycle", "motorcycle")
IMAGE_SIDE = 64
_SUPERSAMPLING = 3
# One picture in 32 is a hybrid: enough for a demo to show doubt, few enough for an accuracy of 0.98.
_HYBRID_SHARE = 1 / 32
# Held-out pictures are drawn under numbers that no data set of this generator reaches.
_HELD_OUT = 1_000_000_000

_Colour = tuple[int, int, int]
_Point = tuple[float, float]


class Difficulty(StrEnum):
    """How much a drawn picture gives away about its class."""

    CLEAR = "clear"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class SamplePhoto:
    """A drawn picture: `name` (a file name), `label`, `difficulty`, and `image`, a PNG file's bytes (RGB, 64 x 64)."""

    name: str
    label: str
    difficulty: Difficulty
    image: bytes


def sample_photos(n: int = SAMPLE_IMAGES, seed: int = SAMPLE_SEED) -> Iterator[SamplePhoto]:
    """Yield `n` drawn pictures, the classes in turn. Equal (n, seed) give equal pictures; a larger n begins with the smaller one's."""
    for number in range(n):
        chance = _chance(seed, number)
        difficulty = Difficulty.AMBIGUOUS if chance.random() < _HYBRID_SHARE else Difficulty.CLEAR
        yield _photo(seed, number, SAMPLE_CLASSES[number % len(SAMPLE_CLASSES)], difficulty)


def held_out_photos(seed: int = SAMPLE_SEED) -> list[SamplePhoto]:
    """Three pictures that are in no sample data set, for a first classification: a clear one of each class, then an ambiguous one."""
    return [
        # Chosen among thirty drawings: with the default seed it stands out well from its background.
        _photo(seed, _HELD_OUT + 16, SAMPLE_CLASSES[0], Difficulty.CLEAR, plain=True),
        _photo(seed, _HELD_OUT + 1, SAMPLE_CLASSES[1], Difficulty.CLEAR, plain=True),
        _photo(seed, _HELD_OUT + 2, SAMPLE_CLASSES[1], Difficulty.AMBIGUOUS, plain=True),
    ]


def write_sample(
    directory: Path, n: int = SAMPLE_IMAGES, seed: int = SAMPLE_SEED, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write `n` pictures as `directory/<class>/<name>.png`, whole or not at all, and return the folder.

    A folder that exists is left as it is (it was written whole). `progress` is called with (pictures drawn, n).
    """
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for label in SAMPLE_CLASSES:
            (scratch / label).mkdir()
        for done, photo in enumerate(sample_photos(n, seed), start=1):
            (scratch / photo.label / photo.name).write_bytes(photo.image)
            if progress is not None:
                progress(done, n)
        scratch.chmod(0o755)
        try:
            scratch.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another process has drawn the same pictures meanwhile
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory


def _chance(seed: int, number: int) -> random.Random:
    return random.Random(f"{SAMPLE_VERSION}/{seed}/{number}")


def _photo(seed: int, number: int, label: str, difficulty: Difficulty, plain: bool = False) -> SamplePhoto:
    chance = _chance(seed, number)
    chance.random()
    if difficulty is Difficulty.AMBIGUOUS:
        motor = 0.5 if plain else chance.uniform(0.44, 0.56)
    elif plain:
        motor = float(SAMPLE_CLASSES.index(label))
    elif label == "bicycle":
        motor = chance.betavariate(1.2, 5) * 0.36
    else:
        motor = 1 - chance.betavariate(1.2, 5) * 0.36
    picture = _scene(chance, motor, plain)
    content = io.BytesIO()
    picture.save(content, "PNG")
    held_out = f"{label}.png" if difficulty is Difficulty.CLEAR else "hybrid.png"
    name = held_out if number >= _HELD_OUT else f"{label}-{number:05d}.png"
    return SamplePhoto(name, label, difficulty, content.getvalue())


def _scene(chance: random.Random, motor: float, plain: bool) -> Image.Image:
    """Draw one picture; `motor` goes from 0 (a bicycle) to 1 (a motorcycle); `plain` leaves out what hides or blurs."""
    side = IMAGE_SIDE * _SUPERSAMPLING
    dark_on_light = plain or chance.random() < 0.5
    canvas = _background(chance, side, light=dark_on_light, cluttered=not plain)
    machine = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    _machine(ImageDraw.Draw(machine), chance, side, motor, dark=dark_on_light, plain=plain)
    if chance.random() < 0.5:
        machine = machine.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    machine = machine.rotate(chance.gauss(0, 5), Image.Resampling.BILINEAR)
    canvas.paste(machine, (0, 0), machine)
    if not plain:
        _occlude(ImageDraw.Draw(canvas), chance, side)
    picture = canvas.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BOX)
    if not plain and chance.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(chance.uniform(0.3, 0.9)))
    return _noise(picture, chance, 4 if plain else chance.uniform(2, 22))


def _background(chance: random.Random, side: int, light: bool, cluttered: bool) -> Image.Image:
    """Sky or wall over ground, with clutter: patches, poles, a horizon."""

    def tone() -> _Colour:
        base = chance.uniform(135, 240) if light else chance.uniform(15, 105)
        return _shade(base, chance, 45)

    top, bottom = tone(), tone()
    ramp = Image.linear_gradient("L").resize((side, side))
    canvas = Image.composite(Image.new("RGB", (side, side), bottom), Image.new("RGB", (side, side), top), ramp)
    draw = ImageDraw.Draw(canvas)
    horizon = side * chance.uniform(0.35, 0.85)
    if chance.random() < 0.7:
        draw.rectangle((0, horizon, side, side), fill=tone())
    if not cluttered:
        return canvas
    for _ in range(chance.randint(0, 7)):
        x, y = chance.uniform(-0.2, 1) * side, chance.uniform(-0.2, 1) * side
        width, height = chance.uniform(0.05, 0.5) * side, chance.uniform(0.05, 0.5) * side
        shape = draw.ellipse if chance.random() < 0.4 else draw.rectangle
        shape((x, y, x + width, y + height), fill=tone())
    for _ in range(chance.randint(0, 4)):
        x = chance.uniform(0, 1) * side
        draw.line((x, 0, x + chance.gauss(0, 0.1) * side, side), fill=tone(), width=chance.randint(1, 6))
    return canvas.filter(ImageFilter.GaussianBlur(chance.uniform(0, 3)))


def _machine(draw: ImageDraw.ImageDraw, chance: random.Random, side: int, motor: float, dark: bool, plain: bool) -> None:
    """Two wheels and what joins them, facing right, in a transparent picture."""
    base = chance.uniform(10, 85) if dark else chance.uniform(165, 245)
    frame = _shade(base, chance, 70)
    rubber = _shade(chance.uniform(5, 60) if dark else chance.uniform(175, 235), chance, 15)
    metal = _shade(chance.uniform(60, 120) if dark else chance.uniform(130, 200), chance, 15)

    def mix(bicycle: float, motorcycle: float, spread: float = 0.0) -> float:
        """A measure in units of the picture's side: between the two classes' by `motor`, with spread that overlaps them."""
        return side * (bicycle + (motorcycle - bicycle) * motor) * math.exp(chance.gauss(0, spread))

    scale = 1.05 if plain else chance.uniform(0.62, 1.12)
    squeeze = 0.95 if plain else chance.uniform(0.7, 1.0)
    ox, oy = chance.gauss(0.5, 0.05) * side, chance.gauss(0.66, 0.05) * side

    def at(x: float, y: float) -> _Point:
        return ox + x * scale * squeeze, oy + y * scale

    radius = mix(0.175, 0.16, 0.09) * scale
    base_half = mix(0.25, 0.265, 0.06)
    tyre = max(1.0, mix(0.016, 0.062, 0.16) * scale)
    rear, front = at(-base_half, 0), at(base_half, 0)
    for centre in (rear, front):
        _wheel(
            draw,
            centre,
            radius,
            squeeze,
            tyre,
            rubber,
            metal,
            spokes=chance.randint(8, 14) if motor < 0.5 else chance.randint(4, 7),
            motor=motor,
        )

    tube = max(1, round(mix(0.017, 0.034, 0.15) * scale))
    head = at(base_half * 0.72, -mix(0.27, 0.235, 0.06))
    seat = at(-base_half * (0.42 - 0.12 * motor), -mix(0.27, 0.2, 0.06))
    crank = at(-base_half * 0.08, mix(0.01, -0.01))
    # Frame: the diamond of a bicycle, which fades into the cradle around an engine.
    for start, end in ((rear, crank), (crank, seat), (crank, head), (seat, head), (rear, seat)):
        draw.line((start, end), fill=frame, width=tube)
    draw.line((head, front), fill=metal if motor > 0.5 else frame, width=max(tube, round(mix(0.015, 0.035) * scale)))

    engine = max(0.0, (motor - 0.25) / 0.75)
    if engine > 0:
        width, height = 0.13 * side * scale * squeeze * (0.5 + 0.5 * engine), 0.1 * side * scale * (0.4 + 0.6 * engine)
        cx, cy = at(0.0, -0.06 * side)
        draw.rounded_rectangle((cx - width, cy - height, cx + width, cy + height * 0.9), radius=height * 0.3, fill=metal)
        for fin in range(3):
            y = cy - height * 0.6 + fin * height * 0.45
            draw.line((cx - width * 0.8, y, cx + width * 0.8, y), fill=rubber, width=max(1, round(height * 0.1)))
        # Tank and bench.
        hx, hy = head
        draw.ellipse((cx - width * 0.5, hy - height * 0.15, hx, hy + height * (0.5 + 0.5 * engine)), fill=frame)
        sx, sy = seat
        draw.rounded_rectangle(
            (sx - width * (0.4 + 0.9 * engine), sy - height * 0.25, cx, sy + height * 0.35), radius=height * 0.25, fill=rubber
        )
        if engine > 0.4:
            pipe = at(-base_half * 1.05, 0.02 * side)
            draw.line(((cx, cy + height * 0.8), pipe), fill=metal, width=max(1, round(0.035 * side * scale * engine)))
            light = 0.03 * side * scale
            draw.ellipse((hx, hy - light * 0.3, hx + light * 1.8, hy + light * 1.7), fill=_shade(225, chance, 25))
    if motor < 0.75:
        # Saddle on its post, pedals, chain wheel.
        sx, sy = seat
        half = mix(0.045, 0.09, 0.15) * scale
        draw.ellipse((sx - half, sy - half * 0.55, sx + half, sy + half * 0.25), fill=rubber)
        turn = chance.uniform(0, math.tau)
        reach = 0.07 * side * scale * (1 - motor)
        dx, dy = math.cos(turn) * reach, math.sin(turn) * reach
        draw.line((crank[0] - dx, crank[1] - dy, crank[0] + dx, crank[1] + dy), fill=metal, width=max(1, tube // 2 + 1))
        ring = 0.035 * side * scale
        draw.ellipse((crank[0] - ring, crank[1] - ring, crank[0] + ring, crank[1] + ring), outline=metal, width=max(1, tube // 2))
    # Handlebar: dropped, flat or high.
    hx, hy = head
    rise = chance.uniform(-0.02, 0.09) * side * scale
    bar = (hx - chance.uniform(-0.03, 0.07) * side * scale, hy - rise)
    draw.line((head, bar), fill=metal, width=max(1, tube))
    draw.line((bar, (bar[0] - 0.06 * side * scale * squeeze, bar[1] + 0.01 * side)), fill=rubber, width=max(2, tube))
    if not plain and chance.random() < 0.25:
        _rider(draw, chance, side * scale, seat, bar, crank)


def _wheel(
    draw: ImageDraw.ImageDraw,
    centre: _Point,
    radius: float,
    squeeze: float,
    tyre: float,
    rubber: _Colour,
    metal: _Colour,
    spokes: int,
    motor: float,
) -> None:
    x, y = centre
    rx = radius * squeeze
    draw.ellipse((x - rx, y - radius, x + rx, y + radius), outline=rubber, width=max(1, round(tyre)))
    inner = max(0.0, 1 - tyre / radius)
    for spoke in range(spokes):
        angle = math.pi * spoke / spokes
        dx, dy = math.cos(angle) * rx * inner, math.sin(angle) * radius * inner
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=metal, width=1 if motor < 0.5 else 2)
    hub = radius * (0.08 + 0.27 * motor)
    draw.ellipse((x - hub * squeeze, y - hub, x + hub * squeeze, y + hub), fill=metal)


def _rider(draw: ImageDraw.ImageDraw, chance: random.Random, unit: float, seat: _Point, bar: _Point, foot: _Point) -> None:
    cloth, trousers, head = (_shade(chance.uniform(20, 230), chance, 80) for _ in range(3))
    width = max(2, round(unit * 0.05))
    shoulder = ((seat[0] * 0.6 + bar[0] * 0.4), min(seat[1], bar[1]) - unit * 0.17)
    knee = ((seat[0] + bar[0]) / 2, (seat[1] + foot[1]) / 2)
    draw.line((seat, knee, foot), fill=trousers, width=width, joint="curve")
    draw.line((seat, shoulder), fill=cloth, width=round(width * 1.7))
    draw.line((shoulder, bar), fill=cloth, width=width)
    size = unit * 0.055
    draw.ellipse((shoulder[0] - size * 0.6, shoulder[1] - size * 2.2, shoulder[0] + size * 1.4, shoulder[1]), fill=head)


def _occlude(draw: ImageDraw.ImageDraw, chance: random.Random, side: int) -> None:
    """Now and then something stands in front: a post, a box, grass."""
    kind = chance.random()
    colour = _shade(chance.uniform(20, 230), chance, 60)
    if kind < 0.15:
        x, width = chance.uniform(0.1, 0.9) * side, chance.uniform(0.02, 0.07) * side
        draw.rectangle((x, 0, x + width, side), fill=colour)
    elif kind < 0.25:
        x, y, size = chance.uniform(0, 0.9) * side, chance.uniform(0.5, 0.9) * side, chance.uniform(0.1, 0.22) * side
        draw.rectangle((x, y, x + size, y + size), fill=colour)
    elif kind < 0.35:
        for _ in range(40):
            x = chance.uniform(0, side)
            draw.line((x, side, x + chance.gauss(0, 5), side * chance.uniform(0.75, 0.95)), fill=colour, width=2)


def _noise(picture: Image.Image, chance: random.Random, sigma: float) -> Image.Image:
    """Add grain with standard deviation `sigma` (8-bit levels), drawn from `chance` so that it repeats."""
    size = picture.size
    grain = Image.frombytes("L", size, chance.randbytes(size[0] * size[1]))
    coarse = Image.frombytes("L", (size[0] // 2, size[1] // 2), chance.randbytes(size[0] * size[1] // 4)).resize(size)
    # Uniform bytes have a standard deviation of 73.9; the difference of two independent ones, 1.41 times that.
    factor = sigma / 104
    lift = ImageChops.subtract(grain, coarse, scale=1, offset=0).point([round(level * factor) for level in range(256)])
    drop = ImageChops.subtract(coarse, grain, scale=1, offset=0).point([round(level * factor) for level in range(256)])
    return ImageChops.subtract(ImageChops.add(picture, Image.merge("RGB", (lift,) * 3)), Image.merge("RGB", (drop,) * 3))


def _shade(level: float, chance: random.Random, spread: float) -> _Colour:
    """A colour around a grey `level` (0-255), each channel within `spread`."""
    red, green, blue = (min(255, max(0, round(level + chance.uniform(-spread, spread)))) for _ in range(3))
    return red, green, blue
