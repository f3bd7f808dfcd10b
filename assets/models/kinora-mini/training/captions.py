"""The caption grammar: which words mean which motion, which sentences carry them, and what is held out.

`TRAIN` / `HELD_OUT` verb phrases and sentence frames never mix: a held-out caption uses a held-out phrase or
a held-out frame (usually both), so figures on held-out captions measure phrasings never trained on.
"""
import random

from motions import DIRECTIONS, PAIR_WITH

DIR_WORDS = {
    "left": ["left", "to the left", "leftward", "leftwards", "toward the left", "towards the left", "to the left side",
             "to the left hand", "in a leftward direction", "toward the left side", "over to the left", "to the left of the picture", "to its left", "sideways to the left",
             "to the left edge", "from right to left", "west"],
    "right": ["right", "to the right", "rightward", "rightwards", "toward the right", "towards the right", "to the right side",
              "to the right hand", "in a rightward direction", "toward the right side", "over to the right", "to the right of the picture", "to its right", "sideways to the right",
              "to the right edge", "from left to right", "east"],
    "up": ["up", "upward", "upwards", "to the top", "toward the top", "towards the sky", "straight up", "up into the air",
           "into the sky", "higher", "up to the top of the picture", "up the frame", "north"],
    "down": ["down", "downward", "downwards", "to the bottom", "toward the bottom", "towards the ground", "straight down",
             "down to the ground", "lower", "to the floor", "down to the bottom of the picture", "down the frame", "south"]}
HELD_DIR = {"left": ["in the left direction", "to the left hand side", "off to the left", "a bit to the left"],
            "right": ["in the right direction", "to the right hand side", "off to the right", "a bit to the right"],
            "up": ["in the upward direction", "up towards the top edge", "right up into the sky", "a bit upwards"],
            "down": ["in the downward direction", "down towards the bottom edge", "all the way down", "a bit downwards"]}
for v, vs in (("up", ("up", "upwards", "upper", "top", "north")), ("down", ("down", "downwards", "lower", "bottom", "south"))):
    for h, hw in (("left", "west"), ("right", "east")):
        DIR_WORDS[f"{v}_{h}"] = [f"{vs[0]} and to the {h}", f"{vs[0]} {h}", f"{vs[0]}-{h}", f"diagonally {vs[0]} and {h}",
                                 f"toward the {vs[2]} {h}", f"to the {vs[3]} {h}", f"to the {vs[3]} {h} corner", f"{vs[1]} to the {h}",
                                 f"to the {h} and {vs[0]}", f"{h} and {vs[0]}", f"diagonally to the {vs[2]} {h}", f"{vs[2]} {h}",
                                 f"{vs[4]}{hw}", f"{vs[0]} and {h}", f"{v}ward and {h}ward", f"into the {vs[3]} {h} corner"]
        HELD_DIR[f"{v}_{h}"] = [f"towards the {vs[2]} {h} corner", f"{vs[1]} and to the {h}", f"{h}wards and {vs[1]}",
                                f"diagonally towards the {vs[3]} {h}"]
MOVE = ("move drift slide glide go travel float shift push run walk fly sail drive swim head march creep crawl dash cruise "
        "steer step hurry race stroll wander roam scurry crawl paddle sneak gallop waltz zip scroll flee zoom speed pull translate nudge hover scroll sweep skate ride jog rush").split()
HELD_MOVE = ["proceed", "ramble", "scoot", "coast", "advance", "relocate", "make its way", "be moved"]
TRANSITIVE = ["move", "slide", "push", "shift", "pull", "drag", "pan", "nudge", "bring", "carry", "send", "take", "drive"]
FLOW = ["flow", "stream", "pour", "gush", "surge", "trickle", "wash", "flow like water", "flow like a river"]
HELD_FLOW = ["keep flowing", "be flowing", "stream steadily", "flow along"]
CW = ["clockwise", "in a clockwise direction", "clockwise around its centre", "like the hands of a clock", "in the clockwise sense"]
CCW = ["counterclockwise", "counter-clockwise", "anticlockwise", "anti-clockwise", "counter clockwise", "anti clockwise",
       "in a counterclockwise direction", "in an anticlockwise direction", "against the clock", "counterclockwise around its centre"]
SPIN = ["rotate", "turn", "spin", "twirl", "revolve", "roll", "pivot", "twist", "whirl", "swivel", "turn around", "rotate slowly", "tilt"]
HELD_SPIN = ["gyrate", "keep turning", "do a spin", "be rotated"]

