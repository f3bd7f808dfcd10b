// Attention of many queries to few keys: text, image prompts.
//
// A block puts the keys and values of one head into shared memory once, already as the fragments the
// matrix unit wants, and its warps walk over strips of 16 queries with the next strip's loads in
// flight. One softmax pass. Compile with -DELEMENT=__half or __nv_bfloat16.
#include "fragments.cuh"

constexpr int WARPS = 8;

// Bytes of one lane set: 8 keys of D columns, and 16 values of D columns.
template <int D> struct Store {
  static constexpr int KEY_TILE = 16 * D, VALUE_TILE = 32 * D;
};

template <int D> __device__ __forceinline__ void put_keys(char *to, const Row<D> &k, int lane) {
  using C = Cut<D>;
#pragma unroll
  for (int i = 0; i < C::WIDE; ++i) {
    reinterpret_cast<uint4 *>(to + 512 * i)[lane] =
        make_uint4(k.r[4 * i], k.r[4 * i + 1], k.r[4 * i + 2], k.r[4 * i + 3]);
  }
  if constexpr (C::MID) {
    reinterpret_cast<uint2 *>(to + 512 * C::WIDE)[lane] = make_uint2(k.r[4 * C::WIDE], k.r[4 * C::WIDE + 1]);
  }
  if constexpr (C::NARROW) {
    reinterpret_cast<uint32_t *>(to + 512 * C::WIDE + 256 * C::MID)[lane] = k.r[C::REGS - 1];
  }
}

template <int D> __device__ __forceinline__ Row<D> get_keys(const char *from, int lane) {
  using C = Cut<D>;
  Row<D> k;
#pragma unroll
  for (int i = 0; i < C::WIDE; ++i) {
    const uint4 x = reinterpret_cast<const uint4 *>(from + 512 * i)[lane];
    k.r[4 * i] = x.x, k.r[4 * i + 1] = x.y, k.r[4 * i + 2] = x.z, k.r[4 * i + 3] = x.w;
  }
  if constexpr (C::MID) {
    const uint2 x = reinterpret_cast<const uint2 *>(from + 512 * C::WIDE)[lane];
    k.r[4 * C::WIDE] = x.x, k.r[4 * C::WIDE + 1] = x.y;
  }
  if constexpr (C::NARROW) {
    k.r[C::REGS - 1] = reinterpret_cast<const uint32_t *>(from + 512 * C::WIDE + 256 * C::MID)[lane];
  }
  return k;
}

// 16 values (rows g and g + 8), transposed: register pairs in the order the product reads them.
template <int D> __device__ __forceinline__ void put_values(char *to, const Row<D> &v0, const Row<D> &v8, int lane) {
  using C = Cut<D>;
#pragma unroll
  for (int i = 0; i < 2 * C::WIDE + C::MID; ++i) {
    reinterpret_cast<uint4 *>(to + 512 * i)[lane] =
        make_uint4(transpose8(v0.r[2 * i]), transpose8(v8.r[2 * i]), transpose8(v0.r[2 * i + 1]),
                   transpose8(v8.r[2 * i + 1]));
  }
  if constexpr (C::NARROW) {
    reinterpret_cast<uint2 *>(to + 512 * (2 * C::WIDE + C::MID))[lane] =
        make_uint2(transpose8(v0.r[C::REGS - 1]), transpose8(v8.r[C::REGS - 1]));
  }
}

