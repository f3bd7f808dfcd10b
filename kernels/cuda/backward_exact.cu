// Gradients of attention in f32 arithmetic on the ordinary units: f32 inputs, odd head dimensions, misaligned
// strides. Also writes a list of blocks out for every gradient kernel.
//
// The same two passes as backward_flash.cu. A thread has four rows: of the scores for one or two streamed
// columns, of the sums for every sixteenth column. Compile with -DELEMENT=float, __half or __nv_bfloat16.
#include "backward.cuh"

// Copies rows as f32, `row_floats` apart; rows from `limit` on and columns from `dim` on become zero.
template <typename T>
__device__ __forceinline__ void fetch(float *to, const T *from, long long stride, int first, int rows, int limit,
                                      int dim, int columns, int row_floats) {
  for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
    const int row = i / columns, column = i % columns, token = first + row;
    to[row * row_floats + column] = token < limit && column < dim ? to_float(from[token * stride + column]) : 0.f;
  }
}

__device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
  return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
}

// 16 threads by THREADS / 16 groups of four rows; SUMS columns of the result a thread.
template <typename T, int THREADS, int TILE, int SUMS, bool KEYS>
__device__ __forceinline__ void exact_body(const BackwardParams &b) {
  constexpr int ROWS = THREADS / 4, COLUMNS = TILE > 16 ? TILE / 16 : 1, PITCH = ROWS + 4;
  extern __shared__ __align__(16) float shared[];
  const AttentionParams &p = b.call;
  const int dim4 = (p.dim + 3) / 4 * 4, row_floats = dim4 + 4;
  float *const first_rows = shared, *const second_rows = first_rows + ROWS * row_floats;
  float *const stream1 = second_rows + ROWS * row_floats, *const stream2 = stream1 + TILE * row_floats;
  float *const weights = stream2 + TILE * row_floats, *const slopes = weights + TILE * PITCH;
  float2 *const pairs = reinterpret_cast<float2 *>(slopes + TILE * PITCH);  // of the queries, owned or streamed
  const int tiles = KEYS ? b.key_tiles : p.tiles;
  const unsigned problem = blockIdx.x / tiles;
  const int first = (blockIdx.x - problem * tiles) * ROWS;
  const Place at = KEYS ? key_place_of(p, problem) : place_of(p, problem);
  const int limit = key_limit(p, at), kv_head = KEYS ? at.head : at.head / p.group;
  const int head0 = KEYS ? kv_head * p.group : at.head, heads = KEYS ? p.group : 1, shift = p.keys - p.queries;
  const T *k = static_cast<const T *>(p.k) + offset_of(p.k_stride, at, kv_head);
  const T *v = static_cast<const T *>(p.v) + offset_of(p.v_stride, at, kv_head);
  const int tx = threadIdx.x % 16, row0 = threadIdx.x / 16 * 4;
  float acc_x[KEYS ? SUMS : 1][4] = {}, acc_y[SUMS][4] = {};
  if (KEYS) {
    fetch(first_rows, k, p.k_stride[3], first, ROWS, limit, p.dim, dim4, row_floats);
    fetch(second_rows, v, p.v_stride[3], first, ROWS, limit, p.dim, dim4, row_floats);
  }
  for (int head = head0; head < head0 + heads; ++head) {
    const Place place = {at.batch, at.inner, head, at.sequence};
    const unsigned number = at.sequence * p.heads + head;
    const T *q = static_cast<const T *>(p.q) + offset_of(p.q_stride, place, head);
    const T *grad = static_cast<const T *>(b.grad) + offset_of(b.grad_stride, place, head);
    float2 *const rows = b.rows + static_cast<long long>(number) * p.queries;
    const Added<T> added(b, place, number, limit);
    if (!KEYS) {
      fetch(first_rows, q, p.q_stride[3], first, ROWS, p.queries, p.dim, dim4, row_floats);
      fetch(second_rows, grad, b.grad_stride[3], first, ROWS, p.queries, p.dim, dim4, row_floats);
      __syncthreads();
      const T *out = static_cast<const T *>(p.out) + offset_of(p.out_stride, place, head);
      for (int i = 0; i < 4; ++i) {
        const int query = first + row0 + i;
        float sum = 0.f;
        for (int c = tx; query < p.queries && c < p.dim; c += 16) {
          sum = fmaf(to_float(out[query * p.out_stride[3] + c]), second_rows[(row0 + i) * row_floats + c], sum);
        }
#pragma unroll
        for (int by = 1; by < 16; by *= 2) sum += __shfl_xor_sync(~0u, sum, by);
        if (query < p.queries && tx == 0) {
          rows[query] = pairs[row0 + i] = row_of(p.lse[static_cast<long long>(number) * p.queries + query], sum);
        }
      }
    }
    int start = 0, end = KEYS ? (first < limit ? p.queries : 0) : limit;
    if (p.mask == MASK_CAUSAL) {
      if (KEYS) start = max(0, first - shift) / TILE * TILE;
      if (!KEYS) end = min(limit, first + ROWS + shift);
    }
    for (; start < end; start += TILE) {
      const int query = KEYS ? start : first, key = KEYS ? first : start;
      if (!added.any(query, KEYS ? TILE : ROWS, key, KEYS ? ROWS : TILE)) continue;
      __syncthreads();
      if (KEYS) {
        fetch(stream1, q, p.q_stride[3], start, TILE, p.queries, p.dim, dim4, row_floats);
        fetch(stream2, grad, b.grad_stride[3], start, TILE, p.queries, p.dim, dim4, row_floats);
        for (int i = threadIdx.x; i < TILE; i += THREADS) {
          pairs[i] = start + i < p.queries ? rows[start + i] : make_float2(INFINITY, 0.f);
        }
      } else {
        fetch(stream1, k, p.k_stride[3], start, TILE, limit, p.dim, dim4, row_floats);
        fetch(stream2, v, p.v_stride[3], start, TILE, limit, p.dim, dim4, row_floats);
      }
      __syncthreads();
      if (tx < TILE) {
        float x[COLUMNS][4] = {}, y[COLUMNS][4] = {};
        for (int c = 0; c < dim4; c += 4) {
          float4 u[COLUMNS], w[COLUMNS];
#pragma unroll
          for (int j = 0; j < COLUMNS; ++j) {
            u[j] = *reinterpret_cast<const float4 *>(stream1 + (tx + 16 * j) * row_floats + c);
            w[j] = *reinterpret_cast<const float4 *>(stream2 + (tx + 16 * j) * row_floats + c);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float4 own1 = *reinterpret_cast<const float4 *>(first_rows + (row0 + i) * row_floats + c);
            const float4 own2 = *reinterpret_cast<const float4 *>(second_rows + (row0 + i) * row_floats + c);
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) x[j][i] = dot4(own1, u[j], x[j][i]), y[j][i] = dot4(own2, w[j], y[j][i]);
          }
        }
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
          const int column = tx + 16 * j;
          float weight[4], slope[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 pair = pairs[KEYS ? column : row0 + i];
            const int own = first + row0 + i, other = start + column;
            const float more = KEYS ? added.of(other, own) : added.of(own, other);
            weight[i] = exp2f(fmaf(x[j][i], p.scale_log2, more - pair.x));
            slope[i] = weight[i] == 0.f ? 0.f : weight[i] * (y[j][i] - pair.y);
          }
          const int at4 = column * PITCH + row0;
          *reinterpret_cast<float4 *>(weights + at4) = make_float4(weight[0], weight[1], weight[2], weight[3]);
          *reinterpret_cast<float4 *>(slopes + at4) = make_float4(slope[0], slope[1], slope[2], slope[3]);
        }
      }
      __syncwarp();
      for (int j = 0; j < TILE; ++j) {
        const float4 w = *reinterpret_cast<const float4 *>(weights + j * PITCH + row0);
        const float4 d = *reinterpret_cast<const float4 *>(slopes + j * PITCH + row0);
#pragma unroll
        for (int c = 0; c < SUMS; ++c) {
          const int column = tx + 16 * c;
          if (column >= p.dim) break;
          const float u = stream1[j * row_floats + column];
          acc_y[c][0] = fmaf(d.x, u, acc_y[c][0]), acc_y[c][1] = fmaf(d.y, u, acc_y[c][1]);
          acc_y[c][2] = fmaf(d.z, u, acc_y[c][2]), acc_y[c][3] = fmaf(d.w, u, acc_y[c][3]);
          if constexpr (KEYS) {
            const float z = stream2[j * row_floats + column];
            acc_x[c][0] = fmaf(w.x, z, acc_x[c][0]), acc_x[c][1] = fmaf(w.y, z, acc_x[c][1]);
            acc_x[c][2] = fmaf(w.z, z, acc_x[c][2]), acc_x[c][3] = fmaf(w.w, z, acc_x[c][3]);
          }
        }
      }
    }
    __syncthreads();
  }
  const long long *stride = KEYS ? b.dk_stride : b.dq_stride;
  const long long to = offset_of(stride, at, at.head);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = first + row0 + i;
    if (token >= (KEYS ? p.keys : p.queries)) continue;
    // Padding has no gradient.
    const bool there = !KEYS || token < limit;
