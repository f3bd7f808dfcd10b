"""Compiles the attention kernels of old cards with a CUDA 12.8 toolchain, which still knows Volta (CUDA 13 does not).

    pip install nvidia-cuda-nvrtc-cu12==12.8.* nvidia-cuda-nvcc-cu12==12.8.* nvidia-cuda-runtime-cu12==12.8.*
    python scripts/old-cards.py [FOLDER]

The run-time compiler makes PTX from each source, ptxas machine code from that; anything refused ends the script with
an error. FOLDER keeps SOURCE_ELEMENT_ptx70.image and so on. No card is needed.
"""
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import nvidia

PACKAGES = [pathlib.Path(p) for p in nvidia.__path__]
ROOT = pathlib.Path(__file__).resolve().parent.parent / "kernels" / "cuda"
ELEMENTS = {"f16": "__half", "bf16": "__nv_bfloat16", "f32": "float"}
# Source, elements on Volta, elements on Turing.
SOURCES = [
    ("exact", ["f32", "f16", "bf16"], ["f32", "f16", "bf16"]),
    ("merge", ["f32", "f16", "bf16"], ["f32", "f16", "bf16"]),
    ("short", [], ["f16"]), ("cross", [], ["f16"]), ("flash", [], ["f16"]),
]


def find(pattern):
    found = [path for package in PACKAGES for path in package.glob(pattern)]
    if not found:
        sys.exit(f"{pattern} was not found below {PACKAGES}: install the packages this script names")
    return found[0]


def main():
    keep = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    nvrtc = ctypes.CDLL(str(find("cuda_nvrtc/lib/libnvrtc.so.12")))
    ptxas, headers = find("cuda_nvcc/bin/ptxas"), find("cuda_runtime/include/cuda_fp16.h").parent
    for source, volta, turing in SOURCES:
        for arch, elements in [("70", volta), ("75", turing)]:
            for element in elements:
                ptx = compile(nvrtc, source, element, arch, headers)
                with tempfile.TemporaryDirectory() as folder:
                    text, code = pathlib.Path(folder, "k.ptx"), pathlib.Path(folder, "k.cubin")
                    text.write_bytes(ptx)
                    subprocess.run([ptxas, f"-arch=sm_{arch}", text, "-o", code], check=True)
                    print(f"{source} {element} sm_{arch}: {len(ptx)} bytes of PTX, {code.stat().st_size} of machine code")
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{source}_{element}_ptx{arch}.image").write_bytes(ptx)


def compile(nvrtc, source, element, arch, headers):
    program = ctypes.c_void_p()
    text = (ROOT / f"{source}.cu").read_bytes()
    # The run-time compiler has no C headers: fixed-width names and infinity are enough.
    stub = b"using uint32_t = unsigned; using uint64_t = unsigned long long; using uint16_t = unsigned short; using int64_t = long long;"
    bodies, names = (ctypes.c_char_p * 2)(stub, stub), (ctypes.c_char_p * 2)(b"stdint.h", b"cstdint")
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, f"{source}.cu".encode(), 2, bodies, names), source)
    options = [f"--gpu-architecture=compute_{arch}", "-std=c++17", f"-DELEMENT={ELEMENTS[element]}", f"-I{ROOT}",
               f"-I{headers}", "-DINFINITY=__int_as_float(0x7f800000)", "-default-device"]
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    status = nvrtc.nvrtcCompileProgram(program, len(options), given)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    check(status, f"{source} {element} for compute_{arch}:\n{log.value.decode()}")
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx), source)
    return ptx.raw.rstrip(b"\0")


def check(status, what):
    if status != 0:
        sys.exit(f"the compiler refused {what} (status {status})")


main()
