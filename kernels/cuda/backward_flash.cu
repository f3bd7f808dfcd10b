// Gradients of attention on mma.sync, from Ampere on: any length and mask, head dimensions in steps of 8
// up to 256.
//
// One body serves both passes. A warp owns rows (queries, or keys) and the block streams the other side
// through shared memory: x = a bᵀ are the scores of its rows, y = a' b'ᵀ their slopes before delta; both
// turn into fragments where they are and multiply the streamed tile again, now read transposed. The
// pass over queries also leaves log-sum and delta of every query for the pass over keys behind it.
// Compile with -DELEMENT=__half or __nv_bfloat16.
#include "async.cuh"
#include "backward.cuh"

enum Wanted { DQ = 1, DK = 2, DV = 4 };

// Copies ROWS pairs of floats; pairs from `limit` on become zero, which adds nothing: their rows are zero.
template <int ROWS, int THREADS>
__device__ __forceinline__ void fetch_pairs(uint32_t to, const float2 *from, int first, int limit) {
  for (int i = threadIdx.x; i < ROWS; i += THREADS) {
    const bool there = first + i < limit;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to + 8 * i), "l"(from + (there ? first + i : 0)),
                 "r"(there ? 8 : 0)
                 : "memory");
  }
}

// c += a b for columns 16 i to 16 i + 15, of which the last eight may not exist.
template <typename T, int COLUMNS>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int i) {
  if (16 * i + 8 < COLUMNS) {
    mma16<T>(c, a[0], a[1], a[2], a[3], b0, b1);
  } else {
    mma8<T>(c, a[0], a[1], b0);
  }
}

// How a pass is cut: WARPS warps of 16 MT rows against streamed tiles of TILE, 16 G of those at a time. KEEP: the
// warp's rows stay in registers.
template <int WARPS_, int MT_, int TILE_, int G_, bool KEEP_, int UNROLL_> struct Shape {
  static constexpr int WARPS = WARPS_, MT = MT_, TILE = TILE_, G = G_, UNROLL = UNROLL_;
  static constexpr bool KEEP = KEEP_;
};

