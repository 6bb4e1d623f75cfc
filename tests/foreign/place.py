"""Where it ran, for verify.py: check `location`, by word, geotag, clouds and landmarks (docs/location.md)."""
import itertools
import math
import pathlib
import re

import cloud
import pycddl
from authority import GEOTAG
from cose import Stranger, claims_of, opened, public_key
from forms import schema
from nv import public_of
from structures import sha256

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
RANGE = re.compile(r"-\d+\.\.\d+")  # pycddl has no ranges below zero
FORMATS = pathlib.Path(__file__).parents[2] / "docs/formats"
STATEMENT = pycddl.Schema("root = landmark-statement\n" + RANGE.sub("int", (FORMATS / "landmark.cddl").read_text()))
EVIDENCE = schema("location-evidence")
RADIUS_M, ALLOWANCE_M, STEP_M = 6_335_439.0, 20.0, 500.0
CONTAINED, OVERLAPS, OUTSIDE = "contained", "overlaps", "outside"


class Fault(Exception):
    def __init__(self, grade, why):
        super().__init__(why)
        self.grade = grade


# Geometry on the sphere of geodetic latitude and longitude, by samples.

def unit(latitude, longitude):
    a, b = math.radians(latitude), math.radians(longitude)
    return math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)


def dot(one, other):
    return sum(a * b for a, b in zip(one, other))


def cross(one, other):
    (a, b, c), (x, y, z) = one, other
    return b * z - c * y, c * x - a * z, a * y - b * x


def angle(one, other):
    return math.atan2(math.sqrt(dot(cross(one, other), cross(one, other))), dot(one, other))


def border(ring):
    """Points along a ring that is straight in longitude and latitude, with what may lie between two of them."""
    points = []
    for (lat, lon), (to_lat, to_lon) in zip(ring, ring[1:] + ring[:1]):
        count = max(1, math.ceil(math.hypot(to_lat - lat, to_lon - lon) * 111_320 / STEP_M))
        points += [unit(lat + (to_lat - lat) * i / count, lon + (to_lon - lon) * i / count) for i in range(count)]
    return points


def around(ring, point):
    """Whether a ring goes around a point: the turns that its bearing makes, added up."""
    east = cross((0.0, 0.0, 1.0), point)
    north = cross(point, east)
    bearings = [math.atan2(dot(one, east), dot(one, north)) for one in ring]
    steps = ((b - a + math.pi) % math.tau - math.pi for a, b in zip(bearings, bearings[1:] + bearings[:1]))
    return abs(sum(steps)) > math.pi


def in_common(discs):
    """A point that is in every disc, or None: a centre, or where two edges cross."""
    candidates = [centre for centre, _ in discs]
    for (one, r), (other, s) in itertools.combinations(discs, 2):
        up, far = cross(one, other), angle(one, other)
        if not abs(r - s) <= far <= r + s or far == 0:
            continue
        a = (math.cos(r) - math.cos(s) * math.cos(far)) / math.sin(far) ** 2
        b = (math.cos(s) - math.cos(r) * math.cos(far)) / math.sin(far) ** 2
        foot = [a * x + b * y for x, y in zip(one, other)]
        height = math.sqrt(max(0.0, 1 - dot(foot, foot))) / math.sin(far)
        candidates += [tuple(x + sign * height * y for x, y in zip(foot, up)) for sign in (1, -1)]
    return next((at for at in candidates if all(angle(at, c) <= r + 1e-9 for c, r in discs)), None)


def lies(area, discs):
    """How the discs' common part lies to the area; None where there is no common part."""
    inside = in_common(discs)
    if inside is None:
        return None
    slack = STEP_M / 2 / RADIUS_M
    if any(all(angle(at, c) <= r + slack for c, r in discs) for at in area):
        return OVERLAPS
    return CONTAINED if around(area, inside) else OUTSIDE


# Trust.

def read(policy, folder, usage):
    table, marks = policy.get("location", {}), []
    unknown = set(table) - {"area", "name", "min_landmarks", "max_age_s"}
    if unknown or not isinstance(table.get("area", []), list):
        raise usage(f"keys, or an area in a file, in [location]: {sorted(unknown)}")
    for one in policy.get("landmark", ()):
        unknown = set(one) - {"name", "key", "latitude", "longitude", "operator", "independent"}
        if unknown or not one["key"].startswith("ed25519:"):
            raise usage(f"keys, or a key in a file, in [[landmark]]: {sorted(unknown)}")
        marks.append({"key": public_key(one["key"]), "at": (float(one["latitude"]), float(one["longitude"])),
                      "operator": one.get("operator", one["name"]), "independent": one.get("independent", True)})
    return {"area": border(table["area"]) if "area" in table else None, "marks": marks,
            "least": table.get("min_landmarks", 3), "max_age_s": table.get("max_age_s", 3600), "clouds": cloud.read(policy, folder, usage)}


# Evidence.

def rounds(bundle, sessions, faults):
    """Each piece of evidence with its session and the epoch that sealed it."""
    shown = {sha256(one): one for one in bundle.get(11, ())}
    unused, found = set(shown), []
    for session in sessions:
        for epoch in session["epochs"]:
            digest = epoch["statement"].get(22)
            if digest not in shown:
                continue
            unused.discard(digest)
            try:
                evidence = claims_of(shown[digest], EVIDENCE)
            except ValueError as error:
                faults.append((UNTRUSTED, str(error)))
                continue
            if evidence[1] != session["statement"][2]:
                faults.append((UNTRUSTED, "evidence of another session"))
                continue
            found.append((evidence, session["statement"], epoch["statement"]))
    faults += [(UNTRUSTED, "evidence that nothing sealed")] * len(unused)
    return found


