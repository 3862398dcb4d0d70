"""Draws a posed body as shapes: clothes, skin, hair and face, sorted by nearness."""

from __future__ import annotations

import numpy as np

from attnpool.playground import body as b
from attnpool.playground.body import Body, View
from attnpool.playground.draw import Shape, capsule, chain, placed, polygon, tint
from attnpool.playground.looks import Wardrobe
from attnpool.playground.raster import Array, Color, Pattern


class Drawing:
    """Collects the shapes of one person. Lengths are in body units, shapes in pixels."""

    def __init__(self, body: Body, view: View, wear: Wardrobe) -> None:
        self.body, self.view, self.wear = body, view, wear
        self.shapes: list[Shape] = []
        self.s, self.g = view.scale, wear.build.girth
        self.p = view.project(body.joints)

    def add(self, shape: Shape, depth: float, part: str) -> None:
        self.shapes.append(placed(shape, depth, part))

    def limb(self, a: Array, c: Array, ra: float, rc: float, color: Color, part: str, bias: float = 0.0) -> None:
        """A capsule between two projected points."""
        depth = float(a[2] + c[2]) / 2 + bias
        self.add(capsule(a[:2], c[:2], ra * self.s, rc * self.s, color), depth, part)

    def legs(self) -> None:
        wear, g = self.wear, self.g
        forward = self.view.direction(np.array([0.0, -0.012, 0.085]))
        for hip, knee, ankle, side in (
            (b.RIGHT_HIP, b.RIGHT_KNEE, b.RIGHT_ANKLE, "right"),
            (b.LEFT_HIP, b.LEFT_KNEE, b.LEFT_ANKLE, "left"),
        ):
            a, k, f = self.p[hip], self.p[knee], self.p[ankle]
            # Legs are behind the clothes of the torso; only their order among themselves follows the nearness.
            near = float(np.clip((a[2] + k[2] + f[2]) / 3, -0.2, 0.2)) * 0.1 - 0.022
            shin = wear.bottom if wear.legs == "long" else wear.skin
            wide = 1.12 if wear.legs == "long" else 0.95
            thigh = wear.skin if wear.legs == "skirt" else wear.bottom
            heel = np.array([f[0], f[1] + 0.016 * self.s, f[2]])
            toe = heel + np.array([forward[0] * self.s, forward[1] * self.s, forward[2]])
            down = np.array([0.0, self.s])
            sole = chain([heel[:2] + down * 0.017, toe[:2] + down * 0.009], 0.008 * self.s, tint(wear.shoes, 0.5))
            self.add(sole, near - 0.0004, f"{side}_foot")
            self.limb(heel, toe, 0.026, 0.020, wear.shoes, f"{side}_foot")
            self.shapes[-1].depth = near - 0.0003
            self.add(
                capsule(k[:2], f[:2], 0.037 * g * wide * self.s, 0.023 * wide * g * self.s, shin),
                near - 0.0002,
                f"{side}_shin",
            )
            if wear.legs == "short":
                cut = a + (k - a) * 0.8
                self.add(
                    capsule(a[:2], k[:2], 0.050 * g * self.s, 0.036 * g * self.s, wear.skin),
                    near - 0.0001,
                    f"{side}_thigh",
                )
                self.add(capsule(a[:2], cut[:2], 0.058 * g * self.s, 0.050 * g * self.s, thigh), near, f"{side}_thigh")
            else:
                self.add(
                    capsule(a[:2], k[:2], 0.057 * g * self.s, 0.040 * g * wide * self.s, thigh), near, f"{side}_thigh"
                )

    def trunk(self) -> None:
        wear, s, g = self.wear, self.s, self.g
        pelvis, thorax = self.p[b.PELVIS], self.p[b.THORAX]
        rs, ls, rh, lh = self.p[b.RIGHT_SHOULDER], self.p[b.LEFT_SHOULDER], self.p[b.RIGHT_HIP], self.p[b.LEFT_HIP]
        hips = np.array([[rh[:2], lh[:2]], [pelvis[:2], pelvis[:2] + (thorax - pelvis)[:2] * 0.25]], np.float32)
        radii = np.array([[0.056, 0.056], [0.064, 0.062]], np.float32) * s * g
        self.add(Shape(hips, radii, wear.bottom, bulge=0.06 * s, smooth=0.03 * s, contrast=0.6), -0.06, "hips")
        if wear.legs == "skirt":
            self._skirt(pelvis, rh, lh)
        chest = thorax + (pelvis - thorax) * 0.28
        waist = pelvis + (thorax - pelvis) * 0.26
        mid = (chest[:2] + waist[:2]) / 2
        inner = 0.72
        seg = np.array([
            [rs[:2] * inner + chest[:2] * (1 - inner), ls[:2] * inner + chest[:2] * (1 - inner)],
            [rs[:2], ls[:2]], [chest[:2], waist[:2]],
            [waist[:2] * 0.7 + rh[:2] * 0.3, waist[:2] * 0.7 + lh[:2] * 0.3],
        ], np.float32)  # fmt: skip
        radii = np.array([[0.052, 0.052], [0.037, 0.037], [0.074, 0.064], [0.056, 0.056]], np.float32) * s
        radii[2:] *= g
        pattern = None
        if wear.pattern in ("stripes", "checks", "dots"):
            turn = float(np.arctan2(thorax[0] - pelvis[0], pelvis[1] - thorax[1]))
            period = max({"stripes": 0.05, "checks": 0.06, "dots": 0.05}[wear.pattern] * s, 3.0)
            pattern = Pattern(wear.pattern, wear.second, period, turn, (float(chest[0]), float(chest[1])))
        self.limb(self.p[b.UPPER_NECK], thorax, 0.030 * min(g, 1.1), 0.034, tint(wear.skin, 0.88), "neck", 0.0)
        self.shapes[-1].depth = 0.008
        self.add(Shape(seg, radii, wear.top, bulge=0.085 * s, smooth=0.05 * s, pattern=pattern), 0.01, "torso")
        if wear.pattern == "crest" and self.facing() > 0:
            front = self.view.project((self.body.anchors["chest"] + self.body.chest_axes[2] * 0.03)[None])[0]
            self.add(capsule(mid * 0.2 + front[:2] * 0.8, front[:2], 0.03 * s, 0.03 * s, wear.second), 0.0101, "torso")
        collar = thorax + (self.p[b.UPPER_NECK] - thorax) * 0.25
        self.add(capsule(collar[:2], thorax[:2], 0.028 * s, 0.034 * s, tint(wear.skin, 0.92)), 0.0102, "neck")

    def _skirt(self, pelvis: Array, rh: Array, lh: Array) -> None:
        s = self.s
        rk, lk = self.p[b.RIGHT_KNEE], self.p[b.LEFT_KNEE]
        left, right = sorted((rk[:2], lk[:2]), key=lambda knee: float(knee[0]))
        hem_l, hem_r = pelvis[:2] + (left - pelvis[:2]) * 0.85, pelvis[:2] + (right - pelvis[:2]) * 0.85
        aside, rise = np.array([0.075 * s * self.g, 0.0]), np.array([0.0, 0.03 * s])
        corners = [
            pelvis[:2] - aside - rise,
            pelvis[:2] + aside - rise,
            hem_r + aside,
            hem_l - aside,
        ]
        self.add(polygon(corners, self.wear.bottom, 0.015 * s, bulge=0.09 * s), 0.009, "hips")

    def arms(self) -> None:
        wear, g, s = self.wear, self.g, self.s
        grips = self.view.project(self.body.grips)
        right = (b.RIGHT_SHOULDER, b.RIGHT_ELBOW, b.RIGHT_WRIST, "right", grips[0])
        left = (b.LEFT_SHOULDER, b.LEFT_ELBOW, b.LEFT_WRIST, "left", grips[1])
        for shoulder, elbow, wrist, side, grip in (right, left):
            a, e, w = self.p[shoulder], self.p[elbow], self.p[wrist]
            long = wear.sleeves == "long"
            # An arm beside the torso is nearer than the torso unless it is clearly on the far side.
            upper = 0.016 if (a[2] + e[2]) / 2 > -0.055 else -0.02
            lower = 0.05 if (e[2] + w[2]) / 2 > -0.055 else -0.015
            cloth = wear.top
            if long:
                self.add(capsule(a[:2], e[:2], 0.038 * g * s, 0.031 * g * s, cloth), upper, f"{side}_upper_arm")
                self.add(
                    capsule(e[:2], w[:2], 0.031 * g * s, 0.024 * g * s, tint(cloth, 0.98)), lower, f"{side}_forearm"
                )
            else:
                cut = a + (e - a) * 0.62
                self.add(
                    capsule(a[:2], e[:2], 0.031 * g * s, 0.026 * g * s, wear.skin), upper - 0.001, f"{side}_upper_arm"
                )
                self.add(capsule(a[:2], cut[:2], 0.039 * g * s, 0.037 * g * s, cloth), upper, f"{side}_upper_arm")
                self.add(capsule(e[:2], w[:2], 0.026 * g * s, 0.019 * g * s, wear.skin), lower, f"{side}_forearm")
            self.limb(w, grip, 0.019, 0.024, wear.skin, f"{side}_hand")
            self.shapes[-1].depth = lower + 0.004

    def facing(self) -> float:
        """How much the head faces the viewer: 1 straight on, 0 in profile, negative from behind."""
        return float(self.view.direction(self.body.head_axes[2])[2])

    def head(self) -> None:
        wear, size = self.wear, self.wear.build.head
        s = self.s * size
        axes, view = self.body.head_axes, self.view
        centre = view.project(self.body.head[None])[0]
        side, up, forward = (view.direction(axis) for axis in axes)

        def at(x: float, y: float, z: float) -> Array:
            point = centre.copy()
            point[:2] += (side * x + up * y + forward * z)[:2] * s
            point[2] += float(side[2] * x + up[2] * y + forward[2] * z) * size
            return point

        base, facing = 0.03, self.facing()
        skull, jaw, brow = at(0, 0.014, -0.006), at(0, -0.034, 0.016), at(0, 0.012, 0.010)
        hair = wear.hair
        if wear.style in ("long", "bun") or (wear.style == "cap" and wear.second[0] > 0.6):
            low = -0.10 if wear.style == "long" else -0.03
            tail = at(0, low, -0.035)
            # Seen from the front, long hair falls behind the neck and the shoulders.
            back = (-0.004 if facing > 0.35 else base - 0.012) if facing > -0.1 else base + 0.01
            self.add(capsule(at(0, 0.016, -0.012)[:2], tail[:2], 0.064 * s, 0.054 * s, tint(hair, 0.85)), back, "head")
        if wear.style == "bun":
            self.add(
                capsule(at(0, 0.075, -0.03)[:2], at(0, 0.075, -0.03)[:2], 0.026 * s, 0.026 * s, hair),
                base - 0.011,
                "head",
            )
        self.add(capsule(skull[:2], jaw[:2], 0.056 * s, 0.040 * s, wear.skin, bulge=0.05 * s), base, "head")
        if wear.style != "bald":
            lift = 0.034 if facing > 0 else 0.012
            cap = at(0, lift, -0.022 if facing > 0 else -0.012)
            radius = 0.058 if wear.style != "curly" else 0.070
            tone = wear.second if wear.style == "cap" else hair
            self.add(capsule(cap[:2], at(0, 0.018, -0.03)[:2], radius * s, 0.052 * s, tone), base + 0.001, "head")
            if wear.style == "curly":
                turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
                curls = [cap[:2] + 0.055 * s * np.array([np.cos(t), np.sin(t) * 0.8 - 0.15]) for t in turn]
                for curl in curls:
                    self.add(capsule(curl, curl, 0.022 * s, 0.022 * s, hair), base + 0.0005, "head")
        if facing < -0.15:
            return
        face = [brow[:2], jaw[:2]]
        wide = 0.046 if facing > 0.5 else 0.042
        self.add(
            capsule(face[0], face[1], wide * s, 0.036 * s, wear.skin, bulge=0.06 * s, contrast=0.6),
            base + 0.002,
            "head",
        )
        if wear.style == "cap":
            peak = [at(-0.03, 0.046, 0.045)[:2], at(0, 0.044, 0.085)[:2], at(0.03, 0.046, 0.045)[:2]]
            self.add(chain(peak, 0.010 * s, tint(wear.second, 0.8)), base + 0.004, "head")
        self._features(at, base + 0.003)

    def _features(self, at: object, depth: float) -> None:
        assert callable(at)
        s, skin = self.s * self.wear.build.head, self.wear.skin
        level = at(0, 0, 0)[2]
        if self.wear.beard:
            ends = [at(-0.030, -0.040, 0.036)[:2], at(0, -0.058, 0.046)[:2], at(0.030, -0.040, 0.036)[:2]]
            self.add(chain(ends, 0.014 * s, self.wear.hair, smooth=0.01 * s), depth, "head")
        for x in (-0.022, 0.022):
            eye, lid = at(x, 0.006, 0.048), at(x, 0.022, 0.050)
            if eye[2] - level < 0.008:
                continue
            self.add(capsule(eye[:2], eye[:2], 0.0085 * s, 0.0085 * s, (0.96, 0.95, 0.94)), depth + 0.0001, "head")
            pupil = at(x, 0.005, 0.052)
            self.add(capsule(pupil[:2], pupil[:2], 0.0052 * s, 0.0052 * s, (0.12, 0.09, 0.08)), depth + 0.0002, "head")
            ends = [at(x - 0.010, 0.021, 0.05)[:2], lid[:2], at(x + 0.010, 0.021, 0.05)[:2]]
            self.add(chain(ends, 0.0032 * s, tint(self.wear.hair, 0.8)), depth + 0.0002, "head")
        for x in (-0.056, 0.056):
            ear = at(x, -0.006, -0.006)
            if ear[2] - level > -0.012:
                self.add(
                    capsule(ear[:2], at(x, -0.014, -0.004)[:2], 0.013 * s, 0.010 * s, tint(skin, 0.94)),
                    depth - 0.0003,
                    "head",
                )
        nose = [at(0, 0.002, 0.056)[:2], at(0, -0.014, 0.062)[:2]]
        self.add(capsule(nose[0], nose[1], 0.005 * s, 0.0085 * s, tint(skin, 0.90)), depth + 0.0003, "head")
        mouth = [at(-0.015, -0.034, 0.048)[:2], at(0, -0.037, 0.053)[:2], at(0.015, -0.034, 0.048)[:2]]
        self.add(
            chain(mouth, 0.0038 * s, (0.66, 0.30, 0.28) if skin[0] > 0.5 else (0.45, 0.18, 0.16)),
            depth + 0.0002,
            "head",
        )

    def fingers(self, which: int, up: Array, depth: float) -> None:
        """Three fingers and a thumb closed over a thing whose long axis is `up` (2,) in the image."""
        grip = self.view.project(self.body.grips[which][None])[0][:2]
        side = "right" if which == 0 else "left"
        axis = up / max(float(np.hypot(*up)), 1e-6)
        normal = np.array([-axis[1], axis[0]])
        wrist = self.p[b.RIGHT_WRIST if which == 0 else b.LEFT_WRIST][:2]
        inwards = 1.0 if float((grip - wrist) @ normal) > 0 else -1.0
        for k in (-1.0, 0.0, 1.0):
            start = grip + axis * k * 0.0145 * self.s - normal * inwards * 0.008 * self.s
            end = start + normal * inwards * 0.027 * self.s
            self.add(
                capsule(start, end, 0.0078 * self.s, 0.0070 * self.s, tint(self.wear.skin, 0.96)), depth, f"{side}_hand"
            )


# The parts of a body that show each joint; a joint counts as visible if one of them is on top at its pixel.
JOINT_PARTS: tuple[tuple[str, ...], ...] = (
    ("right_shin", "right_foot"), ("right_shin", "right_thigh"), ("right_thigh", "hips", "torso"),
    ("left_thigh", "hips", "torso"), ("left_shin", "left_thigh"), ("left_shin", "left_foot"),
    ("hips", "torso", "right_thigh", "left_thigh"), ("torso", "neck"), ("neck", "torso", "head"), ("head",),
    ("right_forearm", "right_hand"), ("right_forearm", "right_upper_arm"), ("right_upper_arm", "torso"),
    ("left_upper_arm", "torso"), ("left_forearm", "left_upper_arm"), ("left_forearm", "left_hand"),
)  # fmt: skip