// Head dimensions up to COLUMNS, in rows of D = COLUMNS filled up to a multiple of 16.
template <typename T, int COLUMNS, typename S, int WANTED>
__device__ __forceinline__ void backward_body(const BackwardParams &b) {
  constexpr bool OF_KEYS = WANTED != DQ, SLOPES = WANTED != DV;
  constexpr int WARPS = S::WARPS, MT = S::MT, TILE = S::TILE, G = S::G, D = (COLUMNS + 15) / 16 * 16;
  constexpr int THREADS = 32 * WARPS, ROWS = 16 * MT * WARPS, ROW_BYTES = 2 * (D + 8), STEPS = D / 16;
  constexpr int STREAM = TILE * ROW_BYTES;
  extern __shared__ __align__(16) char memory[];
  const AttentionParams &p = b.call;
  const uint32_t first_at = shared_address(memory), second_at = first_at + ROWS * ROW_BYTES;
  const uint32_t streams_at = second_at + ROWS * ROW_BYTES, pairs_at = streams_at + 4 * STREAM;
  const float2 *const pairs = reinterpret_cast<const float2 *>(memory + 2 * ROWS * ROW_BYTES + 4 * STREAM);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;

  const int tiles = OF_KEYS ? b.key_tiles : p.tiles;
  const unsigned problem = blockIdx.x / tiles, tile_at = blockIdx.x - problem * tiles;
  // The longest first: late queries see many keys, early keys are seen by many queries.
  const int first = (!OF_KEYS && p.mask == MASK_CAUSAL ? tiles - 1 - tile_at : tile_at) * ROWS;
  const Place at = OF_KEYS ? key_place_of(p, problem) : place_of(p, problem);
  const int limit = key_limit(p, at), kv_head = OF_KEYS ? at.head : at.head / p.group;
  const T *k = static_cast<const T *>(p.k) + offset_of(p.k_stride, at, kv_head);
  const T *v = static_cast<const T *>(p.v) + offset_of(p.v_stride, at, kv_head);
  const int head0 = OF_KEYS ? kv_head * p.group : at.head;
  const T *q = static_cast<const T *>(p.q) + offset_of(p.q_stride, at, head0);
  const T *grad = static_cast<const T *>(b.grad) + offset_of(b.grad_stride, at, head0);
  const unsigned problem0 = at.sequence * p.heads + head0;
  float2 *const rows = b.rows + static_cast<long long>(problem0) * p.queries;
  const Added<T> added0(b, Place{at.batch, at.inner, head0, at.sequence}, problem0, limit);

  // Streamed tiles: `tail` starts where the first one does, `each` a head of queries.
  const int shift = p.keys - p.queries;
  int start0 = 0, each;
  if (OF_KEYS) {
    if (p.mask == MASK_CAUSAL) start0 = max(0, first - shift) / TILE * TILE;
    each = first < limit ? max(0, p.queries - start0 + TILE - 1) / TILE : 0;
  } else {
    const int end = p.mask == MASK_CAUSAL ? min(limit, first + ROWS + shift) : limit;
    each = max(0, end + TILE - 1) / TILE;
  }
  const int count = OF_KEYS ? each * p.group : each;

  const auto stream = [&](int n, int stage) {
    const uint32_t to = streams_at + 2 * stage * STREAM;
    if (OF_KEYS) {
      const int head = n / each, start = start0 + n % each * TILE;
      fetch<T, D, TILE, THREADS>(to, q + head * p.q_stride[2], p.q_stride[3], start, p.queries, p.dim);
      fetch<T, D, TILE, THREADS>(to + STREAM, grad + head * b.grad_stride[2], b.grad_stride[3], start, p.queries, p.dim);
      fetch_pairs<TILE, THREADS>(pairs_at + 8 * TILE * stage, rows + static_cast<long long>(head) * p.queries, start,
                                 p.queries);
    } else {
      fetch<T, D, TILE, THREADS>(to, k, p.k_stride[3], n * TILE, limit, p.dim);
      fetch<T, D, TILE, THREADS>(to + STREAM, v, p.v_stride[3], n * TILE, limit, p.dim);
    }
  };
  if (OF_KEYS) {
    fetch<T, D, ROWS, THREADS>(first_at, k, p.k_stride[3], first, limit, p.dim);
    if (SLOPES) fetch<T, D, ROWS, THREADS>(second_at, v, p.v_stride[3], first, limit, p.dim);
  } else {
    fetch<T, D, ROWS, THREADS>(first_at, q, p.q_stride[3], first, p.queries, p.dim);
    fetch<T, D, ROWS, THREADS>(second_at, grad, b.grad_stride[3], first, p.queries, p.dim);
  }
  if (count > 0) stream(0, 0);
  commit();

  const float inverse = 1.f / p.scale_log2;
  float2 mine[MT][2];
  if constexpr (!OF_KEYS) {
    // Delta of the lane's rows, four lanes a row.
    const T *out = static_cast<const T *>(p.out) + offset_of(p.out_stride, at, at.head);
    const float *lse = p.lse + static_cast<long long>(problem) * p.queries;
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int query = first + 16 * (MT * warp + m) + 8 * half + g;
        const bool there = query < p.queries;
        float sum = 0.f;
        for (int c = 8 * t; there && c < p.dim; c += 32) {
          const uint4 x = __ldg(reinterpret_cast<const uint4 *>(out + query * p.out_stride[3] + c));
          const uint4 y = __ldg(reinterpret_cast<const uint4 *>(grad + query * b.grad_stride[3] + c));
          const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 u = unpack<T>(xs[i]), w = unpack<T>(ys[i]);
            sum = fmaf(u.x, w.x, fmaf(u.y, w.y, sum));
          }
        }
        mine[m][half] = row_of(there ? lse[query] : 0.f, row_sum(sum));
        if (there && t == 0) rows[query] = mine[m][half];
      }
    }
  }

  float acc_x[WANTED & DV ? MT : 1][WANTED & DV ? COLUMNS / 8 : 1][4] = {};
  float acc_y[SLOPES ? MT : 1][SLOPES ? COLUMNS / 8 : 1][4] = {};
  const uint32_t own_at = 16 * MT * warp * ROW_BYTES + lane % 16 * ROW_BYTES + lane / 16 * 16;
  const uint32_t plain_at = (lane % 8 + lane / 16 * 8) * ROW_BYTES + lane / 8 % 2 * 16;
  const uint32_t turned_at = lane % 16 * ROW_BYTES + lane / 16 * 16;

  uint32_t kept[2][S::KEEP ? MT : 1][S::KEEP ? STEPS : 1][4];

  for (int n = 0; n < count; ++n) {
    const int head = OF_KEYS ? n / each : 0, start = OF_KEYS ? start0 + n % each * TILE : n * TILE;
    const uint32_t stage = streams_at + n % 2 * 2 * STREAM;
    const float2 *const columns = pairs + n % 2 * TILE;
    wait<0>();
    __syncthreads();
    if constexpr (S::KEEP) {
      if (n == 0) {
#pragma unroll
        for (int m = 0; m < MT; ++m) {
#pragma unroll
          for (int i = 0; i < STEPS; ++i) {
            load4(kept[0][m][i], first_at + own_at + 16 * m * ROW_BYTES + 32 * i);
            if constexpr (SLOPES) load4(kept[1][m][i], second_at + own_at + 16 * m * ROW_BYTES + 32 * i);
          }
        }
      }
    }
    if (n + 1 < count) stream(n + 1, (n + 1) % 2);
    commit();
    Added<T> added = added0;
    if (OF_KEYS && p.mask == MASK_BIAS) added.bias_at += head * p.bias_stride[2];
    if (OF_KEYS && p.mask == MASK_BLOCKS) {
      added = Added<T>(b, Place{at.batch, at.inner, head0 + head, at.sequence}, problem0 + head, limit);
    }
    const int query = OF_KEYS ? start : first, key = OF_KEYS ? first : start;
    const int query_count = OF_KEYS ? TILE : ROWS, key_count = OF_KEYS ? ROWS : TILE;
    if (!added.any(query, query_count, key, key_count)) continue;
    // Rows past the end are not written, columns past the end are zero: only these hide something.
    bool partial = p.mask == MASK_BIAS || p.mask == MASK_BLOCKS || (!OF_KEYS && key + key_count > limit);
    partial |= p.mask == MASK_CAUSAL && key + key_count - 1 > query + shift;

#pragma unroll S::UNROLL
    for (int sub = 0; sub < TILE; sub += 16 * G) {
      const uint32_t b1 = stage + sub * ROW_BYTES, b2 = b1 + STREAM;
      float x[MT][2 * G][4] = {}, y[MT][2 * G][4] = {};
#pragma unroll
      for (int i = 0; i < STEPS; ++i) {
        uint32_t f[G][4];
#pragma unroll
        for (int c = 0; c < G; ++c) load4(f[c], b1 + 16 * c * ROW_BYTES + plain_at + 32 * i);
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          uint32_t fresh[4];
          if constexpr (!S::KEEP) load4(fresh, first_at + own_at + 16 * m * ROW_BYTES + 32 * i);
          const uint32_t(&a)[4] = S::KEEP ? kept[0][S::KEEP ? m : 0][S::KEEP ? i : 0] : fresh;
#pragma unroll
          for (int c = 0; c < G; ++c) {
            multiply<T, COLUMNS>(x[m][2 * c], a, f[c][0], f[c][1], i);
            multiply<T, COLUMNS>(x[m][2 * c + 1], a, f[c][2], f[c][3], i);
          }
        }
      }
      if constexpr (SLOPES) {
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
          uint32_t f[G][4];
#pragma unroll
          for (int c = 0; c < G; ++c) load4(f[c], b2 + 16 * c * ROW_BYTES + plain_at + 32 * i);
#pragma unroll
          for (int m = 0; m < MT; ++m) {
            uint32_t fresh[4];
            if constexpr (!S::KEEP) load4(fresh, second_at + own_at + 16 * m * ROW_BYTES + 32 * i);
            const uint32_t(&a)[4] = S::KEEP ? kept[1][S::KEEP ? m : 0][S::KEEP ? i : 0] : fresh;
#pragma unroll
            for (int c = 0; c < G; ++c) {
              multiply<T, COLUMNS>(y[m][2 * c], a, f[c][0], f[c][1], i);
              multiply<T, COLUMNS>(y[m][2 * c + 1], a, f[c][2], f[c][3], i);
            }
          }
        }
      }
      if (partial) {
#pragma unroll
        for (int m = 0; m < MT; ++m) {
#pragma unroll
          for (int j = 0; j < 2 * G; ++j) {
#pragma unroll
            for (int r = 0; r < 4; ++r) {
              const int own = first + 16 * (MT * warp + m) + g + 8 * (r / 2), other = start + sub + 8 * j + 2 * t + r % 2;
              // The scale is positive here.
              x[m][j][r] += (OF_KEYS ? added.of(other, own) : added.of(own, other)) * inverse;
            }
          }
        }
      }
      uint32_t weights[MT][G][4], slopes[MT][G][4];