// One block of 8 N columns of the output; `at` points to the values' pairs of that block.
template <int D, int NK, int N, typename T>
__device__ __forceinline__ void weigh(const char *at, int lane, const uint32_t (&w)[NK][4], float f0, float f8,
                                      char *out0, char *out8) {
  float acc[N][4] = {};
#pragma unroll
  for (int k = 0; k < NK; ++k) {
    const char *tile = at + k * Store<D>::VALUE_TILE;
    if constexpr (N == 1) {
      const uint2 x = reinterpret_cast<const uint2 *>(tile)[lane];
      mma16<T>(acc[0], w[k][0], w[k][1], w[k][2], w[k][3], x.x, x.y);
    } else {
#pragma unroll
      for (int n = 0; n < N; n += 2) {
        const uint4 x = reinterpret_cast<const uint4 *>(tile + 256 * n)[lane];
        mma16<T>(acc[n], w[k][0], w[k][1], w[k][2], w[k][3], x.x, x.y);
        mma16<T>(acc[n + 1], w[k][0], w[k][1], w[k][2], w[k][3], x.z, x.w);
      }
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

template <typename T, int D, int NK> __device__ __forceinline__ void cross_body(const AttentionParams &p) {
  using C = Cut<D>;
  extern __shared__ __align__(16) char memory[];
  char *const keys = memory, *const values = memory + 2 * NK * Store<D>::KEY_TILE;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const unsigned problem = blockIdx.x / p.tiles, tile = blockIdx.x - problem * p.tiles;
  const Place at = place_of(p, problem);
  const int limit = key_limit(p, at), kv_head = at.head / p.group;
  const T *q = static_cast<const T *>(p.q) + offset_of(p.q_stride, at, at.head);
  T *out = static_cast<T *>(p.out) + offset_of(p.out_stride, at, at.head);
  // Strips of this block, dealt out to its warps one by one.
  const int strips = (p.queries + 15) / 16;
  const int end = static_cast<long long>(strips) * (tile + 1) / p.tiles;
  int strip = static_cast<long long>(strips) * tile / p.tiles + warp;
  Row<D> q0 = zero_row<D>(), q8 = zero_row<D>();
  if (strip < end) {
    const int query = 16 * strip + g;
    q0 = load_row<D>(q + query * p.q_stride[3], t, query < p.queries);
    q8 = load_row<D>(q + (query + 8) * p.q_stride[3], t, query + 8 < p.queries);
  }
  {
    const T *k = static_cast<const T *>(p.k) + offset_of(p.k_stride, at, kv_head);
    const T *v = static_cast<const T *>(p.v) + offset_of(p.v_stride, at, kv_head);
    for (int j = warp; j < 2 * NK; j += WARPS) {
      const int key = 8 * j + g;
      put_keys<D>(keys + j * Store<D>::KEY_TILE, load_row<D>(k + key * p.k_stride[3], t, key < limit), lane);
    }
    // From the other end, so that warps without keys take values first.
    for (int j = WARPS - 1 - warp; j < NK; j += WARPS) {
      const int key = 16 * j + g;
      const Row<D> v0 = load_row<D>(v + key * p.v_stride[3], t, key < limit);
      const Row<D> v8 = load_row<D>(v + (key + 8) * p.v_stride[3], t, key + 8 < limit);
      put_values<D>(values + j * Store<D>::VALUE_TILE, v0, v8, lane);
    }
  }
  __syncthreads();
  for (; strip < end; strip += WARPS) {
    const int query = 16 * strip + g, next = query + 16 * WARPS;
    float s[2 * NK][4];
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) {
      s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.f;
      dot_rows<D, T>(s[j], q0, q8, get_keys<D>(keys + j * Store<D>::KEY_TILE, lane));
    }
    if (strip + WARPS < end) {
      q0 = load_row<D>(q + next * p.q_stride[3], t, next < p.queries);
      q8 = load_row<D>(q + (next + 8) * p.q_stride[3], t, next + 8 < p.queries);
    }
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) {
      if (8 * j + 8 > limit) {
        const int key = 8 * j + 2 * t;
        if (key >= limit) s[j][0] = s[j][2] = -INFINITY;
        if (key + 1 >= limit) s[j][1] = s[j][3] = -INFINITY;
      }
    }
    Softmax<NK> softmax;
    softmax.run(s, p.scale_log2);
    uint32_t w[NK][4];
#pragma unroll
    for (int j = 0; j < NK; ++j) {
      w[j][0] = pack<T>(s[2 * j][0], s[2 * j][1]), w[j][1] = pack<T>(s[2 * j][2], s[2 * j][3]);
      w[j][2] = pack<T>(s[2 * j + 1][0], s[2 * j + 1][1]), w[j][3] = pack<T>(s[2 * j + 1][2], s[2 * j + 1][3]);
    }
    char *out0 = query < p.queries ? reinterpret_cast<char *>(out + query * p.out_stride[3]) : nullptr;
    char *out8 = query + 8 < p.queries ? reinterpret_cast<char *>(out + (query + 8) * p.out_stride[3]) : nullptr;
    const float f0 = softmax.factor0(), f8 = softmax.factor8();
    const auto shifted = [](char *x, int by) { return x ? x + by : x; };
#pragma unroll
    for (int i = 0; i < C::WIDE; ++i) {
      const int by = 64 * i + 16 * t;
      weigh<D, NK, 4, T>(values + 1024 * i, lane, w, f0, f8, shifted(out0, by), shifted(out8, by));
    }
    if constexpr (C::MID) {
      const int by = 64 * C::WIDE + 8 * t;
      weigh<D, NK, 2, T>(values + 1024 * C::WIDE, lane, w, f0, f8, shifted(out0, by), shifted(out8, by));
    }
    if constexpr (C::NARROW) {
      const int by = 64 * C::WIDE + 32 * C::MID + 4 * t;
      weigh<D, NK, 1, T>(values + 1024 * C::WIDE + 512 * C::MID, lane, w, f0, f8, shifted(out0, by),
                         shifted(out8, by));
    }
    if (p.lse && t == 0) {
      float *lse = p.lse + static_cast<long long>(problem) * p.queries;
      if (query < p.queries) lse[query] = log_sum(softmax.max0, softmax.sum0);
      if (query + 8 < p.queries) lse[query + 8] = log_sum(softmax.max8, softmax.sum8);
    }
  }
}

#define CROSS(D, NK)                                                                            \
  extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)                                   \
      attention_cross_d##D##_k##NK(const __grid_constant__ AttentionParams p) {                 \
    cross_body<ELEMENT, D, NK>(p);                                                              \
  }
#define CROSS_ALL(D) CROSS(D, 1) CROSS(D, 2) CROSS(D, 5) CROSS(D, 8)
CROSS_ALL(32)
CROSS_ALL(40)
CROSS_ALL(64)
CROSS_ALL(80)
CROSS_ALL(96)
CROSS_ALL(128)
CROSS_ALL(160)
