"""Collects the photographs of training from unpacked Debian packages and Python wheels (see MODEL_CARD.md, "Data").

Pictures of natural photographs are taken from ordinary image files and, for gcompris, out of Qt's resource
archives (WebP and JPEG are stored there unchanged, so they are found by their first bytes). Each becomes a
JPEG whose shorter side is at most 640 px; the names in `held_out.txt` get the prefix `held_`.

usage: make_photos.py OUT_DIR UNPACKED_FOLDER...
"""
import glob
import os
import re
import sys

import cv2
import numpy as np

SHORT, LEAST = 640, 300
HELD = set(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "held_out.txt")).read().split())
# What the product's evaluation and contact sheet show, and what is no photograph.
LEAVE_OUT = re.compile(r"palapeli|preview|screenshot|/icons/|_dark/|logo|thumb|sprite|motorcycle|retina|cell|phantom|page|moon|text|camera|brick|coins|color|checker|ihc|microaneurysms|skin|clock|gravel|grass|horse|lily|logo|multi|no_time|truncated|foo|bw_|palette|chessboard|diff|mssim|kidney|lfw")
RESOURCES = re.compile(r"(details|erase|explore_.*|photo_hunter|land_safe|hangman|paintings|memory.*|tangram|intro_gravity|lang.*|babymatch|sea.*|solar_system|watercycle|renewable.*)\.rcc$")


def embedded(path):
    """(offset, bytes) of every WebP and JPEG inside an archive."""
    data = open(path, "rb").read()
    for m in re.finditer(rb"RIFF....WEBPVP8", data, re.S):
        size = int.from_bytes(data[m.start() + 4:m.start() + 8], "little") + 8
        yield m.start(), data[m.start():m.start() + size]
    for m in re.finditer(rb"\xff\xd8\xff[\xe0\xe1\xdb]", data):
        end = data.find(b"\xff\xd9", m.start())
        size = int.from_bytes(data[m.start() - 4:m.start()], "big")
        if end > 0 and 10_000 < size < 4_000_000:
            yield m.start(), data[m.start():m.start() + size]


def pictures(folder):
    for path in sorted(glob.glob(folder + "/**/*", recursive=True)):
        name = os.path.basename(path)
        if LEAVE_OUT.search(path) or os.path.islink(path):
            continue
        if RESOURCES.search(name):
            for at, data in embedded(path):
                yield f"{name[:-4]}_{at}", data
        elif re.search(r"\.(jpe?g|png|webp)$", name, re.I) and os.path.getsize(path) > 20_000:
            yield name.rsplit(".", 1)[0], open(path, "rb").read()


def natural(p):
    """Drawings have few colours in flat areas; photographs have noise nearly everywhere."""
    g = cv2.cvtColor(p, cv2.COLOR_BGR2GRAY).astype(np.float32)
    flat = (np.abs(np.diff(g, axis=1)) < .5).mean()
    return flat < .55 and p.std() > 12


def main(out, folders):
    os.makedirs(out, exist_ok=True)
    seen, held = {}, set()
    for folder in folders:
        for name, data in pictures(folder):
            p = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if p is None or min(p.shape[:2]) < LEAST:
                continue
            s = SHORT / min(p.shape[:2])
            if s < 1:
                p = cv2.resize(p, None, fx=s, fy=s, interpolation=cv2.INTER_AREA)
            if name not in HELD and not natural(p):
                continue
            # The same picture comes at several sizes: the coarse thumbnail tells.
            t = cv2.resize(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
            if any(np.abs(t - u).mean() < 3 for u in seen.values()):
                continue
            name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
            if name in seen:
                name = f"{name}_{len(seen)}"
            seen[name] = t
            if name in HELD:
                held.add(name)
            cv2.imwrite(f"{out}/{'held_' if name in HELD else ''}{name}.jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 93])
    print(len(seen), "pictures,", len(held), "held out; not found:", sorted(HELD - held))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