TRAIN = {
    "up": ["rise", "ascend", "climb", "lift", "levitate", "soar", "rise up", "go up", "lift off", "take off", "float up",
           "move higher", "raise", "fly up", "rise into the air", "climb higher", "jet up", "elevate", "launch into the sky"],
    "down": ["fall", "drop", "descend", "sink", "plunge", "fall down", "go down", "come down", "drop down", "sink lower",
             "lower", "dive", "move lower", "settle down", "slump down", "land", "plummet", "fall to the ground"],
    "turn_cw": [f"{v} {d}" for v in SPIN for d in CW] + ["rotate", "spin", "spin around", "turn around", "twirl", "rotate in place",
                                                       "revolve", "whirl around", "turn in a circle", "go round and round"],
    "turn_ccw": [f"{v} {d}" for v in SPIN for d in CCW],
    "grow": ["grow", "get bigger", "become larger", "expand", "enlarge", "swell", "inflate", "scale up", "increase in size",
             "blow up", "zoom in", "puff up", "get larger", "grow bigger", "grow larger", "come closer", "come nearer", "approach",
             "become huge", "widen", "expand outward", "get huge", "bulge", "stretch bigger", "loom", "double in size", "bloom", "increase", "magnify", "become giant", "get wider", "grow up", "balloon", "rise in size",
             "become massive", "get more and more large", "extend", "bulk up", "puff out", "inflate up", "scale upwards", "expand up", "get larger and larger", "get huger and huger", "become wider and wider", "grow larger and larger", "get wider and wider", "get closer", "move closer", "come toward the camera"],
    "shrink": ["shrink", "get smaller", "become smaller", "contract", "reduce in size", "scale down", "deflate", "diminish",
               "dwindle", "zoom out", "compress", "grow smaller", "recede", "move away", "get tiny", "go away into the distance",
               "become little", "minimize", "shrivel", "halve in size", "shrink away", "move farther away", "narrow", "collapse", "decrease", "reduce", "get tinier", "become minute", "become miniature", "lessen in size", "shrink to nothing",
               "get less big", "lose size", "dwindle down", "diminish down", "contract down", "reduce down", "deflate down", "size down", "shrivel down", "narrow down",
               "compress down", "shrink inward", "slim down", "shrink in", "shrink up", "get tinier and tinier", "become tinier and tinier", "grow tinier and tinier",
               "get littler and littler", "get less and less big", "get narrower and narrower", "vanish slowly", "get littler", "move back", "go farther away", "shrink in size", "be made smaller"],
    "sway": ["sway", "sway in the wind", "sway from side to side", "bend in the breeze", "wave in the wind", "sway gently",
             "rock gently in the breeze", "lean back and forth", "flutter in the wind", "dance in the breeze", "blow in the wind",
             "wave", "wave gently", "bend in the wind", "flap in the wind", "bow in the wind", "lean from side to side",
             "bend to and fro", "sway like grass", "move in the wind", "wave like a flag", "flutter", "dance", "sway to and fro"],
    "ripple": ["ripple", "undulate", "make waves", "shimmer like water", "form waves", "ripple like water", "ripple gently",
               "roll in waves", "show small waves", "wave like water", "wobble like water", "ripple on the surface", "billow",
               "shimmer", "form ripples", "ripple in the breeze", "undulate like waves", "get wavy", "warp in waves", "churn"],
    "bounce": ["bounce", "bounce up and down", "hop", "jump", "jump up and down", "leap", "bob up and down", "hop up and down",
               "bounce like a ball", "jump into the air", "hop around", "bob", "spring up and down", "move up and down", "dribble",
               "go up and down", "jump twice", "hop twice", "skip"],
    "shake": ["shake", "tremble", "shiver", "vibrate", "jitter", "quiver", "wobble", "rattle", "shudder", "shake from side to side",
              "jiggle", "shake quickly", "wiggle", "shake left and right", "twitch", "buzz", "quake", "shake nervously", "jerk"],
    "swing": ["swing", "swing back and forth", "swing like a pendulum", "dangle", "oscillate like a pendulum", "rock back and forth",
              "swing from side to side", "swing to and fro", "hang and swing", "dangle from above", "swing gently", "rock",
              "swing on a rope", "oscillate", "dangle back and forth", "swing from its top", "pendulum back and forth"],
    "pulse": ["pulse", "pulsate", "throb", "beat like a heart", "breathe", "grow and shrink repeatedly", "expand and contract",
              "pulse in and out", "get bigger and smaller", "breathe in and out", "beat", "pump", "grow and shrink", "throb rhythmically",
              "inflate and deflate", "swell and shrink", "pulse like a heartbeat", "zoom in and out"],
    "still": ["stay still", "stay", "stand still", "not move", "remain still", "keep still", "freeze", "hold still", "stop",
              "remain in place", "stay where it is", "rest", "hold its position", "pause", "stay put", "be still", "stay in place",
              "remain fixed", "not move at all", "be static", "sit still", "stay frozen", "stop moving", "keep its place"],
}
HELD_OUT = {
    "up": ["rise higher and higher", "go straight up into the air", "climb upwards", "be lifted upwards", "ascend into the sky"],
    "down": ["sink down to the ground", "drop lower and lower", "descend to the floor", "be lowered", "fall straight down"],
    "turn_cw": [f"{v} clockwise" for v in HELD_SPIN] + ["turn round clockwise on the spot", "make a clockwise turn"],
    "turn_ccw": [f"{v} anticlockwise" for v in HELD_SPIN] + ["turn round counterclockwise on the spot", "make a counterclockwise turn"],
    "grow": ["become bigger", "grow in size", "swell up", "get bigger and bigger", "become much larger", "expand in size"],
    "shrink": ["become tiny", "decrease in size", "shrink down", "get smaller and smaller", "become much smaller", "be reduced"],
    "sway": ["sway softly in a breeze", "bend with the wind", "be swaying", "lean to and fro", "be blown by the wind"],
    "ripple": ["ripple softly", "be rippling like a lake", "have ripples on its surface", "undulate softly", "form little waves"],
    "bounce": ["keep bouncing", "hop like a rabbit", "bounce around", "do little jumps", "jump up and down on the spot"],
    "shake": ["keep shaking", "shake a lot", "be trembling", "vibrate strongly", "shiver with cold"],
    "swing": ["swing like a bell", "keep swinging", "be swinging to and fro", "sling back and forth", "swing as a pendulum does"],
    "pulse": ["pulse steadily", "keep pulsing", "throb like a heart", "get larger and smaller", "be pulsating"],
    "still": ["remain motionless", "keep perfectly still", "stand without moving", "be frozen in place", "stay exactly where it is"],
}
for d in DIRECTIONS:
    TRAIN.setdefault(d, [])
    TRAIN[d] = TRAIN[d] * 6 + [f"{v} {w}" for v in MOVE for w in DIR_WORDS[d]]
    HELD_OUT[d] = HELD_OUT.get(d, []) + [f"{v} {w}" for v in MOVE[:12] for w in HELD_DIR[d]] + \
        [f"{v} {w}" for v in HELD_MOVE for w in DIR_WORDS[d][:6]]
