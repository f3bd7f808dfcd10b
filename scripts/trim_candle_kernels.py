#!/usr/bin/env python3
"""Make a copy of candle-kernels without its quantised-matmul library.

That library is 85 % of the compiler's time and most of the binary, and Kinora never calls it. Its
functions become stubs that abort with their name: GGUF matrix products on CUDA are missing from such
a build. The PTX modules, which every other candle operation uses, stay as they are.

usage: trim_candle_kernels.py SOURCE DEST
"""
import pathlib
import re
import shutil
import sys

source, dest = map(pathlib.Path, sys.argv[1:3])
shutil.rmtree(dest, ignore_errors=True)
shutil.copytree(source, dest)

ffi = dest / "src/ffi.rs"
text = ffi.read_text()
opening = text.index('extern "C" {')
body = text[opening + len('extern "C" {') : text.rindex("}")]
stub = r'pub unsafe extern "C" fn \1(\2) \3 { unimplemented!("\1 was left out of this build") }'
body = re.sub(r"pub fn (\w+)\((.*?)\)\s*(->\s*[\w:*\s]+?)?;", stub, body, flags=re.S)
ffi.write_text("#![allow(unused_variables, dead_code, clippy::all)]\n" + text[:opening] + body)

build = dest / "build.rs"
text = build.read_text()
library = text.index("    let mut moe_sources")
text = text[:library] + text[text.rindex("    Ok(())") :]
build.write_text(text.replace('const CUTILE_FEATURE: &str = "CARGO_FEATURE_CUTILE";\n', ""))