def measurement(message, own, epoch, trust, leeway):
    """The landmark and its statement; Stranger for one that nobody pinned."""
    try:
        place, payload = opened(message, "landmark", [mark["key"] for mark in trust["marks"]])
        said = claims_of(payload, STATEMENT)
    except Stranger:
        raise
    except ValueError as error:
        raise Fault(UNTRUSTED, str(error)) from error
    mark = trust["marks"][place]
    if abs(said[9]) > 900_000_000 or abs(said[10]) > 1_800_000_000:
        raise Fault(UNTRUSTED, "no place on earth")
    if (said[1], said[2]) != (own[2], own[5]):
        raise Fault(UNTRUSTED, "of another session or key")
    if said[6] == 0 or said[5] == 0 or said[5] > said[4] or said[8] < said[7]:
        raise Fault(UNTRUSTED, "no measurement")
    if said[7] < max(0, epoch[5] - leeway) or said[8] > epoch[6] + leeway:
        raise Fault(FAILED, "of another time")
    moved = (abs(round(degrees * 1e7) - own) for degrees, own in zip(mark["at"], (said[9], said[10])))
    if any(far > 100_000 for far in moved):
        raise Fault(FAILED, "the landmark says that it stands elsewhere")
    return mark, said


def stale(bundle, sessions, shown, limit):
    """A stretch of the period without a round in the area, or a session without any."""
    over = False
    for session in sessions:
        closed = [epoch["statement"][6] for epoch in session["epochs"]]
        if not closed:
            continue
        at = session["statement"][4]
        end = max(closed + [at])
        inside = [ms for ms in sorted(shown) if at <= ms <= end]
        over |= not inside and end > bundle[2] and at < bundle[3]
        for ms in [*inside, end]:
            over |= ms > bundle[2] and at < bundle[3] and ms - at > 1000 * limit
            at = ms
    return over


def measured(bundle, sessions, found, trust, leeway, faults):
    """Whether landmarks prove the place, and the grade where what they have does not do."""
    shown, short, any_measured = [], False, False
    refused = []
    for evidence, own, epoch in found:
        discs, operators, sound = [], set(), True
        for message in evidence[2]:
            try:
                mark, said = measurement(message, own, epoch, trust, leeway)
            except Stranger:
                continue
            except Fault as fault:
                refused.append((fault.grade, str(fault)))
                sound = False
                continue
            any_measured = True
            if mark["independent"]:
                radius = (-(-said[6] * 15 // 100) + ALLOWANCE_M) / RADIUS_M
                operators.add(mark["operator"])
                discs.append((unit(*mark["at"]), radius))
        if not sound or not discs or trust["area"] is None:
            continue
        discs = [disc for disc in discs if disc[1] < math.pi / 2 - 1e-3]
        where = lies(trust["area"], discs) if discs else OVERLAPS
        if where is None:
            refused.append((UNTRUSTED, "no place is near enough to all of them"))
        elif where == OUTSIDE:
            refused.append((FAILED, "outside the area"))
        elif where == CONTAINED and len(operators) >= trust["least"]:
            shown.append(epoch[6])
        else:
            short = True
    faults += refused
    if not any_measured or trust["area"] is None:
        return False, INDETERMINATE
    return not stale(bundle, sessions, shown, trust["max_age_s"]), FAILED


def tag(sessions, vouched, faults):
    """The site of a geotag that every session shows; None where nobody vouches for one."""
    wanted = [claims[13] for claims, _ in vouched if 13 in claims]
    if not wanted:
        return None
    try:
        if any(one != wanted[0] for one in wanted):
            raise ValueError("two geotags")
        site = claims_of(wanted[0][2], GEOTAG)[1]
        for session in sessions:
            held, contents = session["statement"].get(23), session["nv_start"].get("geotag")
            if held is None or contents is None:
                raise ValueError("no geotag")
            _, attributes, policy, _ = public_of(held[1])
            locked = 1 << 29 | 1 << 11 | 1 << 13
            if attributes & locked != locked or attributes & (1 << 27 | 1 << 26 | 0xF0) or policy:
                raise ValueError("not locked for good")
            if (held[0], b"\x00\x0b" + sha256(held[1]), contents) != (wanted[0][0], wanted[0][1], wanted[0][2]):
                raise ValueError("another geotag")
            own = session["statement"].get(19, {})
            if any(own[key] != site[key] for key in own.keys() & site.keys()):
                raise ValueError("the operator says otherwise")
    except ValueError as error:
        faults.append((FAILED, str(error)))
        return None
    return site


def check(bundle, sessions, vouched, require, tally):
    trust, faults = require["place"], []
    leeway, found = 1000 * require["max_clock_step_s"], rounds(bundle, sessions, faults)
    signed = cloud.shown(found, sessions, trust["clouds"], leeway, faults)
    proven, grade = measured(bundle, sessions, found, trust, leeway, faults)
    site = tag(sessions, vouched, faults)
    for one in faults:
        tally.note(one[0], "location", one[1])
    if faults:
        return
    sites = [session["statement"].get(19, {}) for session in sessions]
    for what, key in (("country", 1), ("region", 0)):
        if require[what] is None:
            continue
        if any(one[key] not in require[what] for one in [*sites, site or {}] if key in one):
            return tally.note(FAILED, "location", f"another {what}")
        if any(key not in one for one in sites) and key not in (site or {}):
            return tally.note(INDETERMINATE, "location", f"no {what}")
    reached = 3 if proven else 2 if signed else 0 if site is None else 1
    want = int(require["location_level"][1])
    if reached < want:
        tally.note(grade if want == 3 else INDETERMINATE, "location", f"L{reached}")