for d in DIRECTIONS[:4]:
    TRAIN["flow_" + d] = [f"{v} {w}" for v in FLOW for w in DIR_WORDS[d]]
    HELD_OUT["flow_" + d] = [f"{v} {w}" for v in FLOW[:4] for w in HELD_DIR[d]] + [f"{v} {w}" for v in HELD_FLOW for w in DIR_WORDS[d][:4]]
TRAIN["flow_down"] += ["cascade down", "flow down", "run down like water", "drip down", "fall like a waterfall", "cascade"] * 4
NOUN_PHRASES = {  # no verb to inflect
    "turn_cw": ["clockwise", "clockwise rotation", "a clockwise spin", "rotation", "spinning", "a full clockwise turn"],
    "turn_ccw": ["counterclockwise", "anticlockwise", "counterclockwise rotation", "an anticlockwise spin"],
    "grow": ["bigger", "larger", "growth", "growing bigger", "expansion"], "shrink": ["smaller", "shrinking", "tinier", "contraction"],
    "sway": ["swaying", "a gentle sway", "swaying in the breeze", "wind"], "ripple": ["ripples", "small waves", "rippling water", "waves"],
    "bounce": ["bouncing", "a small hop", "hopping", "up and down"], "shake": ["shaking", "vibration", "trembling", "a quick shake"],
    "swing": ["swinging", "a pendulum motion", "a slow swing"], "pulse": ["pulsing", "a heartbeat", "a pulse", "breathing"],
    "still": ["still", "no motion", "no movement", "motionless", "stationary", "immobile", "unmoving", "do not move", "don't move", "nothing moves", "frozen", "static",
              "do nothing", "without moving", "hold it still", "keep it still", "leave it where it is", "it doesn't move"],
    "up": ["rising", "upward motion", "climbing up"], "down": ["falling", "downward motion", "sinking", "falling down"]}
for d in DIRECTIONS:
    NOUN_PHRASES[d] = NOUN_PHRASES.get(d, []) + DIR_WORDS[d] + [f"motion {w}" for w in DIR_WORDS[d][:5]]
