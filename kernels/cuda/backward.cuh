// What the gradient kernels of attention share.
//
// With weights w = exp(s - lse) and slopes d = w (grad · value - delta), delta = grad · out of a query:
// dV = wᵀ grad, dQ = scale d K, dK = scale dᵀ Q. Keys and queries are walked over in passes of their own,
// so that every sum has one owner and one order: no atomics, equal bits in every run.
#pragma once
#include "common.cuh"

// Mirrors `BackwardParams` of src/cuda/attention_backward.rs, field by field. Strides count elements.
struct BackwardParams {
  AttentionParams call;  // `out` and `lse` are the forward results; `tiles` those of the pass over queries
  const void *grad;
  void *dq, *dk, *dv;
  float2 *rows;         // [batch, inner, heads, queries]: log-sum in powers of two (+inf: sees nothing), delta
  unsigned char *seen;  // [planes, query blocks, key blocks] of a block list
  long long grad_stride[4], dq_stride[4], dk_stride[4];  // batch, inner, head, token; dv lies as dk
  float scale;
  int key_tiles;  // work items of the pass over keys
};

// Where a head of keys lies; `head` numbers heads of keys.
__device__ __forceinline__ Place key_place_of(const AttentionParams &p, unsigned problem) {
  Place at;
  const unsigned heads = p.heads / p.group, inner = p.inner;
  at.head = problem % heads;
  at.sequence = problem / heads;
  at.inner = at.sequence % inner;
  at.batch = at.sequence / inner;
  return at;
}

__device__ __forceinline__ float2 row_of(float lse, float delta) {
  return make_float2(lse == -INFINITY ? INFINITY : lse * LOG2_E, delta);
}

// What the mask adds to a score in powers of two; -inf hides it.
template <typename T> struct Added {
  const AttentionParams *call;
  const unsigned char *map;
  long long bias_at;
  int limit, key_blocks;

  __device__ __forceinline__ Added(const BackwardParams &b, const Place &at, unsigned problem, int limit)
      : call(&b.call), map(nullptr), bias_at(0), limit(limit), key_blocks(0) {
    const AttentionParams &p = b.call;
    if (p.mask == MASK_BLOCKS) {
      key_blocks = (p.keys + p.block_k - 1) / p.block_k;
      map = b.seen + static_cast<long long>(problem % p.block_planes) * ((p.queries + p.block_q - 1) / p.block_q) *
                         key_blocks;
    } else if (p.mask == MASK_BIAS) {
      bias_at = at.batch * p.bias_stride[0] + at.inner * p.bias_stride[1] + at.head * p.bias_stride[2];
    }
  }

  __device__ __forceinline__ float of(int query, int key) const {
    const AttentionParams &p = *call;
    if (key >= limit || query >= p.queries) return -INFINITY;
    if (p.mask == MASK_CAUSAL) return key > query + p.keys - p.queries ? -INFINITY : 0.f;
    if (p.mask == MASK_BLOCKS) {
      return map[static_cast<long long>(query / p.block_q) * key_blocks + key / p.block_k] ? 0.f : -INFINITY;
    }
    if (p.mask == MASK_BIAS) {
      const long long x = bias_at + query * p.bias_stride[3] + key * p.bias_stride[4];
      return LOG2_E * (p.bias_f32 ? static_cast<const float *>(p.bias)[x] : to_float(static_cast<const T *>(p.bias)[x]));
    }
    return 0.f;
  }

  // Whether any of these pairs is seen, asked by every thread of the block together.
  __device__ __forceinline__ bool any(int query, int queries, int key, int keys) const {
    const AttentionParams &p = *call;
    if (p.mask != MASK_BLOCKS) return true;
    const int q0 = query / p.block_q, q1 = (min(query + queries, p.queries) - 1) / p.block_q;
    const int k0 = key / p.block_k, k1 = (min(key + keys, p.keys) - 1) / p.block_k;
    bool yes = false;
    for (int i = threadIdx.x; i < (q1 - q0 + 1) * (k1 - k0 + 1); i += blockDim.x) {
      yes |= map[static_cast<long long>(q0 + i / (k1 - k0 + 1)) * key_blocks + k0 + i % (k1 - k0 + 1)] != 0;
    }
    return __syncthreads_or(yes);
  }
};