#pragma unroll
      for (int m = 0; m < MT; ++m) {
#pragma unroll
        for (int j = 0; j < 2 * G; ++j) {
          const int column = sub + 8 * j + 2 * t;
          float2 of[4];
          if constexpr (OF_KEYS) {
            const float4 both = *reinterpret_cast<const float4 *>(columns + column);
            of[0] = of[2] = make_float2(both.x, both.y), of[1] = of[3] = make_float2(both.z, both.w);
          } else {
            of[0] = of[1] = mine[m][0], of[2] = of[3] = mine[m][1];
          }
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            x[m][j][r] = exp2_fast(fmaf(x[m][j][r], p.scale_log2, -of[r].x));
            if constexpr (SLOPES) y[m][j][r] = x[m][j][r] * (y[m][j][r] - of[r].y);
          }
          if constexpr (WANTED & DV) {
            uint32_t *const to = weights[m][j / 2] + 2 * (j % 2);
            to[0] = pack<T>(x[m][j][0], x[m][j][1]), to[1] = pack<T>(x[m][j][2], x[m][j][3]);
          }
          if constexpr (SLOPES) {
            uint32_t *const to = slopes[m][j / 2] + 2 * (j % 2);
            to[0] = pack<T>(y[m][j][0], y[m][j][1]), to[1] = pack<T>(y[m][j][2], y[m][j][3]);
          }
        }
      }
