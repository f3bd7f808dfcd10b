// Tiled attention on mma.sync: any length, mask and head dimension that is a multiple of 8 up to 256.
// Keys and values pass through shared memory with the next key tile on its way during the softmax; on
// Turing, which copies through registers, without that overlap (f16 only). Compile with -DELEMENT=__half or __nv_bfloat16.
#include "common.cuh"

__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there) {
#if __CUDA_ARCH__ >= 800
  const int bytes = there ? 16 : 0;  // the rest is filled with zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#else
  const uint4 x = there ? *static_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
#endif
}
__device__ __forceinline__ void commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}
__device__ __forceinline__ void load4(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}
__device__ __forceinline__ void load4_transposed(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}

constexpr int KEY_TILE = 64;

// ROWS rows of a head to shared memory; rows from `limit` on and columns from `dim` on become zero.
template <typename T, int D, int ROWS, int THREADS>
__device__ __forceinline__ void fetch(uint32_t to, const T *from, long long stride, int first, int limit, int dim) {
  constexpr int CHUNKS = D / 8, ROW_BYTES = 2 * (D + 8);
#pragma unroll 4
  for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, column = i % CHUNKS * 8, token = first + row;
    const bool there = token < limit && column < dim;
    copy16(to + row * ROW_BYTES + 2 * column, from + (there ? token * stride + column : 0), there);
  }
}

// The key tiles a block of queries walks over.
struct Walk {
  int count, first_block, per_block;
  const int *index;
  int block_k;
  __device__ __forceinline__ int start(int n) const {
    return index ? index[first_block + n / per_block] * block_k + n % per_block * KEY_TILE : n * KEY_TILE;
  }
};

__device__ __forceinline__ Walk walk_of(const AttentionParams &p, unsigned problem, int first, int rows, int limit) {
  Walk w = {(limit + KEY_TILE - 1) / KEY_TILE, 0, 1, nullptr, 0};
  if (p.mask == MASK_CAUSAL) {
    const int seen = min(limit, first + rows + p.keys - p.queries);
    w.count = max(0, (seen + KEY_TILE - 1) / KEY_TILE);
  } else if (p.mask == MASK_BLOCKS) {
    const int block_rows = (p.queries + p.block_q - 1) / p.block_q;
    const int row = problem % p.block_planes * block_rows + first / p.block_q;
    w.first_block = p.block_start[row], w.per_block = p.block_k / KEY_TILE;
    w.count = (p.block_start[row + 1] - w.first_block) * w.per_block;
    w.index = p.block_index, w.block_k = p.block_k;
  }
  return w;
}

