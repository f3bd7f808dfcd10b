"""Cuts the interface's fonts down to what the interface shows.

pip install fonttools==4.68.0
Inputs (ordinary package downloads, unpacked):
  INTER   Debian package fonts-inter 4.0~beta7+ds-1, usr/share/fonts/opentype/inter/
  LUCIDE  npm package lucide-static 1.62.0, font/

python make.py INTER LUCIDE      writes the .otf/.ttf files and icons.tsv beside this script
"""

import json
import pathlib
import sys

from fontTools import subset
from fontTools.ttLib import TTFont

HERE = pathlib.Path(__file__).parent
TEXT = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x18F, 0x18F), (0x1A0, 0x1A1), (0x1AF, 0x1B0), (0x1CD, 0x1DC),
    (0x218, 0x21B), (0x2BB, 0x2BC), (0x2C6, 0x2DD), (0x300, 0x304), (0x370, 0x3FF), (0x400, 0x45F),
    (0x490, 0x493), (0x1E80, 0x1EF9), (0x2010, 0x2026), (0x2030, 0x203A), (0x2070, 0x208E),
    (0x20AC, 0x20AC), (0x2122, 0x2122), (0x2190, 0x2199), (0x2212, 0x2212), (0x221E, 0x221E),
    (0x2248, 0x2248), (0x2260, 0x2265), (0x2318, 0x2318), (0x21E7, 0x21E7), (0x25CF, 0x25CF),
]
ICONS = """
arrow-down arrow-left arrow-right arrow-up blend box brush check chevron-down chevron-left chevron-right
chevron-up circle-alert circle-check circle-minus circle-play circle-plus circle-question-mark circle-stop
circle-x clapperboard clipboard-paste clock columns-2 command contrast copy cpu crosshair diamond
diamond-plus download droplet ellipsis ellipsis-vertical eraser eye eye-off fast-forward file-plus
file-video file-warning film folder folder-open gauge grip-vertical hand hard-drive history image
image-plus info keyboard layers layout-dashboard link list-ordered list-video lock lock-open magnet
maximize minus monitor moon mouse-pointer-2 mouse-pointer-click move package palette panel-bottom
panel-left panel-right pause play plus redo-2 refresh-cw repeat rewind rotate-ccw save save-all scan
scissors search settings skip-back skip-forward sliders-horizontal sparkles spline split
square-dashed star step-back step-forward sun target timer trash-2 triangle-alert undo-2 unlink upload
volume-2 wand-sparkles waves wifi wifi-off x zoom-in zoom-out
""".split()


def options() -> subset.Options:
    opts = subset.Options()
    opts.layout_features = ["kern", "mark", "mkmk", "ccmp", "locl"]
    opts.desubroutinize = True
    opts.hinting = False
    opts.name_IDs = [0, 1, 2, 4, 5, 6, 13, 14]
    opts.notdef_outline = True
    return opts


def tabular_digits(font: TTFont) -> None:
    """Times and sizes must not jitter, and the interface applies no font features: the digits of
    equal width become the digits."""
    lookups = {i for record in font["GSUB"].table.FeatureList.FeatureRecord if record.FeatureTag == "tnum"
               for i in record.Feature.LookupListIndex}
    swap = {}
    for index in lookups:
        for table in font["GSUB"].table.LookupList.Lookup[index].SubTable:
            table = getattr(table, "ExtSubTable", table)
            swap.update(getattr(table, "mapping", {}))
    for table in font["cmap"].tables:
        for code in range(0x30, 0x3A):
            name = table.cmap.get(code)
            if name in swap:
                table.cmap[code] = swap[name]


def main() -> None:
    inter, lucide = map(pathlib.Path, sys.argv[1:3])
    for weight in ["Regular", "Medium", "SemiBold"]:
        font = TTFont(inter / f"Inter-{weight}.otf")
        tabular_digits(font)
        cutter = subset.Subsetter(options())
        cutter.populate(unicodes=[code for low, high in TEXT for code in range(low, high + 1)])
        cutter.subset(font)
        font.save(HERE / f"Inter-{weight}.otf")
    points = json.loads((lucide / "codepoints.json").read_text())
    points = {name: int(points[name]) if isinstance(points[name], int) else int(points[name], 16) for name in ICONS}
    font = TTFont(lucide / "lucide.ttf")
    cutter = subset.Subsetter(options())
    cutter.populate(unicodes=list(points.values()))
    cutter.subset(font)
    font.save(HERE / "lucide.ttf")
    lines = [f"{name}\t{code:04X}" for name, code in sorted(points.items())]
    (HERE / "icons.tsv").write_text("\n".join(lines) + "\n")


main()