NOT_MOTION = ["a photo of {n}", "{n}", "{n} is red", "make it beautiful", "blue sky with clouds", "change the colour to green", "add a hat",
              "hello there", "best quality, 4k", "a {n} and a {m}", "{n} on the table", "what is this", "make {n} brighter", "the {n} is {m}",
              "a painting of {n} and {m}", "remove the background", "{n} {m}", "sharp focus, film grain", "a beautiful {n} near the {m}",
              "the left {n}", "{n} on the right", "the {n} at the top", "{n} at the bottom of the {m}", "i like {n}", "colour the {n} pink", "", "."]
FRAMES = ["{S} {V3}", "{S} {V3} {a}", "{S} {a} {V3}", "make {S} {V}", "make {S} {V} {a}", "make it {V}", "{V}", "{V} {a}", "{a} {V}", "{S} {Ving}",
          "{S} {Ving} {a}", "let {S} {V}", "{S} should {V}", "i want {S} to {V}", "have {S} {V}", "please make {S} {V}", "{S} starts to {V}",
          "{S} begins {Ving}", "{S} is {Ving}", "{a} {Ving}", "{Ving}", "watch {S} {V}", "animate {S} so that it {V3}", "a shot of {S} {Ving}",
          "{S} that {V3}", "it {V3}", "it {V3} {a}", "it should {V} {a}", "let it {V}", "{V3}", "{S} will {V}", "the camera is fixed while {S} {V3}",
          "{S} can {V}", "{V} please", "in this clip {S} {V3} {a}", "{S} gently {V3}", "they {V}", "now {S} {V3}", "{S} to {V}", "get {S} to {V}"]
HELD_FRAMES = ["could you get {S} to {V}", "we see {S} {Ving}", "{S} keeps {Ving}", "cause {S} to {V}", "this {n} will {a} {V}",
               "i would like it to {V}", "show {S} {Ving} {a}", "{S} appears to {V}", "can you make the {n} {V} for me", "{S} slowly starts {Ving}"]
ADVERBS = ["slowly", "quickly", "gently", "smoothly", "fast", "a little", "a lot", "softly", "very slowly", "rapidly", "steadily", "calmly",
           "strongly", "slightly", "gracefully", "with ease", "at high speed", "in slow motion", "right now", "again", "lightly", "lazily"]
NOUNS = ("boat cup cat dog bird flower tree car balloon ball leaf cloud ship person woman man child horse fish river water sea lake flag "
         "curtain apple lamp kite plane butterfly duck penguin bottle statue tower house rock moon sun star bee ladybird grass branch "
         "waterfall fountain smoke fire hair dress hat wheel clock bell train truck bus bicycle sheep cow bear lion kitten puppy dragonfly "
         "mountain castle windmill bridge rope candle pumpkin toy robot doll guitar drum mushroom fruit orange berry plant").split()
SUBJECT = ["the {n}", "a {n}", "{n}", "this {n}", "the {m} {n}", "the big {n}", "the small red {n}", "the {n} in the picture", "my {n}", "it",
           "the object", "the selected thing", "the {n} and the {m}", "the old {n}", "the thing i clicked", "that {n}"]
PLACED = ["the {n} on the left", "the {n} on the right", "the {n} at the top", "the {n} at the bottom", "the {n} in the left corner",
          "the upper {n}", "the lower {n}", "the right {n}", "the left {n}", "the {n} above the {m}", "the {n} below the {m}"]
DOUBLING = {"run", "swim", "spin", "drop", "hop", "skip", "stop", "step", "jog", "zip", "flap", "get", "sit", "bob", "wag", "scan", "pan", "drag"}


def inflect(phrase, form):
    """Inflects the first word: form "V3" (drifts) or "Ving" (drifting)."""
    if not phrase:
        return ""
    w, _, rest = phrase.partition(" ")
    if form == "V3":
        w = {"be": "is", "have": "has", "do": "does", "go": "goes", "not": "does not"}.get(
            w, w[:-1] + "ies" if w[-1] == "y" and w[-2] not in "aeou" else w + ("es" if w.endswith(("sh", "ch", "s", "x", "z")) else "s"))
    elif w == "be" and rest.split(" ")[0].endswith("ing"):
        w, rest = rest, ""
    elif w == "not":
        w, rest = "not moving", rest.removeprefix("move").strip()
    else:
        w = w + w[-1] + "ing" if w in DOUBLING else w[:-1] + "ing" if w.endswith("e") and not w.endswith(("ee", "be")) else w + "ing"
    return (w + " " + rest).strip()