template <typename T, int D, int WARPS> __device__ __forceinline__ void flash_body(const AttentionParams &p) {
  constexpr int THREADS = 32 * WARPS, QUERY_TILE = 16 * WARPS, ROW_BYTES = 2 * (D + 8), STEPS = D / 16;
  constexpr int TILES = KEY_TILE / 8;
  constexpr bool KEEP = D <= 128;  // queries stay in registers
  extern __shared__ __align__(16) char memory[];
  const uint32_t queries_at = shared_address(memory), keys_at = queries_at + QUERY_TILE * ROW_BYTES;
  const uint32_t values_at = keys_at + KEY_TILE * ROW_BYTES;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const unsigned problem = blockIdx.x / p.tiles;
  // The last tiles of a causal mask are the longest: first.
  const unsigned tile_at = blockIdx.x - problem * p.tiles;
  const int first = (p.mask == MASK_CAUSAL ? p.tiles - 1 - tile_at : tile_at) * QUERY_TILE;
  const Place at = place_of(p, problem);
  const int limit = key_limit(p, at), kv_head = at.head / p.group;
  const T *q = static_cast<const T *>(p.q) + offset_of(p.q_stride, at, at.head);
  const T *k = static_cast<const T *>(p.k) + offset_of(p.k_stride, at, kv_head);
  const T *v = static_cast<const T *>(p.v) + offset_of(p.v_stride, at, kv_head);
  const Walk walk = walk_of(p, problem, first, QUERY_TILE, limit);

  fetch<T, D, QUERY_TILE, THREADS>(queries_at, q, p.q_stride[3], first, p.queries, p.dim);
  if (walk.count > 0) fetch<T, D, KEY_TILE, THREADS>(keys_at, k, p.k_stride[3], walk.start(0), limit, p.dim);
  commit();

  float acc[D / 8][4];
#pragma unroll
  for (int i = 0; i < D / 8; ++i) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.f;
  float max0 = -INFINITY, max8 = -INFINITY, sum0 = 0.f, sum8 = 0.f;
  const int query = first + 16 * warp + g;
  // Where ldmatrix lanes point: row lane % 16, half lane / 16 for queries and values; keys swap.
  const uint32_t query_from = queries_at + (16 * warp + lane % 16) * ROW_BYTES + lane / 16 * 16;
  const uint32_t key_from = keys_at + (lane % 8 + lane / 16 * 8) * ROW_BYTES + lane / 8 % 2 * 16;
  const uint32_t value_from = values_at + lane % 16 * ROW_BYTES + lane / 16 * 16;
  uint32_t kept[KEEP ? STEPS : 1][4];
  const bool scaled = p.mask == MASK_BIAS;
  const float multiply = scaled ? 1.f : p.scale_log2;

  for (int n = 0; n < walk.count; ++n) {
    const int start = walk.start(n);
    fetch<T, D, KEY_TILE, THREADS>(values_at, v, p.v_stride[3], start, limit, p.dim);
    commit();
    wait<1>();
    __syncthreads();
    if constexpr (KEEP) {
      if (n == 0) {
#pragma unroll
        for (int i = 0; i < STEPS; ++i) load4(kept[i], query_from + 32 * i);
      }
    }
    float s[TILES][4];
#pragma unroll
    for (int j = 0; j < TILES; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.f;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      uint32_t fresh[4];
      if constexpr (!KEEP) load4(fresh, query_from + 32 * i);
      const uint32_t(&a)[4] = KEEP ? kept[KEEP ? i : 0] : fresh;
#pragma unroll
      for (int j = 0; j < TILES; j += 2) {
        uint32_t b[4];
        load4(b, key_from + 8 * j * ROW_BYTES + 32 * i);
        mma16<T>(s[j], a[0], a[1], a[2], a[3], b[0], b[1]);
        mma16<T>(s[j + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
      }
    }
    __syncthreads();
    if (n + 1 < walk.count) {
      fetch<T, D, KEY_TILE, THREADS>(keys_at, k, p.k_stride[3], walk.start(n + 1), limit, p.dim);
    }
    commit();

    if (scaled) {
      const long long base = at.batch * p.bias_stride[0] + at.inner * p.bias_stride[1] + at.head * p.bias_stride[2];
#pragma unroll
      for (int j = 0; j < TILES; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = query + e / 2 * 8, key = start + 8 * j + 2 * t + e % 2;
          if (row < p.queries && key < limit) {
            const long long x = base + row * p.bias_stride[3] + key * p.bias_stride[4];
            const float bias =
                p.bias_f32 ? static_cast<const float *>(p.bias)[x] : to_float(static_cast<const T *>(p.bias)[x]);
            s[j][e] = fmaf(s[j][e], p.scale_log2, bias * LOG2_E);
          }
        }
      }
    }
    const int last = p.mask == MASK_CAUSAL ? query + p.keys - p.queries : limit - 1;
    if (start + KEY_TILE > limit || (p.mask == MASK_CAUSAL && start + KEY_TILE > last + 1 - g)) {
      const int last0 = min(last, limit - 1), last8 = p.mask == MASK_CAUSAL ? min(last + 8, limit - 1) : last0;
#pragma unroll
      for (int j = 0; j < TILES; ++j) {
        const int key = start + 8 * j + 2 * t;
        if (key > last0) s[j][0] = -INFINITY;
        if (key + 1 > last0) s[j][1] = -INFINITY;
        if (key > last8) s[j][2] = -INFINITY;
        if (key + 1 > last8) s[j][3] = -INFINITY;
      }
    }
    float new0 = max0, new8 = max8;
#pragma unroll
    for (int j = 0; j < TILES; ++j) {
      new0 = max_nan(new0, max_nan(s[j][0], s[j][1]));
      new8 = max_nan(new8, max_nan(s[j][2], s[j][3]));
    }
    new0 = row_max(new0), new8 = row_max(new8);
    const float base0 = new0 == -INFINITY ? 0.f : new0 * multiply, base8 = new8 == -INFINITY ? 0.f : new8 * multiply;
    const float shrink0 = exp2_fast(fmaf(max0, multiply, -base0)), shrink8 = exp2_fast(fmaf(max8, multiply, -base8));
    max0 = new0, max8 = new8;
    sum0 *= shrink0, sum8 *= shrink8;
#pragma unroll
    for (int j = 0; j < TILES; ++j) {
      s[j][0] = exp2_fast(fmaf(s[j][0], multiply, -base0)), s[j][1] = exp2_fast(fmaf(s[j][1], multiply, -base0));
      s[j][2] = exp2_fast(fmaf(s[j][2], multiply, -base8)), s[j][3] = exp2_fast(fmaf(s[j][3], multiply, -base8));
      sum0 += s[j][0] + s[j][1], sum8 += s[j][2] + s[j][3];
    }
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      acc[i][0] *= shrink0, acc[i][1] *= shrink0, acc[i][2] *= shrink8, acc[i][3] *= shrink8;
    }
    wait<1>();
    __syncthreads();
#pragma unroll
    for (int j = 0; j < KEY_TILE / 16; ++j) {
      const uint32_t a0 = pack<T>(s[2 * j][0], s[2 * j][1]), a1 = pack<T>(s[2 * j][2], s[2 * j][3]);
      const uint32_t a2 = pack<T>(s[2 * j + 1][0], s[2 * j + 1][1]), a3 = pack<T>(s[2 * j + 1][2], s[2 * j + 1][3]);
#pragma unroll
      for (int i = 0; i < D / 8; i += 2) {
        uint32_t b[4];
        load4_transposed(b, value_from + 16 * j * ROW_BYTES + 16 * i);
        mma16<T>(acc[i], a0, a1, a2, a3, b[0], b[1]);
        mma16<T>(acc[i + 1], a0, a1, a2, a3, b[2], b[3]);
      }
    }
    __syncthreads();
  }
  wait<0>();
  __syncthreads();

  sum0 = row_sum(sum0), sum8 = row_sum(sum8);
  const float f0 = sum0 == 0.f ? 0.f : 1.f / sum0, f8 = sum8 == 0.f ? 0.f : 1.f / sum8;
  // Through the queries' memory, a warp its own rows, so that stores are 16 bytes wide.
  char *const rows = memory + 16 * warp * ROW_BYTES;
#pragma unroll
  for (int i = 0; i < D / 8; ++i) {
    const int column = 16 * i + 4 * t;
    *reinterpret_cast<uint32_t *>(rows + g * ROW_BYTES + column) = pack<T>(acc[i][0] * f0, acc[i][1] * f0);
    *reinterpret_cast<uint32_t *>(rows + (g + 8) * ROW_BYTES + column) = pack<T>(acc[i][2] * f8, acc[i][3] * f8);
  }
  __syncwarp();
  T *out = static_cast<T *>(p.out) + offset_of(p.out_stride, at, at.head);
  for (int i = lane; i < 16 * (D / 8); i += 32) {
    const int row = i / (D / 8), column = i % (D / 8) * 8, token = first + 16 * warp + row;
    if (token < p.queries && column < p.dim) {
      *reinterpret_cast<uint4 *>(out + token * p.out_stride[3] + column) =
          *reinterpret_cast<const uint4 *>(rows + row * ROW_BYTES + 2 * column);
    }
  }
  if (p.lse && t == 0) {
    float *lse = p.lse + static_cast<long long>(problem) * p.queries;
    if (query < p.queries) lse[query] = log_sum(max0 * multiply, sum0);
    if (query + 8 < p.queries) lse[query + 8] = log_sum(max8 * multiply, sum8);
  }
}

#define FLASH(D, WARPS)                                                                                   \
  extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                \
      attention_flash_d##D(const __grid_constant__ AttentionParams p) {                                   \
    flash_body<ELEMENT, D, WARPS>(p);                                                                     \
  }
FLASH(32, 8)
FLASH(48, 8)
FLASH(64, 8)
FLASH(80, 8)
FLASH(96, 8)
FLASH(128, 8)
FLASH(160, 4)
FLASH(192, 4)
FLASH(256, 4)
