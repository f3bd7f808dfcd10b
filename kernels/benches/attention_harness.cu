// Attention kernels on a card without a Rust build: correctness, fuzz, graph replay, timing.
//
// Every kernel is checked on sampled rows against f64 arithmetic on the card. Build and run:
//
//   nvcc -O2 -arch=sm_90a -std=c++17 --expt-relaxed-constexpr -DELEMENT=__half -I../cuda attention_harness.cu -o harness
//   for s in short cross flash exact hopper; do nvcc -cubin -arch=sm_90a -std=c++17 -O3 --expt-relaxed-constexpr \
//     -DELEMENT=__half ../cuda/$s.cu -o $s.cubin; done
//   harness test | graph | fuzz | sanitize | bench [ROW] [KERNEL] [MS] | sparse ROW KERNEL MS BLOCK_Q BLOCK_K
//
// Hopper kernels are found by name: h_d40_k128_g3_s22_x64_old.cubin is a copy of hopper.cubin whose d = 40 kernel has key
// tiles of 128, 3 groups, 2 stages of keys and of values, boxes of 64 columns; _Bold in place of _old is the one for lists.
#include "common.cuh"
#include <cuda.h>
#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
#include <cmath>
#include <cstring>
#include <vector>
#include <string>
#include <map>
#include <algorithm>
#include <glob.h>
#define CK(x) do { cudaError_t e_ = (x); if (e_ != cudaSuccess) { printf("%s:%d %s\n", __FILE__, __LINE__, cudaGetErrorString(e_)); fflush(stdout); exit(1);} } while (0)
struct HopperParams { CUtensorMap q, k, v; AttentionParams p; };
typedef CUresult (*EncTiled)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
EncTiled enc_tiled;
typedef ELEMENT T;
__device__ unsigned mix(unsigned x) { x ^= x >> 16; x *= 0x7feb352du; x ^= x >> 15; x *= 0x846ca68bu; x ^= x >> 16; return x; }
__global__ void fill(T *x, size_t n, unsigned seed, float scale) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
    float s = 0; for (int j = 0; j < 4; ++j) s += mix(mix((unsigned)i + seed) + j * 77u) * (1.f / 4294967296.f) - .5f;
    x[i] = from_float<T>(s * 1.732f * scale);
  }
}
// One block a sampled row: the reference in f64, error sums into acc[0..1], lse error max into acc[2].
__global__ void verify(AttentionParams p, size_t rows, size_t samples, float *scratch, double *acc) {
  size_t si = blockIdx.x;
  size_t r = samples >= rows ? si : (size_t)((double)si / samples * rows) + mix(si) % 61; if (r >= rows) r = rows - 1;
  unsigned problem = r / p.queries; int query = r % p.queries;
  Place at = place_of(p, problem);
  int limit = key_limit(p, at);
  const T *q = (const T *)p.q + offset_of(p.q_stride, at, at.head) + query * p.q_stride[3];
  const T *k = (const T *)p.k + offset_of(p.k_stride, at, at.head / p.group);
  const T *v = (const T *)p.v + offset_of(p.v_stride, at, at.head / p.group);
  const T *o = (const T *)p.out + offset_of(p.out_stride, at, at.head) + query * p.out_stride[3];
  float *s = scratch + (size_t)si * p.keys;
  __shared__ double red[256]; __shared__ float qs[256];
  for (int c = threadIdx.x; c < p.dim; c += blockDim.x) qs[c] = to_float(q[c]);
  __syncthreads();
  double mx = -INFINITY;
  for (int j = threadIdx.x; j < p.keys; j += blockDim.x) {
    double d = 0; for (int c = 0; c < p.dim; ++c) d += (double)qs[c] * to_float(k[j * p.k_stride[3] + c]);
    d *= p.scale_log2;
    bool seen = j < limit; if (p.mask == MASK_CAUSAL) seen = seen && j <= query + p.keys - p.queries;
    if (p.mask == MASK_BLOCKS) {
      int block_rows = (p.queries + p.block_q - 1) / p.block_q, row = problem % p.block_planes * block_rows + query / p.block_q; bool in = false;
      for (int i = p.block_start[row]; i < p.block_start[row + 1]; ++i) in |= p.block_index[i] == j / p.block_k;
      seen = seen && in;
    }
    if (!seen) d = -INFINITY; s[j] = d; mx = fmax(mx, d);
  }
  red[threadIdx.x] = mx; __syncthreads();
  for (int b = 128; b; b /= 2) { if (threadIdx.x < b) red[threadIdx.x] = fmax(red[threadIdx.x], red[threadIdx.x + b]); __syncthreads(); }
  mx = red[0]; __syncthreads(); double base = mx == -INFINITY ? 0 : mx, sum = 0;
  for (int j = threadIdx.x; j < p.keys; j += blockDim.x) { double e = exp2((double)s[j] - base); s[j] = e; sum += e; }
  red[threadIdx.x] = sum; __syncthreads();
  for (int b = 128; b; b /= 2) { if (threadIdx.x < b) red[threadIdx.x] += red[threadIdx.x + b]; __syncthreads(); }
  sum = red[0]; __syncthreads();
  double e2 = 0, w2 = 0;
  for (int c = threadIdx.x; c < p.dim; c += blockDim.x) {
    double a = 0; for (int j = 0; j < p.keys; ++j) if (s[j] != 0) a += (double)s[j] * to_float(v[j * p.v_stride[3] + c]);
    a = sum == 0 ? 0 : a / sum; double e = (double)to_float(o[c]) - a; if (!(fabs(e) < 1e30)) e = 1e15;
    e2 += e * e, w2 += a * a;
  }
  atomicAdd(acc, e2); atomicAdd(acc + 1, w2);
  if (p.lse && threadIdx.x == 0) { double l = sum == 0 ? -INFINITY : (mx + log2(sum)) * 0.6931471805599453, g = p.lse[(size_t)problem * p.queries + query]; double e = l == g ? 0 : fabs(l - g) / fmax(1., fabs(l)); if (!(e < 1e15)) e = 1e15; atomicAdd(acc + 2, e); }
}
struct Kernel { std::string name, kind; int d, keys, groups, stages, extra; const void *f; int threads; bool cut_only; int qtile; };
struct Row { const char *name; int b, h, hk, nq, nk, d, mask; };
Row bench[] = {
  {"sd15 spatial64", 32, 8, 8, 4096, 4096, 40, 0}, {"sd15 spatial32", 32, 8, 8, 1024, 1024, 80, 0}, {"sd15 spatial16", 32, 8, 8, 256, 256, 160, 0},
  {"sd15 cross64", 32, 8, 8, 4096, 77, 40, 0}, {"sd15 cross32", 32, 8, 8, 1024, 77, 80, 0}, {"sd15 cross16", 32, 8, 8, 256, 77, 160, 0},
  {"sd15 temporal64", 8192, 8, 8, 16, 16, 40, 0}, {"sd15 temporal32", 2048, 8, 8, 16, 16, 80, 0}, {"sd15 temporal16", 512, 8, 8, 16, 16, 160, 0},
  {"temporal64 f32", 8192, 8, 8, 32, 32, 40, 0}, {"temporal64 f64", 4096, 8, 8, 64, 64, 40, 0}, {"dynami temporal", 5120, 5, 5, 16, 16, 64, 0},
  {"sparse-causal64", 16, 8, 8, 4096, 8192, 40, 0}, {"dynami spatial", 32, 5, 5, 2560, 2560, 64, 0}, {"vision tower 16k", 1, 16, 16, 16384, 16384, 72, 0},
  {"dit 32k d128", 1, 24, 24, 32768, 32768, 128, 0}, {"prefill 16k", 1, 12, 12, 16384, 16384, 128, 1}, {"4k d64", 4, 32, 32, 4096, 4096, 64, 0},
  {"16k d64", 1, 32, 32, 16384, 16384, 64, 0}, {"4k d128", 4, 16, 16, 4096, 4096, 128, 0}, {"16k d128", 1, 16, 16, 16384, 16384, 128, 0}, {"16k d128 causal", 1, 16, 16, 16384, 16384, 128, 1},
  {"16k d64 causal", 1, 32, 32, 16384, 16384, 64, 1},
};
std::vector<Kernel> kernels;
int sms;
cudaLibrary_t load(const char *path) { cudaLibrary_t l; cudaError_t e = cudaLibraryLoadFromFile(&l, path, 0, 0, 0, 0, 0, 0); if (e != cudaSuccess) { printf("%s %s\n", path, cudaGetErrorString(e)); exit(1); } return l; }
const void *get(cudaLibrary_t l, const std::string &n) { cudaKernel_t k; if (cudaLibraryGetKernel(&k, l, n.c_str()) != cudaSuccess) { cudaGetLastError(); return nullptr; } return (const void *)k; }
int tiled_dim(int d) { for (int x : {32, 48, 64, 80, 96, 128, 160, 192, 256}) if (d <= x) return x; return 0; }
bool register_dim(int d) { for (int x : {32, 40, 64, 80, 96, 128, 160}) if (d == x) return true; return false; }
std::map<std::string, cudaLibrary_t> libs;