#pragma unroll
    for (int c = 0; c < SUMS; ++c) {
      const int column = tx + 16 * c;
      if (column >= p.dim) break;
      const long long x = to + token * stride[3] + column;
      static_cast<T *>(KEYS ? b.dk : b.dq)[x] = from_float<T>(there ? acc_y[c][i] * b.scale : 0.f);
      if constexpr (KEYS) static_cast<T *>(b.dv)[x] = from_float<T>(there ? acc_x[c][i] : 0.f);
    }
  }
}

// Threads (a quarter of them rows), streamed tile, sums a thread: head dimensions up to 16 times as many.
#define EXACT(DIM, THREADS, TILE, SUMS)                                                                   \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                   \
      attention_backward_exact_queries_d##DIM##_t##THREADS(const __grid_constant__ BackwardParams p) {    \
    exact_body<ELEMENT, THREADS, TILE, SUMS, false>(p);                                                   \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                   \
      attention_backward_exact_keys_d##DIM##_t##THREADS(const __grid_constant__ BackwardParams p) {       \
    exact_body<ELEMENT, THREADS, TILE, SUMS, true>(p);                                                    \
  }
EXACT(48, 256, 32, 3)
EXACT(96, 256, 32, 6)
EXACT(160, 128, 16, 10)
EXACT(256, 128, 8, 16)
// For time axes.
EXACT(48, 64, 16, 3)
EXACT(96, 64, 16, 6)
EXACT(160, 64, 16, 10)

// One thread a row of the list: which blocks of keys a block of queries sees, written out.
extern "C" __global__ void attention_backward_seen(const __grid_constant__ BackwardParams b) {
  const AttentionParams &p = b.call;
  const int wide = (p.keys + p.block_k - 1) / p.block_k, tall = (p.queries + p.block_q - 1) / p.block_q;
  const long long row = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (row >= static_cast<long long>(p.block_planes) * tall) return;
  unsigned char *const to = b.seen + row * wide;
  for (int i = 0; i < wide; ++i) to[i] = 0;
  for (int i = p.block_start[row]; i < p.block_start[row + 1]; ++i) to[p.block_index[i]] = 1;
}
