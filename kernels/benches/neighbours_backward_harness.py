"""Gradient kernels of the neighbours, RoPE and weighted sums on a card without a Rust build: right, and how fast.

    for s in norm_backward pointwise_backward rope combine; do for e in f16 bf16 f32; do nvcc -cubin -arch=sm_90a -std=c++17 -O3
      --expt-relaxed-constexpr -DELEMENT=(__half|__nv_bfloat16|float) ../cuda/$s.cu -o $s.$e.cubin; done; done
    python neighbours_backward_harness.py CUBIN_FOLDER test|bench|layers [FILTER]

`test` compares with PyTorch's autograd in f64 on the same rounded operands, over outputs filled with NaN. `bench` times ours and
PyTorch's in f16, each recorded once as a CUDA graph and replayed (median), beside the bytes that must move at 3.0 TB/s. `layers` times PyTorch's way back through convolutions and products, for
examples/cuda_backward_bench.rs. Needs torch.
"""
import ctypes
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

cuda = ctypes.CDLL("libcuda.so.1")
NAMES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
ACTIVATIONS = {"none": 0, "silu": 1, "relu": 2, "gelu": 3, "quick_gelu": 4}
P, L, I, R = ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int, ctypes.c_float


class Norm(ctypes.Structure):
    _fields_ = ([(n, P) for n in "x grad out weight bias added scale shift partial plain moved groups_of rows_of".split()]
                + [("points", L)]
                + [(n, I) for n in "channels groups chunks chunk_points tile lines added_samples activation problems".split()]
                + [("eps", R)])


class Point(ctypes.Structure):
    _fields_ = [(n, P) for n in "x grad out".split()] + [("count", L)] + [(n, I) for n in "columns width activation".split()]


class Rope(ctypes.Structure):
    _fields_ = ([(n, P) for n in "x out cos sin".split()] + [("count", L), ("rows", L)]
                + [(n, I) for n in "heads dim pairs halves".split()] + [("sign", R)])


class Combine(ctypes.Structure):
    _fields_ = [("term", P * 6), ("out", P), ("count", L), ("weight", R * 6), ("kind", I * 6), ("terms", I)]


def ok(code):
    if code:
        raise RuntimeError(f"CUDA error {code}")


class Kernels:
    def __init__(self, folder):
        self.folder, self.functions, self.modules = Path(folder), {}, {}
        self.processors = torch.cuda.get_device_properties(0).multi_processor_count

    def launch(self, source, element, name, grid, params):
        key, module = (source, element, name), (source, element)
        if key not in self.functions:
            if module not in self.modules:
                self.modules[module] = P()
                image = (self.folder / f"{source}.{element}.cubin").read_bytes()
                ok(cuda.cuModuleLoadData(ctypes.byref(self.modules[module]), image))
            self.functions[key] = P()
            ok(cuda.cuModuleGetFunction(ctypes.byref(self.functions[key]), self.modules[module], name.encode()))
        arguments = (P * 1)(ctypes.cast(ctypes.pointer(params), P))
        blocks, threads, shared = grid
        stream = P(torch.cuda.current_stream().cuda_stream)
        ok(cuda.cuLaunchKernel(self.functions[key], blocks, 1, 1, threads, 1, 1, shared, stream, arguments, None))


def up(a, b):
    return -(-a // b)


def blank(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), device="cuda", dtype=dtype)


def vector(columns, *tensors):
    """Values of a 16-byte vector where all allow it, else 1."""
    wide = 16 // tensors[0].element_size()
    return wide if columns % wide == 0 and all(t.data_ptr() % 16 == 0 for t in tensors if t is not None) else 1