int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  std::string mode = argc > 1 ? argv[1] : "bench", rf = argc > 2 ? argv[2] : "", kf = argc > 3 ? argv[3] : "";
  float reps_ms = argc > 4 ? atof(argv[4]) : 15.f;
  cudaDeviceProp prop; CK(cudaGetDeviceProperties(&prop, 0)); sms = prop.multiProcessorCount;
  cudaDriverEntryPointQueryResult qr; CK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&enc_tiled, 12000, cudaEnableDefault, &qr));
  if (mode != "sanitize") printf("# %s %d SMs\n", prop.name, sms);
  for (const char *s : {"short", "cross", "flash", "exact"}) { FILE *f = fopen((std::string(s) + ".cubin").c_str(), "r"); if (f) { fclose(f); libs[s] = load((std::string(s) + ".cubin").c_str()); Kernel k{s, s, 0, 0, 0, 0, 0, nullptr, 0, false, 0}; kernels.push_back(k); } }
  glob_t g; if (glob("h_*.cubin", 0, 0, &g) == 0) for (size_t i = 0; i < g.gl_pathc; ++i) {
    Kernel k; k.name = g.gl_pathv[i]; k.name = k.name.substr(0, k.name.size() - 6); k.kind = "hopper"; k.extra = 0;
    if (!kf.empty() && k.name.find(kf) == std::string::npos) continue;
    k.extra = 64; if (sscanf(k.name.c_str(), "h_d%d_k%d_g%d_s%d_x%d", &k.d, &k.keys, &k.groups, &k.stages, &k.extra) < 4) { printf("name %s\n", k.name.c_str()); continue; }
    cudaLibrary_t l = load(g.gl_pathv[i]); bool old = k.name.find("old") != std::string::npos; k.f = get(l, old ? (k.name.find("_B") != std::string::npos ? "attention_blocks_d" : "attention_hopper_d") + std::to_string(k.d) : std::string("attention_hopper")); if (k.stages < 10) k.stages *= 11; if (!k.f) { printf("no kernel in %s\n", g.gl_pathv[i]); continue; }
    k.threads = 128 * (k.groups + 1); kernels.push_back(k);
  }
  double *acc; CK(cudaMalloc(&acc, 32));
  int bad_total = 0, ran = 0;
  auto run = [&](Row &r, bool timing, int layout, float qscale, int want_lse, int sparse) {
    size_t nq = (size_t)r.b * r.h * r.nq * r.d, nk = (size_t)r.b * r.hk * r.nk * r.d, rows = (size_t)r.b * r.h * r.nq;
    T *q, *k, *v, *o; float *lse = nullptr, *scratch;
    size_t samples = timing ? std::min<size_t>(rows, 512) : std::min<size_t>(rows, mode == "sanitize" ? 16 : mode == "fuzz" ? 96 : 4096);
    CK(cudaMalloc(&q, nq * 2 + 16)); CK(cudaMalloc(&k, nk * 2 + 16)); CK(cudaMalloc(&v, nk * 2 + 16)); CK(cudaMalloc(&o, nq * 2 + 16)); CK(cudaMalloc(&lse, rows * 4 + 16)); CK(cudaMalloc(&scratch, samples * r.nk * 4 + 16));
    int fb = timing ? 1024 : 64; fill<<<fb, 256>>>(q, nq, 1, qscale); fill<<<fb, 256>>>(k, nk, 20000001, 1.f); fill<<<fb, 256>>>(v, nk, 40000003, 1.f);
    AttentionParams p; memset(&p, 0, sizeof p);
    p.q = q, p.k = k, p.v = v, p.out = o, p.lse = want_lse ? lse : nullptr;
    p.batch = r.b, p.inner = 1, p.heads = r.h, p.group = r.h / r.hk, p.queries = r.nq, p.keys = r.nk, p.dim = r.d, p.mask = r.mask;
    p.scale_log2 = 1.4426950408889634 / sqrt((double)r.d);
    bool frames = r.nq <= 64 && r.b > 64;
    auto strides = [&](long long *s, int heads, int tokens, int lay) {
      if (lay == 0) s[0] = (long long)heads * tokens * r.d, s[1] = s[0], s[2] = (long long)tokens * r.d, s[3] = r.d;
      else if (frames && lay == 1) s[0] = (long long)tokens * r.b * heads * r.d, s[1] = heads * r.d, s[2] = r.d, s[3] = (long long)r.b * heads * r.d;
      else s[0] = (long long)heads * tokens * r.d, s[1] = s[0], s[2] = r.d, s[3] = (long long)heads * r.d;
    };
    if (frames && layout == 1) p.batch = 1, p.inner = r.b;
    strides(p.q_stride, r.h, r.nq, layout), strides(p.k_stride, r.hk, r.nk, layout), strides(p.v_stride, r.hk, r.nk, layout), strides(p.out_stride, r.h, r.nq, layout == 0 ? 2 : layout);
    int *bstart = nullptr, *bindex = nullptr; double computed = 1;
    std::vector<int> lens(r.b); int *dlens = nullptr;
    if (r.mask == MASK_LENGTHS) { for (int i = 0; i < r.b; ++i) lens[i] = (i * 7 + r.nk / 2 + 1) % (r.nk + 1); CK(cudaMalloc(&dlens, r.b * 4)); CK(cudaMemcpy(dlens, lens.data(), r.b * 4, cudaMemcpyHostToDevice)); p.lengths = dlens; }
    if (r.mask == MASK_BLOCKS) {
      p.block_q = sparse & 0xfff, p.block_k = (sparse >> 12) & 0xfff; int keep = sparse >> 24; p.block_planes = timing ? r.h : std::min(r.h, 2); if (r.h % p.block_planes) p.block_planes = 1;
      int brows = (r.nq + p.block_q - 1) / p.block_q, bcols = (r.nk + p.block_k - 1) / p.block_k; std::vector<int> st, ix; st.push_back(0); srand(7);
      for (int i = 0; i < p.block_planes * brows; ++i) { 
        if (timing) { int want = std::max(1, bcols * keep / 100); std::vector<int> perm(bcols); for (int c = 0; c < bcols; ++c) perm[c] = c; for (int c = 0; c < want; ++c) std::swap(perm[c], perm[c + rand() % (bcols - c)]); std::sort(perm.begin(), perm.begin() + want); for (int c = 0; c < want; ++c) ix.push_back(perm[c]); }
        else for (int c = 0; c < bcols; ++c) if (rand() % 100 < keep) ix.push_back(c); 
        st.push_back(ix.size()); }
      computed = (double)ix.size() / ((double)p.block_planes * brows * bcols);
      ix.push_back(0);
      CK(cudaMalloc(&bstart, st.size() * 4)); CK(cudaMalloc(&bindex, ix.size() * 4)); CK(cudaMemcpy(bstart, st.data(), st.size() * 4, cudaMemcpyHostToDevice)); CK(cudaMemcpy(bindex, ix.data(), ix.size() * 4, cudaMemcpyHostToDevice));
      p.block_start = bstart, p.block_index = bindex;
    }
    CK(cudaDeviceSynchronize());
    for (auto &kn : kernels) {
      if (!kf.empty() && kn.name.find(kf) == std::string::npos) continue;
      HopperParams hp; memset(&hp, 0, sizeof hp); const void *f = nullptr; int threads = 0, bytes = 0; unsigned blocks = 0; AttentionParams pk = p;
      size_t problems = (size_t)r.b * r.h;
      if (kn.kind == "short") {
        if (r.nq > 64 || r.nk > 64 || !register_dim(r.d) || r.mask >= 3) continue;
        int kg = (r.nk + 15) / 16; kg = kg <= 1 ? 1 : kg <= 2 ? 2 : 4; f = get(libs["short"], "attention_short_d" + std::to_string(r.d) + "_k" + std::to_string(kg)); pk.tiles = (r.nq + 15) / 16; threads = 128; blocks = (problems * pk.tiles + 3) / 4;
      } else if (kn.kind == "cross") {
        if (r.nk > 128 || !register_dim(r.d) || (r.mask != 0 && r.mask != 2) || (frames && timing)) continue;
        int kg = 8; for (int x : {8, 5, 2, 1}) if (r.nk <= 16 * x) kg = x; f = get(libs["cross"], "attention_cross_d" + std::to_string(r.d) + "_k" + std::to_string(kg));
        int strips = (r.nq + 15) / 16, full = (strips + 63) / 64, wanted = std::min<int>((4 * sms + problems - 1) / problems, (strips + 7) / 8); pk.tiles = std::max({full, wanted, 1}); threads = 256; bytes = 64 * kg * r.d; blocks = problems * pk.tiles;
      } else if (kn.kind == "flash") {
        if (frames && timing) continue; if (timing && r.nk >= 16384) continue; if (r.mask == MASK_BLOCKS && (p.block_k % 64 || p.block_q % 128)) continue;
        int d = tiled_dim(r.d), qt = d <= 128 ? 128 : 64; f = get(libs["flash"], "attention_flash_d" + std::to_string(d)); pk.tiles = (r.nq + qt - 1) / qt; threads = 2 * qt; bytes = 2 * (d + 8) * (qt + 128); blocks = problems * pk.tiles;
      } else if (kn.kind == "exact") {
        if (timing) continue; pk.tiles = (r.nq + 31) / 32; threads = 256; bytes = 4 * ((32 + 32) * (r.d + 1) + 32 * 17); f = get(libs["exact"], "attention_exact"); blocks = problems * pk.tiles;
      } else {
        if (r.d > kn.d || (r.d < kn.d && (kn.d - r.d > 8 || r.d == 40)) || r.nk <= 64 || r.nq < 64 || r.mask == MASK_LENGTHS || r.mask == MASK_BIAS || (r.mask == MASK_CAUSAL && r.nk < r.nq)) continue;
        int qt = 64 * kn.groups, boxes = (kn.d + kn.extra - 1) / kn.extra; 
        if (r.mask == MASK_BLOCKS && (kn.name.find("_B") == std::string::npos || p.block_q % qt)) continue; if (r.mask != MASK_BLOCKS && kn.name.find("_B") != std::string::npos) continue;
        pk.tiles = (r.nq + qt - 1) / qt; threads = kn.threads; bytes = boxes * 2 * kn.extra * ((kn.d == 72 || kn.d == 160 ? 1 : 2) * qt + (kn.stages / 10 + kn.stages % 10) * kn.keys) + 1024 + 256; blocks = std::min<size_t>(problems * pk.tiles, sms); f = kn.f;
        size_t per = kn.name.find("_O2") != std::string::npos ? 2 : 1; blocks = std::min<size_t>(problems * pk.tiles, sms * per);
        auto map = [&](CUtensorMap *m, const T *x, const long long *s, int heads, int tokens, int rowsbox) {
          cuuint64_t dims[5] = {(cuuint64_t)r.d, (cuuint64_t)tokens, (cuuint64_t)heads, (cuuint64_t)p.inner, (cuuint64_t)p.batch}, st[4] = {(cuuint64_t)s[3] * 2, (cuuint64_t)s[2] * 2, (cuuint64_t)s[1] * 2, (cuuint64_t)s[0] * 2};
          cuuint32_t box[5] = {(cuuint32_t)kn.extra, (cuuint32_t)rowsbox, 1, 1, 1}, one[5] = {1, 1, 1, 1, 1};
          bool bf = sizeof(T) == 2 && std::is_same<T, __nv_bfloat16>::value;
          CUresult e = enc_tiled(m, bf ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 5, (void *)x, dims, st, box, one, CU_TENSOR_MAP_INTERLEAVE_NONE, kn.extra == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : kn.extra == 32 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_32B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
          if (e) { printf("encode %d\n", e); exit(1); }
        };
        map(&hp.q, q, p.q_stride, r.h, r.nq, 64), map(&hp.k, k, p.k_stride, r.hk, r.nk, kn.keys), map(&hp.v, v, p.v_stride, r.hk, r.nk, kn.keys);
      }
      if (!f) { printf("missing %s %s\n", kn.name.c_str(), r.name); continue; }
      if (bytes > 48 << 10) { cudaError_t e = cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes); if (e != cudaSuccess) { printf("%s: %d bytes: %s\n", kn.name.c_str(), bytes, cudaGetErrorString(e)); cudaGetLastError(); continue; } }
      auto launch = [&](bool with_lse, cudaStream_t stream = 0) { AttentionParams pl = pk; pl.lse = with_lse ? lse : nullptr; hp.p = pl; void *a1[] = {&pl}, *a2[] = {&hp}; CK(cudaLaunchKernel(f, dim3(blocks), dim3(threads), kn.kind == "hopper" ? a2 : a1, bytes, stream)); };
      CK(cudaMemset(o, 0xff, nq * 2)); CK(cudaMemset(acc, 0, 32)); CK(cudaMemset(lse, 0xff, rows * 4));
      launch(true); CK(cudaDeviceSynchronize());
      AttentionParams pv = pk; pv.lse = lse;
      bool same = true;
      if (mode == "graph") {
        std::vector<char> want(nq * 2 + rows * 4), got(want.size());
        CK(cudaMemcpy(want.data(), o, nq * 2, cudaMemcpyDeviceToHost)); CK(cudaMemcpy(want.data() + nq * 2, lse, rows * 4, cudaMemcpyDeviceToHost));
        cudaStream_t st; cudaGraph_t gr; cudaGraphExec_t ge; CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
        CK(cudaStreamBeginCapture(st, cudaStreamCaptureModeThreadLocal)); launch(true, st); CK(cudaStreamEndCapture(st, &gr)); CK(cudaGraphInstantiate(&ge, gr, 0));
        for (int i = 0; i < 3; ++i) {
          CK(cudaMemset(o, 0xff, nq * 2)); CK(cudaMemset(lse, 0xff, rows * 4)); CK(cudaDeviceSynchronize());
          CK(cudaGraphLaunch(ge, st)); CK(cudaStreamSynchronize(st));
          CK(cudaMemcpy(got.data(), o, nq * 2, cudaMemcpyDeviceToHost)); CK(cudaMemcpy(got.data() + nq * 2, lse, rows * 4, cudaMemcpyDeviceToHost));
          same = same && got == want;
        }
        CK(cudaGraphExecDestroy(ge)); CK(cudaGraphDestroy(gr)); CK(cudaStreamDestroy(st));
      }
      verify<<<samples, 256>>>(pv, rows, samples, scratch, acc);
      double h[3]; CK(cudaMemcpy(h, acc, 24, cudaMemcpyDeviceToHost));
      double err = h[1] > 0 ? sqrt(h[0] / h[1]) : sqrt(h[0]), tol = std::is_same<T, __nv_bfloat16>::value ? 8e-3 : 1e-3;
      bool bad = !same || !(err < tol && h[2] < 1e-3 * samples); bad_total += bad; ++ran;
      if (!timing) { if (bad || mode == "verbose") printf("%s %s %s b%d h%d/%d q%d k%d d%d m%d lay%d scale%g  err %.2e lse %.1e\n", bad ? "BAD" : "ok ", kn.name.c_str(), r.name, r.b, r.h, r.hk, r.nq, r.nk, r.d, r.mask, layout, qscale, err, h[2] / samples); continue; }
      cudaEvent_t e0, e1; cudaEventCreate(&e0); cudaEventCreate(&e1); float t;
      cudaEventRecord(e0); for (int i = 0; i < 3; ++i) launch(want_lse); cudaEventRecord(e1); CK(cudaEventSynchronize(e1)); cudaEventElapsedTime(&t, e0, e1); t /= 3;
      int count = std::max(2, std::min(400, (int)(reps_ms / t))); std::vector<float> ms;
      for (int rep = 0; rep < 5; ++rep) { cudaEventRecord(e0); for (int i = 0; i < count; ++i) launch(want_lse); cudaEventRecord(e1); CK(cudaEventSynchronize(e1)); cudaEventElapsedTime(&t, e0, e1); ms.push_back(t / count); }
      std::sort(ms.begin(), ms.end());
      double flops = 4.0 * r.b * r.h * (double)r.d * r.nq * r.nk / (r.mask == 1 ? 2 : 1) * computed, by = 2.0 * (2.0 * nq + 2.0 * nk);
      printf("%s %-17s %-8s %-34s %8.4f ms %5.0f TF %5.0f GB/s  (min %.4f) floors %.4f %.4f err %.1e\n", bad ? "BAD" : "ok ", r.name, layout ? "together" : "apart", kn.name.c_str(), ms[2], flops / ms[2] / 1e9, by / ms[2] / 1e6, ms[0], by / 3e9, flops / 7.9e11, err);
      cudaEventDestroy(e0), cudaEventDestroy(e1);
    }
    cudaFree(q), cudaFree(k), cudaFree(v), cudaFree(o), cudaFree(lse), cudaFree(scratch), cudaFree(bstart), cudaFree(bindex), cudaFree(dlens);
  };
  int layouts = mode == "bench1" ? 1 : 2;
  if (mode == "bench" || mode == "bench1") { for (auto &r : bench) if (rf.empty() || std::string(r.name).find(rf) == 0) for (int l = 0; l < layouts; ++l) run(r, true, l, 1.f, 0, 0); }
  else if (mode == "fuzz") {
    unsigned seed = 20261127; auto below = [&](unsigned n) { seed = seed * 1664525u + 1013904223u; return (unsigned)((unsigned long long)(seed >> 4) * n >> 28); };
    int cases = argc > 5 ? atoi(argv[5]) : 10000;
    for (int i = 0; i < cases; ++i) {
      int ds[6] = {40, 64, 72, 80, 128, 160}, d = below(4) ? ds[below(6)] : 8 * (1 + (int)below(32)), most = (int[]){17, 65, 130, 700}[below(4)];
      int nq = 1 + below(most), nk = below(2) ? nq : 1 + (int)below(most), hk = 1 + below(3), h = hk * (1 + below(3)), m = (int[]){0, 0, 1, 2, 4}[below(5)];
      Row r{"z", 1 + (int)below(3), h, hk, nq, nk, d, m}; int bq = (int[]){128, 256, 384}[below(3)], bk = (int[]){64, 128, 72, 200}[below(4)];
      if (i % 1000 == 999) printf("%d cases so far, %d kernel calls, %d bad\n", i + 1, ran, bad_total);
      run(r, false, below(2), below(2) ? 1.f : 4.f, 1, bq | bk << 12 | (10 + below(80)) << 24);
    }
    printf("%d cases, %d kernel calls, %d bad\n", cases, ran, bad_total);
  } else if (mode == "sparse") { for (auto &r : bench) if (rf.empty() || std::string(r.name).find(rf) == 0) { Row x = r; x.mask = 4; int bq = argc > 5 ? atoi(argv[5]) : 128, bk = argc > 6 ? atoi(argv[6]) : 128; for (int keep : {100, 50, 20}) run(x, true, 0, 1.f, 0, bq | bk << 12 | keep << 24); } }
  else {
    std::vector<Row> rows; bool san = mode == "sanitize";
    for (int d : {40, 64, 72, 80, 128, 160}) {
      rows.push_back({"a", 1, 2, 1, 150, 333, d, 0}); rows.push_back({"c", 1, 2, 2, 257, 300, d, 1}); if (san) continue;
      rows.push_back({"b", 3, 4, 4, 64, 65, d, 0}); rows.push_back({"d", 2, 3, 3, 700, 1023, d, 0}); rows.push_back({"e", 5, 8, 2, 513, 513, d, 1}); rows.push_back({"g", 7, 8, 8, 1000, 2048, d, 0}); rows.push_back({"g", 7, 8, 8, 1000, 2048, d, 1}); rows.push_back({"h", 1, 1, 1, 4096, 4097, d, 1}); rows.push_back({"h", 2, 1, 1, 129, 128, d, 0}); rows.push_back({"i", 1, 1, 1, 3000, 200, d, 0});
    }
    for (int d : {32, 40, 64, 80, 96, 128, 160}) { for (int m : {0, 1, 2}) { rows.push_back({"t", san ? 5 : 100, 3, 3, 16, 16, d, m}); rows.push_back({"t", san ? 5 : 100, 4, 2, 23, 23, d, m}); rows.push_back({"t", san ? 5 : 70, 2, 2, 64, 64, d, m}); if (!san) { rows.push_back({"t", 70, 2, 2, 8, 8, d, m}), rows.push_back({"t", 70, 2, 2, 32, 32, d, m}), rows.push_back({"t", 70, 2, 2, 13, 40, d, m}); } } 
      for (int m : {0, 2}) rows.push_back({"x", 2, 2, 2, 301, 77, d, m}), rows.push_back({"x", 2, 2, 1, 301, 4, d, m}), rows.push_back({"x", 2, 2, 2, 301, 128, d, m}); }
    for (auto &r : rows) if (rf.empty() || rf == r.name) for (int l = 0; l < 2; ++l) for (float sc : {1.f, 8.f, 64.f}) if (!san || (l == 1 && sc == 1.f)) run(r, false, l, sc, 1, 0);
    if (!san || true) for (int d : {40, 64, 80, 128, 160}) for (int bq : {384, 128}) for (int bk : {384, 128, 64, 200}) for (int keep : {50, 10}) { if (san && (bq == 384 || keep == 10)) continue; Row x{"s", san ? 1 : 2, 4, 2, san ? 500 : 1500, san ? 1000 : 3000, d, 4}; if (rf.empty() || rf == "s") run(x, false, 1, 1.f, 1, bq | bk << 12 | keep << 24); }
    printf("%d ran, %d bad\n", ran, bad_total);
  }
}