#pragma unroll
      for (int c = 0; c < G; ++c) {
        const uint32_t by = 16 * c * ROW_BYTES + turned_at;
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i += 2) {
          uint32_t f[4];
          if constexpr (WANTED & DV) {
            load4_transposed(f, b2 + by + 16 * i);
#pragma unroll
            for (int m = 0; m < MT; ++m) {
              const uint32_t(&w)[4] = weights[m][c];
              mma16<T>(acc_x[m][i], w[0], w[1], w[2], w[3], f[0], f[1]);
              if (i + 1 < COLUMNS / 8) mma16<T>(acc_x[m][i + 1], w[0], w[1], w[2], w[3], f[2], f[3]);
            }
          }
          if constexpr (SLOPES) {
            load4_transposed(f, b1 + by + 16 * i);
#pragma unroll
            for (int m = 0; m < MT; ++m) {
              const uint32_t(&w)[4] = slopes[m][c];
              mma16<T>(acc_y[m][i], w[0], w[1], w[2], w[3], f[0], f[1]);
              if (i + 1 < COLUMNS / 8) mma16<T>(acc_y[m][i + 1], w[0], w[1], w[2], w[3], f[2], f[3]);
            }
          }
        }
      }
    }
  }
  wait<0>();
  __syncthreads();

  // Through the rows' own memory, so that stores are 16 bytes wide.
  const auto put = [&](const auto &acc, char *tile, T *to, const long long *stride, int total, int end, float factor) {
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      char *const part = tile + 16 * (MT * warp + m) * ROW_BYTES;
#pragma unroll
      for (int i = 0; i < COLUMNS / 8; ++i) {
        const int column = 16 * i + 4 * t;
        *reinterpret_cast<uint32_t *>(part + g * ROW_BYTES + column) = pack<T>(acc[m][i][0] * factor, acc[m][i][1] * factor);
        *reinterpret_cast<uint32_t *>(part + (g + 8) * ROW_BYTES + column) =
            pack<T>(acc[m][i][2] * factor, acc[m][i][3] * factor);
      }
      __syncwarp();
      for (int i = lane; i < 16 * (COLUMNS / 8); i += 32) {
        const int row = i / (COLUMNS / 8), column = i % (COLUMNS / 8) * 8, token = first + 16 * (MT * warp + m) + row;
        if (token < total && column < p.dim) {
          uint4 x = *reinterpret_cast<const uint4 *>(part + row * ROW_BYTES + 2 * column);
          // Padding has no gradient.
          if (token >= end) x = make_uint4(0, 0, 0, 0);
          *reinterpret_cast<uint4 *>(to + token * stride[3] + column) = x;
        }
      }
    }
  };
  if constexpr (WANTED == DQ) {
    T *to = static_cast<T *>(b.dq) + offset_of(b.dq_stride, at, at.head);
    put(acc_y, memory, to, b.dq_stride, p.queries, p.queries, b.scale);
  }
  if constexpr (WANTED & DK) {
    T *to = static_cast<T *>(b.dk) + offset_of(b.dk_stride, at, kv_head);
    put(acc_y, memory, to, b.dk_stride, p.keys, limit, b.scale);
  }
  if constexpr (WANTED & DV) {
    T *to = static_cast<T *>(b.dv) + offset_of(b.dk_stride, at, kv_head);
    put(acc_x, memory + ROWS * ROW_BYTES, to, b.dk_stride, p.keys, limit, 1.f);
  }
}