def typo(r, text):
    i = r.randrange(1, max(2, len(text) - 1))
    return text[:i] + (text[i + 1:] if r.random() < .5 else text[i + 1:i + 2] + text[i:i + 1] + text[i + 2:])


class Grammar:
    """Draws captions. `vocabulary`: extra single words used as nouns, so that unknown names do not matter."""

    def __init__(self, seed, vocabulary=()):
        self.r = random.Random(seed)
        self.vocabulary = list(vocabulary)

    def noun(self):
        r = self.r
        return r.choice(self.vocabulary) if self.vocabulary and r.random() < .25 else r.choice(NOUNS)

    def fill(self, frame, phrase):
        r = self.r
        s = r.choice(PLACED if r.random() < .06 else SUBJECT)
        t = frame.replace("{S}", s).replace("{V3}", inflect(phrase, "V3")).replace("{Ving}", inflect(phrase, "Ving"))
        t = t.replace("{V}", phrase).replace("{a}", r.choice(ADVERBS)).replace("{n}", self.noun()).replace("{m}", self.noun())
        return t

    def one(self, kind, held=False):
        """kind: a name, a pair (direction, other), or "unrecognised" -> caption."""
        r = self.r
        if kind == "unrecognised":
            t = r.choice(NOT_MOTION).replace("{n}", self.noun()).replace("{m}", self.noun())
        elif not isinstance(kind, str):
            a, b = (r.choice((HELD_OUT if held else TRAIN)[k]) for k in kind)
            if not held and r.random() < .3 and kind[1][:4] == "turn":
                b = r.choice(["spin ", "rotate ", "turn "]) + ("clockwise" if kind[1] == "turn_cw" else r.choice(CCW[:4]))
            if r.random() < .35:
                a, b = b, a
            link = r.choice([" and ", " while ", " as it ", ", and then ", " and also "])
            b = inflect(b, "Ving") if link == " while " else inflect(b, "V3") if link == " as it " else b
            joint = r.choice(HELD_FRAMES if held and r.random() < .5 else FRAMES)
            if link in (" and ", ", and then ", " and also "):  # both verbs in one form
                b = inflect(b, "V3") if "{V3}" in joint else inflect(b, "Ving") if "{Ving}" in joint else b
            t = self.fill(joint.replace("{V3}", "{V3}" + link + b).replace("{Ving}", "{Ving}" + link + b).replace("{V}", "{V}" + link + b), a)
        elif not held and r.random() < .12 and kind in NOUN_PHRASES:
            t = r.choice(["{p}", "{p}", "{p} {a}", "{S} {p}", "{a} {p}", "motion: {p}", "the {n}, {p}"]).replace("{p}", r.choice(NOUN_PHRASES[kind]))
            t = self.fill(t, "")
        elif not held and r.random() < .08 and kind in DIRECTIONS:
            t = self.fill(f"{r.choice(['', 'please ', 'now '])}{r.choice(TRANSITIVE)} {{S}} {r.choice(DIR_WORDS[kind])}", "")
        else:
            x = r.random()  # held out: frame, phrase, or both
            hp, hf = held and x > .25, held and x < .75
            t = self.fill(r.choice(HELD_FRAMES if hf else FRAMES), r.choice((HELD_OUT if hp else TRAIN)[kind]))
        if not held:
            if r.random() < .05:
                t = r.choice(["cinematic, ", "high quality, ", "photo, ", "realistic video, "]) + t
            if r.random() < .06:
                t += r.choice([", 4k", ", smooth motion", ", high quality", " in the picture", ", cinematic light", " over time", ", nothing else moves"])
            if r.random() < .04 and len(t) > 8:
                t = typo(r, t)
        if r.random() < .25:
            t += r.choice([".", "!", " "])
        return t.upper() if r.random() < .03 else t[:1].upper() + t[1:] if r.random() < .3 else t

    def kind(self):
        """A random kind: all names evenly, 14 % pairs, 6 % no motion named."""
        x = self.r.random()
        if x < .06:
            return "unrecognised"
        if x < .20:
            return (self.r.choice(DIRECTIONS), self.r.choice(PAIR_WITH))
        return self.r.choice(sorted(TRAIN))


def motion_lexicon():
    """Every word that carries a motion meaning here, and related ones, for the token table."""
    words = set()
    for d in (TRAIN, HELD_OUT, NOUN_PHRASES):
        for ps in d.values():
            for p in ps:
                words.update(p.replace("-", " ").split())
                words.add(p)
    more = "ascending descending leftmost rightmost skyward earthward whirling spiral gyrate orbit wag flail oscillating jump sideways above below"
    return sorted(words | set(more.split()))[:1500]
