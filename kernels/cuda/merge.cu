// A partial attention result into the running one, weighted by their log-sums: exact.
//
// A warp a row of [batch, queries, heads, dim]; log-sums are [batch, heads, queries]. The last merge
// writes the result in the element type. Compile with -DELEMENT=__half, __nv_bfloat16 or float.
#include "common.cuh"

struct MergeParams {
  float *total, *total_lse;
  const void *part;
  const float *part_lse;
  void *out;  // null until the last part
  long long rows;
  int queries, heads, dim;
};

template <typename T> __device__ __forceinline__ void merge_body(const MergeParams &p) {
  const long long row = static_cast<long long>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int lane = threadIdx.x % 32, head = row % p.heads;
  const long long token = row / p.heads, batch = token / p.queries, query = token % p.queries;
  const long long at = (batch * p.heads + head) * p.queries + query;
  const float a = p.total_lse[at], b = p.part_lse[at], high = max_nan(a, b);
  __syncwarp();
  // Nothing seen so far by either: zeros.
  const float x = high == -INFINITY ? 0.f : exp2_fast((a - high) * LOG2_E), y = high == -INFINITY ? 0.f : exp2_fast((b - high) * LOG2_E);
  const float sum = x + y, one = high == -INFINITY ? 0.f : 1.f / sum;
  const T *part = static_cast<const T *>(p.part) + row * p.dim;
  float *total = p.total + row * p.dim;
  T *out = p.out ? static_cast<T *>(p.out) + row * p.dim : nullptr;
  for (int i = lane; i < p.dim; i += 32) {
    const float value = (total[i] * x + to_float(part[i]) * y) * one;
    if (out) out[i] = from_float<T>(value);
    else total[i] = value;
  }
  if (lane == 0) p.total_lse[at] = high == -INFINITY ? high : high + logf(sum);
}

extern "C" __global__ void __launch_bounds__(256) attention_merge(const MergeParams p) { merge_body<ELEMENT>(p); }