#define BACKWARD(NAME, COLUMNS, WANTED, BLOCKS, WARPS, ...)                                            \
  extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS)                                     \
      attention_backward_##NAME##_d##COLUMNS(const __grid_constant__ BackwardParams p) {               \
    backward_body<ELEMENT, COLUMNS, Shape<WARPS, __VA_ARGS__>, WANTED>(p);                             \
  }
// Head dimension, blocks a multiprocessor, then a Shape; warps, groups of rows and the streamed tile are those of `TILES`
// in src/plan/cuda_backward.rs.
#define QUERIES(COLUMNS, ...) BACKWARD(queries, COLUMNS, DQ, __VA_ARGS__)
#define KEYS(COLUMNS, ...) BACKWARD(keys, COLUMNS, DK | DV, __VA_ARGS__)
// Sums of both do not fit the registers.
#define KEYS_APART(COLUMNS, ...)             \
  BACKWARD(keys, COLUMNS, DK, __VA_ARGS__)   \
  BACKWARD(values, COLUMNS, DV, __VA_ARGS__)
QUERIES(32, 4, 4, 1, 64, 1, true, 1)
QUERIES(40, 4, 4, 1, 64, 1, true, 1)
QUERIES(48, 3, 4, 1, 64, 1, true, 1)
QUERIES(64, 3, 4, 1, 64, 1, true, 1)
QUERIES(80, 3, 4, 1, 32, 1, true, 1)
QUERIES(96, 2, 4, 1, 32, 2, false, 1)
QUERIES(128, 2, 4, 1, 32, 2, false, 1)
QUERIES(160, 2, 4, 1, 32, 2, false, 1)
QUERIES(192, 2, 4, 1, 16, 1, false, 1)
QUERIES(256, 1, 3, 1, 16, 1, false, 1)
KEYS(32, 4, 4, 1, 64, 1, true, 1)
KEYS(40, 4, 4, 1, 64, 1, true, 1)
KEYS(48, 3, 4, 1, 64, 1, true, 1)
KEYS(64, 3, 4, 1, 64, 1, true, 1)
KEYS(80, 3, 4, 1, 32, 1, false, 1)
KEYS(96, 2, 4, 1, 32, 1, false, 1)
KEYS(128, 2, 4, 1, 32, 1, false, 1)
KEYS(160, 2, 4, 1, 32, 1, false, 1)
KEYS_APART(192, 2, 4, 1, 16, 1, false, 1)
KEYS_APART(256, 1, 3, 1, 16, 1, false, 1)
