// Attention in f32 arithmetic on the ordinary units: f32 inputs, odd head dimensions, misaligned
// strides. Compile with -DELEMENT=float, __half or __nv_bfloat16.
#include "common.cuh"

constexpr int QUERIES = 32, KEYS = 16, THREADS = 256, MAX_DIM = 256;

template <typename T>
__device__ __forceinline__ void fetch(float *to, const T *from, long long stride, int first, int rows, int limit,
                                      int dim) {
  for (int i = threadIdx.x; i < rows * dim; i += THREADS) {
    const int row = i / dim, column = i % dim, token = first + row;
    to[row * (dim + 1) + column] = token < limit ? to_float(from[token * stride + column]) : 0.f;
  }
}

// Whether the block list has this key for this query.
__device__ __forceinline__ bool in_blocks(const AttentionParams &p, unsigned problem, int query, int key) {
  const int block_rows = (p.queries + p.block_q - 1) / p.block_q;
  const int row = problem % p.block_planes * block_rows + query / p.block_q, wanted = key / p.block_k;
  for (int i = p.block_start[row]; i < p.block_start[row + 1]; ++i) {
    if (p.block_index[i] == wanted) return true;
  }
  return false;
}

// Eight threads a query: each has every eighth column of the result and two scores of a key tile.
extern "C" __global__ void __launch_bounds__(THREADS) attention_exact(const __grid_constant__ AttentionParams p) {
  using T = ELEMENT;
  extern __shared__ float memory[];
  const int dim = p.dim, row_floats = dim + 1;
  float *const queries = memory, *const keys = queries + QUERIES * row_floats;
  float *const values = keys + KEYS * row_floats, *const weights = values + KEYS * row_floats;
  const unsigned problem = blockIdx.x / p.tiles;
  const int first = (blockIdx.x - problem * p.tiles) * QUERIES;
  const Place at = place_of(p, problem);
  const int limit = key_limit(p, at), kv_head = at.head / p.group;
  const T *q = static_cast<const T *>(p.q) + offset_of(p.q_stride, at, at.head);
  const T *k = static_cast<const T *>(p.k) + offset_of(p.k_stride, at, kv_head);
  const T *v = static_cast<const T *>(p.v) + offset_of(p.v_stride, at, kv_head);
  const int row = threadIdx.x / 8, part = threadIdx.x % 8, query = first + row;
  const long long bias_at = at.batch * p.bias_stride[0] + at.inner * p.bias_stride[1] + at.head * p.bias_stride[2];
  fetch(queries, q, p.q_stride[3], first, QUERIES, p.queries, dim);
  float acc[MAX_DIM / 8] = {}, max = -INFINITY, sum = 0.f;
  const int end = p.mask == MASK_CAUSAL ? min(limit, first + QUERIES + p.keys - p.queries) : limit;
  for (int start = 0; start < end; start += KEYS) {
    __syncthreads();
    fetch(keys, k, p.k_stride[3], start, KEYS, limit, dim);
    fetch(values, v, p.v_stride[3], start, KEYS, limit, dim);
    __syncthreads();
    float s[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int key = start + part + 8 * j;
      float dot = 0.f;
      for (int c = 0; c < dim; ++c) dot = fmaf(queries[row * row_floats + c], keys[(part + 8 * j) * row_floats + c], dot);
      s[j] = dot * p.scale_log2;
      bool seen = key < limit && query < p.queries;
      if (p.mask == MASK_CAUSAL) seen = seen && key <= query + p.keys - p.queries;
      if (p.mask == MASK_BLOCKS) seen = seen && in_blocks(p, problem, query, key);
      if (p.mask == MASK_BIAS && seen) {
        const long long x = bias_at + query * p.bias_stride[3] + key * p.bias_stride[4];
        s[j] += LOG2_E * (p.bias_f32 ? static_cast<const float *>(p.bias)[x] : to_float(static_cast<const T *>(p.bias)[x]));
      }
      if (!seen) s[j] = -INFINITY;
    }
    float top = max_nan(s[0], s[1]);
#pragma unroll
    for (int by = 1; by < 8; by *= 2) top = max_nan(top, __shfl_xor_sync(~0u, top, by));
    top = max_nan(top, max);
    const float base = top == -INFINITY ? 0.f : top, shrink = exp2f(max - base);
    max = top;
    sum *= shrink;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float weight = exp2f(s[j] - base);
      sum += weight;
      weights[row * (KEYS + 1) + part + 8 * j] = weight;
    }
    __syncwarp();
#pragma unroll
    for (int c = 0; c < MAX_DIM / 8; ++c) acc[c] *= shrink;
    // Keys past the end weigh nothing, and their values were read as zero.
    for (int j = 0; j < KEYS; ++j) {
      const float weight = weights[row * (KEYS + 1) + j];
#pragma unroll
      for (int c = 0; c < MAX_DIM / 8; ++c) {
        if (part + 8 * c < dim) acc[c] = fmaf(weight, values[j * row_floats + part + 8 * c], acc[c]);
      }
    }
    __syncwarp();
  }
#pragma unroll
  for (int by = 1; by < 8; by *= 2) sum += __shfl_xor_sync(~0u, sum, by);
  if (query >= p.queries) return;
  const float factor = sum == 0.f ? 0.f : 1.f / sum;
  T *out = static_cast<T *>(p.out) + offset_of(p.out_stride, at, at.head) + query * p.out_stride[3];
#pragma unroll
  for (int c = 0; c < MAX_DIM / 8; ++c) {
    if (part + 8 * c < dim) out[part + 8 * c] = from_float<T>(acc[c] * factor);
  }
  if (p.lse && part == 0) p.lse[static_cast<long long>(problem) * p.queries + query] = log_sum(max, sum);
}