def cut(k, p, samples, points, vectors):
    """`Cut` of src/cuda/norm.rs."""
    p.tile = min(vectors, 512)
    p.lines = max(512 // p.tile, 1)
    chunks = min(max(2 * k.processors // samples, 1), max(up(points, 4 * p.lines), 1))
    p.chunk_points = max(up(points, chunks), 1)
    p.chunks = up(points, p.chunk_points)
    return samples * p.chunks, up(p.tile * p.lines, 32) * 32


def group_norm(k, x, grad, weight, bias, groups, activation, added=None, film=(None, None)):
    n, points, channels = x.shape
    e, step, p = NAMES[x.dtype], vector(channels, x, grad, weight, bias), Norm()
    blocks, threads = cut(k, p, n, points, channels // step)
    out, partial = torch.full_like(x, float("nan")), blank(n, p.chunks, channels, 2)
    plain, moved, of = blank(n, channels), blank(n, channels), blank(n, groups, 4)
    for name, t in zip("x grad out weight bias added scale shift partial plain moved groups_of".split(),
                       (x, grad, out, weight, bias, added, *film, partial, plain, moved, of)):
        setattr(p, name, t.data_ptr() if t is not None else None)
    p.points, p.channels, p.groups, p.activation, p.problems, p.eps = points, channels, groups, activation, n * groups, 1e-5
    p.added_samples = n // added.shape[0] if added is not None else n
    kind, shared = "wide" if step > 1 else "one", 8 * p.tile * step * p.lines

    def run():
        k.launch("norm_backward", e, f"sums_moments_{kind}", (blocks, threads, shared), p)
        k.launch("norm_backward", e, "finish_moments", (up(n * groups, 4), 128, 0), p)
        k.launch("norm_backward", e, f"sums_group_{kind}", (blocks, threads, shared), p)
        k.launch("norm_backward", e, "finish_group", (n * groups, 128, 0), p)
        k.launch("norm_backward", e, f"group_input_{kind}", (blocks, threads, 0), p)
        return out, plain, moved

    run.keep = (x, grad, weight, bias, added, film, partial, of)
    return run


def lanes(vectors):
    """`lanes` of src/cuda/norm.rs."""
    fits = []
    for lane in (32, 16, 8):
        v = next((v for v in (1, 2, 3, 4, 5, 6, 8, 10) if v >= max(up(vectors, lane), 1)), None)
        if v and (lane == 32 or v <= 6):
            fits.append((lane * v, lane, v))
    return min(fits, key=lambda f: f[0])[1:] if fits else None


def sums(k, e, what, step, shape, p):
    n, points, channels = shape
    blocks, threads = cut(k, p, n, points, channels // step)
    partial, both = blank(n, p.chunks, channels, 2), blank(2, n, channels)
    p.partial, p.plain, p.moved, p.problems = partial.data_ptr(), both[0].data_ptr(), both[1].data_ptr(), n * channels
    kind, shared = "wide" if step > 1 else "one", 8 * p.tile * step * p.lines

    def run():
        k.launch("norm_backward", e, f"sums_{what}_{kind}", (blocks, threads, shared), p)
        k.launch("norm_backward", e, "finish_plain", (up(n * channels, 4), 128, 0), p)
        return both

    run.keep = (partial, p)
    return run


def layer_norm(k, x, grad, weight, parameters):
    rows, channels = x.shape
    e, step, p = NAMES[x.dtype], vector(channels, x, grad, weight), Norm()
    out, stats = torch.full_like(x, float("nan")), blank(rows, 2)
    p.x, p.grad, p.out, p.weight = (t.data_ptr() for t in (x, grad, out, weight))
    p.rows_of = stats.data_ptr() if parameters else None
    p.points, p.channels, p.eps = rows, channels, 1e-5
    shape = lanes(channels // step) if step > 1 else None
    p.tile = shape[0] if shape else 0
    name, blocks = (f"layer_input_{shape[1]}", up(rows, 256 // shape[0])) if shape else ("layer_input_any", min(rows, 1 << 16))
    more = Norm()
    ctypes.memmove(ctypes.byref(more), ctypes.byref(p), ctypes.sizeof(Norm))
    after = sums(k, e, "layer", step, (1, rows, channels), more) if parameters else None

    def run():
        k.launch("norm_backward", e, name, (blocks, 256, 0), p)
        return (out, *(after() if after else ()))

    run.keep = (x, grad, weight, stats, after)
    return run


def sum_rows(k, x, outer):
    channels = x.shape[-1]
    p = Norm()
    p.grad, p.points, p.channels = x.data_ptr(), x.numel() // outer // channels, channels
    run = sums(k, NAMES[x.dtype], "plain", vector(channels, x), (outer, p.points, channels), p)
    return lambda: run()[0]


def point(k, name, x, grad, shape, values, columns, activation=0, width=0):
    e, out = NAMES[grad.dtype], blank(*shape, dtype=grad.dtype)
    step = vector(columns, grad, x) if name != "softmax" else 1
    p = Point(x.data_ptr() if x is not None else None, grad.data_ptr(), out.data_ptr(), values // step, columns // step, width,
              activation)
    blocks = min(up(values // step, 256), 64 * k.processors)
    if name == "softmax":
        short = vector(columns, grad, x) > 1 and columns <= 128 * vector(columns, grad, x)
        name, blocks = ("softmax_warps", up(values, 8)) if short else ("softmax_rows", min(values, 1 << 20))
    else:
        name += "_wide" if step > 1 else "_one"

    def run():
        k.launch("pointwise_backward", e, name, (blocks, 256, 0), p)
        return (out,)

    run.keep = (x, grad)
    return run


def rope(k, x, cos, sin, halves, sign):
    (_, _, heads, dim), pairs, out = x.shape, cos.shape[-1], torch.full_like(x, float("nan"))
    step = vector(dim, x)
    step = step if (pairs if halves else 2 * pairs) % step == 0 else 1
    p = Rope(x.data_ptr(), out.data_ptr(), cos.data_ptr(), sin.data_ptr(), x.numel() // step, cos.numel() // pairs, heads, dim, pairs,
             halves, sign)
    blocks = min(up(x.numel() // step, 256), 64 * k.processors)

    def run():
        k.launch("rope", NAMES[x.dtype], "rotate_wide" if step > 1 else "rotate_one", (blocks, 256, 0), p)
        return (out,)

    run.keep = (x, cos, sin)
    return run


def combine(k, terms):
    out, p = blank(*terms[0][1].shape), Combine()
    count = out.numel()
    wide = count % 4 == 0 and all(t.data_ptr() % 16 == 0 for _, t in terms)
    for i, (weight, t) in enumerate(terms):
        p.term[i], p.weight[i], p.kind[i] = t.data_ptr(), weight, ["f32", "f16", "bf16"].index(NAMES[t.dtype])
    p.out, p.count, p.terms = out.data_ptr(), count // (4 if wide else 1), len(terms)
    blocks = min(up(p.count, 256), 64 * k.processors)

    def run():
        k.launch("combine", "f32", "combine_wide" if wide else "combine_one", (blocks, 256, 0), p)
        return (out,)

    run.keep = terms
    return run


def activate(x, kind):
    return {"none": lambda: x, "silu": lambda: F.silu(x), "relu": lambda: F.relu(x), "gelu": lambda: F.gelu(x),
            "quick_gelu": lambda: x * torch.sigmoid(1.702 * x)}[kind]()


def norm_of(x, weight, bias, groups, kind, added=None, film=(None, None)):
    """x [n, points, channels], as channels-last pictures for PyTorch."""
    if added is not None:
        x = x + added.repeat_interleave(x.shape[0] // added.shape[0], 0)[:, None]
    y = F.group_norm(x.transpose(1, 2), groups, weight, bias, 1e-5).transpose(1, 2)
    if film[0] is not None:
        y = y * (1 + film[0][:, None]) + film[1][:, None]
    return activate(y, kind)


def turn(x, cos, sin, halves):
    n = cos.shape[-1]
    cos, sin = cos[..., None, :], sin[..., None, :]
    a, b = (x[..., :n], x[..., n:2 * n]) if halves else (x[..., :2 * n:2], x[..., 1:2 * n:2])
    a, b = a * cos - b * sin, b * cos + a * sin
    both = torch.cat((a, b), -1) if halves else torch.stack((a, b), -1).flatten(-2)
    return torch.cat((both, x[..., 2 * n:]), -1)


def test(k, wanted):
    torch.manual_seed(0)
    limits, bad, count = {torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}, 0, 0

    def make(dtype, *shape, shift=0.0):
        return (torch.randn(*shape, device="cuda") + shift).to(dtype)

    def compare(name, dtype, got, reference):
        nonlocal bad, count
        for i, (g, r) in enumerate(zip(got, reference)):
            error = ((g.double() - r).abs().max() / r.abs().max().clamp_min(1e-30)).item() if r.numel() else 0.0
            count += 1
            if not error <= limits[dtype]:
                bad += 1
                print(f"WRONG {name} {NAMES[dtype]} result {i}: {error:.2e}")

    def wide(*tensors):
        return [t.double().requires_grad_() for t in tensors]

    for dtype in limits:
        for n, points, c, groups, shift in [(2, 300, 320, 32, 0), (3, 7, 10, 5, 0), (1, 5, 3, 1, 0), (1, 2000, 64, 32, 0), (5, 33, 1920, 32, 0),
                                            (1, 9, 2560, 32, 0), (1, 5, 8320, 32, 0), (300, 6, 24, 3, 0), (1, 700, 64, 32, 20)]:
            for kind in ACTIVATIONS:
                for more in ("", "added", "film"):
                    name = f"group_norm {n}x{points}x{c}/{groups} {kind} {more} {shift}"
                    if wanted not in name or (kind not in ("none", "silu") and c != 320):
                        continue
                    x, grad = make(dtype, n, points, c, shift=shift), make(dtype, n, points, c)
                    w, b = make(dtype, c), make(dtype, c)
                    added = make(dtype, max(n // 2, 1) if n % 2 == 0 else n, c) if more == "added" else None
                    film = (make(dtype, n, c), make(dtype, n, c)) if more == "film" else (None, None)
                    got = group_norm(k, x, grad, w, b, groups, ACTIVATIONS[kind], added, film)()
                    X, W, B = wide(x, w, b)
                    A = added.double() if added is not None else None
                    S = tuple(f.double() if f is not None else None for f in film)
                    norm_of(X, W, B, groups, kind, A, S).backward(grad.double())
                    scale = 1 + S[0] if more == "film" else torch.ones(n, c, device="cuda", dtype=torch.double)
                    ours = (got[0], (got[2].double() * scale).sum(0), (got[1].double() * scale).sum(0))
                    compare(name, dtype, ours, (X.grad, W.grad, B.grad))
        for rows, c in [(1, 8), (5, 16), (3, 15), (300, 96), (77, 320), (41, 640), (19, 1280), (7, 2560), (6, 257), (4, 3000), (33, 768)]:
            name = f"layer_norm {rows}x{c}"
            if wanted in name:
                x, grad, w, b = make(dtype, rows, c), make(dtype, rows, c), make(dtype, c), make(dtype, c)
                out, plain, moved = layer_norm(k, x, grad, w, True)()
                X, W, B = wide(x, w, b)
                F.layer_norm(X, (c,), W, B, 1e-5).backward(grad.double())
                compare(name, dtype, (out, moved[0], plain[0]), (X.grad, W.grad, B.grad))
                assert torch.equal(layer_norm(k, x, grad, w, False)()[0], out)
        for outer, rows, c in [(1, 1, 1), (1, 1000, 320), (3, 77, 24), (5, 9, 7), (2, 4000, 1280)]:
            if wanted in "sum_rows":
                x = make(dtype, outer, rows, c)
                compare(f"sum_rows {outer}x{rows}x{c}", dtype, (sum_rows(k, x, outer)(),), (x.double().sum(1),))
        for rows, half in [(1, 1), (3, 7), (65, 320), (9, 1280), (1000, 40)]:
            for kind in list(ACTIVATIONS)[1:]:
                if wanted in kind:
                    x, grad = 4 * make(dtype, rows, half), make(dtype, rows, half)
                    columns = 8 if (rows * half) % 8 == 0 else 1
                    got = point(k, "activate", x, grad, x.shape, x.numel(), columns, ACTIVATIONS[kind])()
                    (X,) = wide(x)
                    activate(X, kind).backward(grad.double())
                    compare(f"{kind} {rows}x{half}", dtype, got, (X.grad,))
            x, grad = 2 * make(dtype, rows, 2 * half), make(dtype, rows, half)
            if wanted in "geglu":
                (X,) = wide(x)
                (X[:, :half] * F.gelu(X[:, half:])).backward(grad.double())
                compare(f"geglu {rows}x{half}", dtype, point(k, "geglu", x, grad, x.shape, grad.numel(), half)(), (X.grad,))
            if wanted in "softmax":
                y, g = x.float().softmax(-1).to(dtype), make(dtype, rows, 2 * half)
                want = y.double() * (g.double() - (y.double() * g.double()).sum(-1, keepdim=True))
                compare(f"softmax {rows}x{half}", dtype, point(k, "softmax", y, g, y.shape, rows, 2 * half)(), (want,))
        for n, h, w, c in [(1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 6, 64), (1, 9, 1, 320)]:
            if wanted in "halve":
                grad = make(dtype, n, 2 * h, 2 * w, c)
                want = grad.double().reshape(n, h, 2, w, 2, c).sum((2, 4))
                compare("halve", dtype, point(k, "halve", None, grad, (n, h, w, c), grad.numel() // 4, c, width=w)(), (want,))
        for shape, pairs in [((1, 1, 1, 2), 1), ((2, 5, 3, 16), 8), ((2, 3, 1, 20), 6), ((1, 4, 2, 7), 3), ((2, 30, 3, 128), 48)]:
            for halves in (0, 1):
                if wanted in "rope":
                    x, angle = make(dtype, *shape), 3 * torch.randn(*shape[:2], pairs, device="cuda")
                    cos, sin = angle.cos(), angle.sin()
                    want = turn(x.double(), cos.double(), sin.double(), halves)
                    compare(f"rope {shape} {pairs} {halves}", dtype, rope(k, x, cos, sin, halves, 1.0)(), (want,))
                    back = turn(x.double(), cos.double(), -sin.double(), halves)
                    compare(f"rope back {shape} {pairs} {halves}", dtype, rope(k, x, cos, sin, halves, -1.0)(), (back,))
    for count_of in (1, 7, 4096, 262144):
        if wanted in "combine":
            terms = [(7.5, make(torch.float16, count_of)), (-6.5, make(torch.bfloat16, count_of)), (0.3, make(torch.float32, count_of)),
                     (0.1, make(torch.float32, count_of))]
            want = sum(weight * t.double() for weight, t in terms)
            compare("combine", torch.float32, combine(k, terms)(), (want,))
    print(f"{count} results compared, {bad} wrong")
    return bad


def median(work):
    """Milliseconds of a recorded and replayed run."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    repeats = 5
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    times = []
    for _ in range(9):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / repeats)
    return sorted(times)[len(times) // 2]


def bench(k, wanted):
    dtype, half = torch.float16, 2
    make = lambda *shape: torch.randn(*shape, device="cuda").to(dtype)
    print("row | ours ms | floor ms | of 3.0 TB/s | PyTorch ms | PyTorch / ours")

    def row(name, values, ours, theirs):
        if wanted not in name:
            return
        ms, floor = median(ours()), values * half / 3e9
        try:
            peer = median(theirs())
        except RuntimeError as error:
            torch.cuda.synchronize()
            print("  peer:", str(error).splitlines()[0][:100])
            peer = float("nan")
        print(f"{name} | {ms:.4f} | {floor:.4f} | {100 * floor / ms:.0f} % | {peer:.4f} | {peer / ms:.2f}", flush=True)
        torch.cuda.empty_cache()

    def backward(forward, *operands, grad=None):
        """PyTorch's way back alone."""
        def prepared():
            # A graph records the way back on the stream of the way forward.
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                leaves = [x.detach().requires_grad_() for x in operands]
                y = forward(*leaves)
                g = torch.randn_like(y) if grad is None else grad
            torch.cuda.current_stream().wait_stream(stream)
            return lambda: torch.autograd.grad(y, leaves, g, retain_graph=True)
        return prepared

    for n, points, c, kind in [(32, 4096, 320, "silu"), (2, 65536, 320, "silu"), (32, 4096, 320, "none"), (32, 4096, 960, "silu"),
                               (32, 1024, 640, "silu"), (32, 1024, 1920, "silu"), (32, 256, 1280, "silu"), (32, 64, 1280, "silu")]:
        w, b = make(c), make(c)
        row(f"group_norm {kind} {n}x{points}x{c}", 3 * n * points * c,
            lambda: group_norm(k, make(n, points, c), make(n, points, c), w, b, 32, ACTIVATIONS[kind]),
            backward(lambda x: norm_of(x, w, b, 32, kind), make(n, points, c)))
    for rows, c in [(131072, 320), (32768, 640), (8192, 1280), (2048, 1280)]:
        w, b = make(c), make(c)
        row(f"layer_norm {rows}x{c}", 3 * rows * c, lambda: layer_norm(k, make(rows, c), make(rows, c), w, False),
            backward(lambda x: F.layer_norm(x, (c,), w, b, 1e-5), make(rows, c)))
        row(f"layer_norm {rows}x{c} and parameters", 3 * rows * c, lambda: layer_norm(k, make(rows, c), make(rows, c), w, True),
            backward(lambda x, w, b: F.layer_norm(x, (c,), w, b, 1e-5), make(rows, c), w, b))
    for rows, c in [(131072, 1280), (32768, 2560)]:
        row(f"geglu {rows}x{c}", 5 * rows * c, lambda: point(k, "geglu", make(rows, 2 * c), make(rows, c), (rows, 2 * c), rows * c, c),
            backward(lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]), make(rows, 2 * c)))
    for kind in ("silu", "gelu"):
        row(f"{kind} 131072x320", 3 * 131072 * 320,
            lambda: point(k, "activate", make(131072, 320), make(131072, 320), (131072, 320), 131072 * 320, 8, ACTIVATIONS[kind]),
            backward(lambda x: activate(x, kind), make(131072, 320)))
    for rows, c in [(131072, 256), (8192, 4096)]:
        y = make(rows, c).softmax(-1)
        row(f"softmax {rows}x{c}", 3 * rows * c, lambda: point(k, "softmax", y, make(rows, c), (rows, c), rows, c),
            backward(lambda x: x.softmax(-1), make(rows, c)))
    n, h, w, c = 32, 32, 32, 640
    row(f"upsample {n}x{h}x{w}x{c}", 5 * n * h * w * c,
        lambda: point(k, "halve", None, make(n, 2 * h, 2 * w, c), (n, h, w, c), n * h * w * c, c, width=w),
        backward(lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
                 make(n, c, h, w).to(memory_format=torch.channels_last),
                 grad=make(n, c, 2 * h, 2 * w).to(memory_format=torch.channels_last)))
    row("sum over rows 131072x320", 131072 * 320, lambda: sum_rows(k, make(131072, 320), 1),
        lambda: (lambda x: lambda: x.sum(0))(make(131072, 320)))
    for shape, halves in [((32, 4096, 8, 40), 0), ((1, 16384, 16, 128), 1)]:
        pairs = shape[-1] // 2
        angle = torch.randn(shape[1], pairs, device="cuda")
        x, cos, sin = make(*shape), angle.cos(), angle.sin()
        half_cos, half_sin = cos.to(dtype), sin.to(dtype)
        row(f"rope {'x'.join(map(str, shape))} {'halves' if halves else 'interleaved'}", 2 * x.numel(),
            lambda: rope(k, x, cos, sin, halves, 1.0), lambda: lambda: turn(x, half_cos, half_sin, halves))
    for count in (16 * 64 * 64 * 4, 16 * 128 * 128 * 16):
        if wanted not in f"guidance and DDIM step of {count}":
            continue
        c, u = make(count), make(count)
        x = torch.randn(count, device="cuda")

        def step():
            guided = u.float() + 7.5 * (c.float() - u.float())
            clean = 1.2 * x - 0.4 * guided
            return 0.9 * clean + 0.3 * guided

        row(f"guidance and DDIM step of {count}", 6 * count, lambda: combine(k, [(0.7, c), (-0.6, u), (0.9, x)]), lambda: step)


def layers(k, wanted):
    """PyTorch's way back through the layers of examples/cuda_backward_bench.rs: gradients by input and by weight."""
    make = lambda *shape: 0.1 * torch.randn(*shape, device="cuda").half()
    picture = lambda *shape: make(*shape).to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True

    def row(name, flops, forward, *operands):
        stream = torch.cuda.Stream()
        for which, by in enumerate(("by input", "by weight")[:len(operands)]):
            if wanted not in name:
                continue
            with torch.cuda.stream(stream):
                leaf = operands[which].detach().requires_grad_()
                y = forward(*(leaf if i == which else x for i, x in enumerate(operands)))
                g = torch.randn_like(y)
            torch.cuda.synchronize()
            ms = median(lambda: torch.autograd.grad(y, leaf, g, retain_graph=True))
            print(f"{name} {by} | {ms:.4f} ms | {flops / ms / 1e9:.0f} TFLOP/s", flush=True)

    for n, size, inner, out, stride in [(32, 64, 320, 320, 1), (32, 32, 640, 640, 1), (32, 16, 1280, 1280, 1), (32, 64, 640, 320, 1),
                                        (32, 64, 320, 320, 2)]:
        row(f"conv3x3/{stride} {n}x{size}x{size} {inner}->{out}", 18 * n * (size // stride) ** 2 * inner * out,
            lambda x, w: F.conv2d(x, w, None, stride, 1), picture(n, inner, size, size), picture(out, inner, 3, 3))
    w = picture(640, 640, 3, 3)
    row("upsample + conv3x3 32x32x32 640->640", 8 * 32 * 64 * 64 * 640 * 640,
        lambda x: F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), w, None, 1, 1), picture(32, 640, 32, 32))
    for rows, inner, out in [(131072, 320, 320), (131072, 320, 2560), (32768, 640, 640), (8192, 1280, 1280)]:
        row(f"linear {rows}x{inner}x{out}", 2 * rows * inner * out, lambda x, w: F.linear(x, w), make(rows, inner), make(out, inner))
    w = make(2560, 320)
    row("gated linear 131072x320x1280", 4 * 131072 * 320 * 2560,
        lambda x: (lambda v, g: v * F.gelu(g))(*F.linear(x, w).chunk(2, -1)), make(131072, 320))


if __name__ == "__main__":
    kernels, wanted = Kernels(sys.argv[1]), sys.argv[3] if len(sys.argv) > 3 else ""
    torch.zeros(1, device="cuda")
    sys.exit(1 if {"test": test, "bench": bench, "layers": layers}[sys.argv[2]](kernels, wanted) else 0)
