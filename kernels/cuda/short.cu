// Attention over very many very short sequences: a video's time axes.
//
// Bound by memory: every value is read once, in place, through its strides. A warp owns 16 queries
// of one sequence and head and keeps everything in registers; all loads of a warp are in flight
// before its first product. Compile with -DELEMENT=__half or __nv_bfloat16.
#include "fragments.cuh"

// Hides keys past `limit` and, where asked, later keys than the query.
template <int NK>
__device__ __forceinline__ void hide(const AttentionParams &p, float (&s)[2 * NK][4], int limit, int query, int t) {
  if (limit < 16 * NK) {
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) {
      const int key = 8 * j + 2 * t;
      if (key >= limit) s[j][0] = s[j][2] = -INFINITY;
      if (key + 1 >= limit) s[j][1] = s[j][3] = -INFINITY;
    }
  }
  if (p.mask == MASK_CAUSAL) {
    const int last0 = query + p.keys - p.queries, last8 = last0 + 8;
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) {
      const int key = 8 * j + 2 * t;
      if (key > last0) s[j][0] = -INFINITY;
      if (key + 1 > last0) s[j][1] = -INFINITY;
      if (key > last8) s[j][2] = -INFINITY;
      if (key + 1 > last8) s[j][3] = -INFINITY;
    }
  }
}

// One block of 8 N columns of the output, N = 4, 2 or 1.
template <int D, int NK, int N, typename T>
__device__ __forceinline__ void weigh(const Row<D> (&v)[2 * NK], const uint32_t (&w)[NK][4], int reg, float f0,
                                      float f8, char *out0, char *out8) {
  float acc[N][4] = {};
#pragma unroll
  for (int k = 0; k < NK; ++k) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      mma16<T>(acc[n], w[k][0], w[k][1], w[k][2], w[k][3], transpose8(v[2 * k].r[reg + n]),
               transpose8(v[2 * k + 1].r[reg + n]));
    }
  }
  uint32_t x[N];
  if (out0) {
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = pack<T>(acc[n][0] * f0, acc[n][1] * f0);
    store_piece<N>(out0, x);
  }
  if (out8) {
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = pack<T>(acc[n][2] * f8, acc[n][3] * f8);
    store_piece<N>(out8, x);
  }
}

template <int D, int NK, typename T>
__device__ __forceinline__ void load_rows(Row<D> (&rows)[2 * NK], const T *from, long long stride, int limit, int g,
                                          int t) {
#pragma unroll
  for (int j = 0; j < 2 * NK; ++j) {
    const int key = 8 * j + g;
    rows[j] = load_row<D>(from + key * stride, t, key < limit);
  }
}

template <typename T, int D, int NK> __device__ __forceinline__ void short_body(const AttentionParams &p) {
  using C = Cut<D>;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const unsigned unit = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const unsigned problem = unit / p.tiles;
  const int first = 16 * (unit - problem * p.tiles);
  if (problem >= static_cast<unsigned>(p.batch * p.inner) * p.heads) return;
  const Place at = place_of(p, problem);
  const int limit = key_limit(p, at), kv_head = at.head / p.group;
  const T *q = static_cast<const T *>(p.q) + offset_of(p.q_stride, at, at.head);
  const T *k = static_cast<const T *>(p.k) + offset_of(p.k_stride, at, kv_head);
  const T *v = static_cast<const T *>(p.v) + offset_of(p.v_stride, at, kv_head);
  const int query = first + g;
  const bool there0 = query < p.queries, there8 = query + 8 < p.queries;
  const Row<D> q0 = load_row<D>(q + query * p.q_stride[3], t, there0);
  const Row<D> q8 = load_row<D>(q + (query + 8) * p.q_stride[3], t, there8);
  // Keys and values of long rows do not fit the registers together.
  constexpr bool EARLY = 4 * NK * C::REGS <= 96;
  Row<D> values[2 * NK];
  float s[2 * NK][4];
#pragma unroll
  for (int j = 0; j < 2 * NK; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.f;
  {
    Row<D> keys[2 * NK];
    load_rows<D, NK>(keys, k, p.k_stride[3], limit, g, t);
    if constexpr (EARLY) load_rows<D, NK>(values, v, p.v_stride[3], limit, g, t);
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) dot_rows<D, T>(s[j], q0, q8, keys[j]);
  }
  if constexpr (!EARLY) load_rows<D, NK>(values, v, p.v_stride[3], limit, g, t);
  hide<NK>(p, s, limit, query, t);
  Softmax<NK> softmax;
  softmax.run(s, p.scale_log2);
  uint32_t w[NK][4];
#pragma unroll
  for (int j = 0; j < NK; ++j) {
    w[j][0] = pack<T>(s[2 * j][0], s[2 * j][1]), w[j][1] = pack<T>(s[2 * j][2], s[2 * j][3]);
    w[j][2] = pack<T>(s[2 * j + 1][0], s[2 * j + 1][1]), w[j][3] = pack<T>(s[2 * j + 1][2], s[2 * j + 1][3]);
  }
  T *out = static_cast<T *>(p.out) + offset_of(p.out_stride, at, at.head);
  char *out0 = there0 ? reinterpret_cast<char *>(out + query * p.out_stride[3]) : nullptr;
  char *out8 = there8 ? reinterpret_cast<char *>(out + (query + 8) * p.out_stride[3]) : nullptr;
  const float f0 = softmax.factor0(), f8 = softmax.factor8();
  const auto shifted = [](char *x, int by) { return x ? x + by : x; };
#pragma unroll
  for (int i = 0; i < C::WIDE; ++i) {
    const int by = 64 * i + 16 * t;
    weigh<D, NK, 4, T>(values, w, 4 * i, f0, f8, shifted(out0, by), shifted(out8, by));
  }
  if constexpr (C::MID) {
    const int by = 64 * C::WIDE + 8 * t;
    weigh<D, NK, 2, T>(values, w, 4 * C::WIDE, f0, f8, shifted(out0, by), shifted(out8, by));
  }
  if constexpr (C::NARROW) {
    const int by = 64 * C::WIDE + 32 * C::MID + 4 * t;
    weigh<D, NK, 1, T>(values, w, C::REGS - 1, f0, f8, shifted(out0, by), shifted(out8, by));
  }
  if (p.lse && t == 0) {
    float *lse = p.lse + static_cast<long long>(problem) * p.queries;
    if (there0) lse[query] = log_sum(softmax.max0, softmax.sum0);
    if (there8) lse[query + 8] = log_sum(softmax.max8, softmax.sum8);
  }
}

#define SHORT(D, NK)                                                                            \
  extern "C" __global__ void __launch_bounds__(128)                                             \
      attention_short_d##D##_k##NK(const __grid_constant__ AttentionParams p) {                 \
    short_body<ELEMENT, D, NK>(p);                                                              \
  }
#define SHORT_ALL(D) SHORT(D, 1) SHORT(D, 2) SHORT(D, 4)
SHORT_ALL(32)
SHORT_ALL(40)
SHORT_ALL(64)
SHORT_ALL(80)
SHORT_ALL(96)
SHORT_ALL(128)
SHORT_ALL(160)
