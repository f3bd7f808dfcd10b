"""Blind check of the shipped caption encoder and field: hand-written phrasings outside the grammar, and the response to magnitude.
usage: check_phrasings.py (in this folder)"""
import torch
from safetensors.torch import load_file

import field as fd
import motions as M
from text import TextConfig, TextEncoder
from tokenizer import ClipBpe

BLIND = {
    "left": ["The sailing boat is heading off to the left of the scene", "have the vase relocated leftwards", "the fox trots to the left", "shift left a touch"],
    "right": ["a tram rumbling along to the right", "the ball should go rightwards", "let the swan paddle to the right hand side", "it moves right"],
    "up": ["the lantern floats gently skywards", "the drone takes off vertically", "send the kite up", "the bubble is rising to the surface"],
    "down": ["the leaf falls softly towards the earth", "lower the lamp", "the anchor sinks", "the parachutist is coming down slowly"],
    "up_left": ["the bird flies off to the upper left", "drift up and left"], "up_right": ["plane climbing toward the top right", "move it up and to the right"],
    "down_left": ["the skier glides down to the left", "slide to the lower left"], "down_right": ["it slips diagonally down and right", "toward the bottom right corner"],
    "turn_cw": ["the wheel is turning clockwise", "rotate the plate clockwise by a bit", "spin it", "the propeller spins clockwise"],
    "turn_ccw": ["the fan rotates anti-clockwise", "give it a counterclockwise twist", "turn the record counter clockwise"],
    "grow": ["the pumpkin gets much bigger", "the balloon inflates", "make the mushroom grow", "enlarge it over time", "the flower expands"],
    "shrink": ["the snowman shrinks", "make the cup smaller", "the puddle gets smaller and smaller", "it dwindles", "scale the house down"],
    "sway": ["tall grass swaying in the breeze", "the palm tree sways in the wind", "the flower bends from side to side"],
    "ripple": ["ripples spread over the lake", "the pond ripples", "the cloth undulates"],
    "flow_left": ["the river flows to the left", "water streaming leftward"], "flow_right": ["the brook is flowing right", "lava flows to the right"],
    "flow_up": ["smoke flows upwards", "steam streaming up"], "flow_down": ["the waterfall flows down", "water pours downward", "paint flowing down the wall"],
    "bounce": ["the rubber ball bounces", "the frog hops up and down", "bobbing up and down"],
    "shake": ["the phone vibrates", "the dog shivers with cold", "it trembles nervously"],
    "swing": ["the lantern swings to and fro", "the chandelier swings like a pendulum"], "pulse": ["the heart pulsates", "a throbbing light"],
    "still": ["the statue does not move", "keep everything still", "nothing should move", "the cat stays perfectly still"],
    "unrecognised": ["a nice picture of a harbour", "my grandmother's kitchen", "green and yellow"]}
text, net = TextEncoder(TextConfig()).eval(), fd.Field(fd.FieldConfig()).eval()
text.load_state_dict({k: v.float() for k, v in load_file("../text.safetensors").items()})
net.load_state_dict({k: v.float() for k, v in load_file("../field.safetensors").items()})
bpe = ClipBpe("../bpe_simple_vocab_16e6.txt.gz")
p = M.pixel_grid(64, 64)
mask = ((.4 - ((p[..., 0] + .1) ** 2 + 1.6 * (p[..., 1] - .05) ** 2).sqrt()) * 32 + .5).clamp(0, 1)[None, None]
geom, m20 = M.geometry(mask), fd.mask_grid(mask)
pts = p[mask[0, 0] > .5][::16]


@torch.no_grad()
def run(caption, m, s):
    _, pooled, kinds = text(torch.tensor([bpe.encode(caption)]))
    coef, free, gate = net(m20, geom, pooled, torch.tensor([m]), torch.tensor([s]))
    return 128 * fd.evaluate(coef, free, geom, pts)[0], kinds[0]


good = named = total = 0
times = [.15, .3, .62, .85, 1.0]
for kind, captions in BLIND.items():
    k = M.one_hot_kinds([kind])
    truth = 128 * M.displacement(k, torch.tensor([.7]), torch.tensor([times]), geom, pts)[0]
    for c in captions:
        d, logits = run(c, .7, times)
        if kind in ("still", "unrecognised"):
            ok = float(d.norm(dim=-1).mean()) < .5
        else:
            ok = float((d * truth).sum() / (d.norm() * truth.norm() + 1e-6)) > .7
        said = [(M.KINDS + ["unrecognised"])[i] for i in range(24) if logits[i] > 0]
        total, good, named = total + 1, good + ok, named + (said == [kind])
        if not ok or said != [kind]:
            print("ok  " if ok else "FAIL", kind, "|", c, "|", said)
print(f"direction right {good}/{total}, kind named exactly {named}/{total}")
first = [c[0] for k, c in BLIND.items() if k not in ("still", "unrecognised")]
n = len(first)
with torch.no_grad():   # all kinds at ten magnitudes in one batch
    pooled = text(torch.tensor([bpe.encode(c) for c in first]))[1].repeat_interleave(10, 0)
    m = (torch.arange(1, 11) / 10).repeat(n)
    coef, free, _ = net(m20.expand(10 * n, -1, -1, -1), geom.expand(10 * n, -1), pooled, m, torch.tensor([times]).expand(10 * n, -1))
    size = fd.evaluate(coef, free, geom.expand(10 * n, -1), pts).norm(dim=-1).mean((1, 2)).view(n, 10)
rank = size.argsort(1).argsort(1).float()
rho = 1 - 6 * ((rank - torch.arange(10)) ** 2).sum(1) / 990
print("magnitude: lowest Spearman over kinds", round(float(rho.min()), 4))
